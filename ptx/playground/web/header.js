// The title, the model to look at, what it is in one line, and light or dark.
ptx.header = ({ element, props, trigger, server }) => {
  const { el, store } = ptx;

  const choice = el("select", { id: "model-choice", "aria-label": "Model" });
  const summary = el("p", { class: "summary" });
  const problem = el("p", { class: "message error", role: "alert", hidden: "" });
  const toggle = el("button", { type: "button", class: "quiet", id: "theme" });
  element.replaceChildren(
    el("header", { class: "header" }, el("h1", {}, "P-Transformer"), choice, summary,
      ...ptx.share.buttons(complain), toggle), problem);

  function complain(sentence) {
    problem.textContent = sentence;
    problem.hidden = !sentence;
  }

  function show(about) {
    choice.replaceChildren(...about.models.map(({ key, name }) => el("option", { value: key }, name)));
    choice.value = about.model.key;
    const [, ...facts] = about.summary; // the first is the name, which the choice shows
    summary.replaceChildren(...facts.map((fact) => el("span", {}, fact)));
    store.set({ model: about.model, about });
  }

  async function choose(key) {
    choice.disabled = true;
    const about = await server.describe_model({ model: key }).catch(() => undefined);
    choice.disabled = false;
    complain(about?.model ? "" : about?.error ?? "The model could not be loaded; try again.");
    if (about?.model) {
      show(about);
      trigger("select", { key });
    }
    choice.value = store.state.model.key;
  }

  choice.addEventListener("change", () => choose(choice.value));
  // Runs appear while the page is open: the list is asked for anew when a person turns to it.
  async function refresh() {
    const about = await server.describe_model({ model: store.state.model.key }).catch(() => undefined);
    if (about?.model && about.models.length !== choice.options.length) show(about);
  }
  choice.addEventListener("focus", refresh);
  ptx.chooseModel = choose;

  const label = () => (toggle.textContent = ptx.isDark() ? "Light" : "Dark");
  toggle.addEventListener("click", () => document.body.classList.toggle("dark"));
  ptx.onTheme(label);
  label();
  show(props.value);
  refresh();
};
