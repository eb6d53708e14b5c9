// The Model tab: figures of the model that is on the page, its parameters by part, its memory.
ptx.model = ({ element }) => {
  const { el, store, number } = ptx;

  const WIDE = 20; // characters of a value that takes the room of two

  const figure = ([name, value]) =>
    el("div", { class: value.length > WIDE ? "wide" : "" }, el("dt", {}, name), el("dd", {}, value));
  const percent = (share) => `${(100 * share).toFixed(share < 0.01 ? 2 : 1)} %`;

  // One bar, cut by what the parameters do; the table under it says the same in words.
  function partsPicture(parts) {
    const total = parts.reduce((sum, { size }) => sum + size, 0);
    const bar = el("div", { class: "parts", "aria-hidden": "true" });
    const rows = parts.map(({ name, size, note }, i) => {
      const piece = el("span", { class: `part part-${i}`, title: `${name}: ${number(size)}` });
      piece.style.flexGrow = size;
      if (size) bar.append(piece);
      const cell = (text, more = {}) => el("td", { role: "cell", ...more }, text);
      return el("tr", { role: "row" },
        el("th", { role: "rowheader", scope: "row" }, el("span", { class: `part part-${i}` }), name),
        cell(number(size)), cell(percent(size / total)), cell(note, { class: "note" }));
    });
    // A phone's style sheet lays the rows out as a grid, and would take from a table what it is.
    return [bar, el("table", { class: "parts-table", role: "table" }, el("tbody", { role: "rowgroup" }, ...rows))];
  }

  // How it was trained: the same chart as in the Training tab.
  const view = ptx.chartView();
  const chart = ptx.chart({ label: "Bits per byte of this model's training", unit: "bits per byte", view, height: () => 240 });

  function curve(found) {
    if (!found) return [el("p", { class: "hint" }, "This model has no log of its training.")];
    const { train, val } = found;
    chart.show({
      series: [
        { color: ptx.color("--train"), x: train.step, y: train.bpb, alpha: 0.6 },
        { color: ptx.color("--val"), x: val.step, y: val.val_bpb, width: 2, dots: true },
      ],
    });
    return [chart.element, el("div", { class: "legend" },
      el("span", { class: "key train" }, "training"), el("span", { class: "key val" }, "validation"))];
  }

  function draw({ about }) {
    element.replaceChildren(
      el("section", { class: "model-panel" },
        el("div", { class: "bar" }, el("h2", {}, about.model.name)),
        el("dl", { class: "figures" }, ...about.facts.map(figure)),
        el("h3", {}, "Parameters, by what they do"), ...partsPicture(about.parts),
        el("h3", {}, "Memory"), el("dl", { class: "figures" }, ...about.memory.map(figure)),
        el("h3", {}, "Training"), ...curve(about.curve)));
  }

  ptx.onTheme(() => draw(store.state));
  store.on(["about"], (state) => {
    view.set({ zoom: null, hover: null }); // of another model's training
    draw(state);
  });
  if (store.state.about) draw(store.state);
};
