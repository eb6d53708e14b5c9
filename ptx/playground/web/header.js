// The title, the model to look at, what it is in one line, and light or dark.
ptx.header = ({ element, props, trigger, server }) => {
  const { el, store } = ptx;

  const ELSEWHERE = "hub:"; // the choice that asks for a name

  const choice = el("select", { id: "model-choice", "aria-label": "Model" });
  const name = el("input", { id: "hub-name", placeholder: "user/name", "aria-label": "Name of a model on the Hugging Face Hub", spellcheck: "false" });
  const cancel = ptx.button("Cancel", () => askForName(false));
  const form = el("form", { class: "hub-form", hidden: "" }, name, el("button", { class: "quiet" }, "Open"), cancel);
  const summary = el("p", { class: "summary" });
  const { node: problem, tell: complain } = ptx.problem();
  const toggle = el("button", { type: "button", class: "quiet", id: "theme" });
  element.replaceChildren(
    el("header", { class: "header" }, el("h1", {}, "P-Transformer"), choice, form, summary,
      ...ptx.share.buttons(complain), toggle), problem);

  // A run's key is that of its newest checkpoint; the one on the page has a place of its own.
  let offered = "";
  function offer({ models, hub }) {
    const { key, name: title } = store.state.model;
    const { value } = choice; // perhaps of a model that is on its way
    const listed = models.some((one) => one.key === key);
    const all = [...models, ...(listed ? [] : [{ key, name: title }]), ...(hub ? [{ key: ELSEWHERE, name: "from the Hub…" }] : [])];
    if (JSON.stringify(all) !== offered) {
      offered = JSON.stringify(all);
      choice.replaceChildren(...grouped(all));
    }
    choice.value = value;
  }

  // Earlier checkpoints of a run stand together, under its name.
  function grouped(all) {
    const option = (one) => el("option", { value: one.key }, one.name);
    const runs = [...new Set(all.map(({ run }) => run).filter(Boolean))];
    const groups = runs.map((run) =>
      el("optgroup", { label: `${run} while it learned` }, ...all.filter((one) => one.run === run).map(option)));
    const alone = all.filter(({ run, key }) => !run && key !== ELSEWHERE).map(option);
    return [...alone, ...groups, ...all.filter(({ key }) => key === ELSEWHERE).map(option)];
  }

  function show(about) {
    const { model } = store.state;
    store.set({ model: model?.key === about.model.key ? model : about.model, about }); // whose texts stay
    offer(about);
    choice.value = about.model.key;
    const [, ...facts] = about.summary; // the first is the name, which the choice shows
    summary.replaceChildren(...facts.map((fact) => el("span", {}, fact)));
  }

  let turn = 0; // of choosing: a newer choice overtakes it
  async function choose(key) {
    const mine = (turn += 1);
    const about = await server.describe_model({ model: key }).catch(() => undefined);
    if (mine !== turn) return;
    complain(about?.model ? "" : about?.error ?? "The model could not be loaded; try again.");
    if (about?.model) {
      show(about);
      trigger("select", { key: about.model.key });
    }
    choice.value = store.state.model.key;
  }

  function askForName(asking) {
    ptx.keepFocus(() => {
      form.hidden = !asking;
      choice.hidden = asking;
    }, () => [choice]);
    if (asking) name.focus();
    else choice.value = store.state.model.key;
  }
  choice.addEventListener("change", () => (choice.value === ELSEWHERE ? askForName(true) : choose(choice.value)));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    complain("");
    summary.replaceChildren(el("span", { role: "status" }, `Fetching ${name.value}…`));
    await choose(ELSEWHERE + name.value.trim());
    show(store.state.about);
    askForName(false);
  });
  // Runs appear while the page is open: the list is asked for anew when a person turns to it. The
  // model and its text stay as they are.
  async function refresh() {
    const found = await server.list_models({}).catch(() => undefined);
    if (found) offer(found);
  }
  choice.addEventListener("focus", refresh);
  ptx.chooseModel = choose;
  ptx.complain = complain;

  const THEME = "ptx-theme"; // what a person chose here; the system's is followed until then
  const label = () => (toggle.textContent = ptx.isDark() ? "Light" : "Dark");
  toggle.addEventListener("click", () => {
    const dark = document.body.classList.toggle("dark");
    ptx.remember(THEME, dark ? "dark" : "light");
  });
  const theme = ptx.remembered(THEME);
  if (theme && !new URLSearchParams(location.search).has("__theme")) document.body.classList.toggle("dark", theme === "dark");
  ptx.onTheme(label);
  label();
  show(props.value);
  refresh();
};
