// The title, what the model is in one line, and light or dark; the Model tab's list of facts.
ptx.header = ({ element, props }) => {
  const { el } = ptx;
  const toggle = el("button", { type: "button", class: "quiet", id: "theme" });
  const label = () => (toggle.textContent = ptx.isDark() ? "Light" : "Dark");
  toggle.addEventListener("click", () => document.body.classList.toggle("dark"));
  ptx.onTheme(label);
  label();
  element.replaceChildren(
    el(
      "header",
      { class: "header" },
      el("h1", {}, "P-Transformer"),
      el("p", {}, ...(props.value ?? []).map((fact) => el("span", {}, fact))),
      toggle,
    ),
  );
};

ptx.facts = ({ element, props }) => {
  const { el } = ptx;
  const rows = (props.value ?? []).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value)),
  );
  element.replaceChildren(el("dl", { class: "figures" }, ...rows));
};
