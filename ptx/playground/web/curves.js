// Curves of one run and of those it is compared with, its latest figures, the texts it wrote.
ptx.curves = ({ onChoose }) => {
  const { el, number, axes } = ptx;
  const COLORS = 6;
  const NAMES = {
    step: "step",
    tokens: "tokens read",
    bpb: "training, bits per byte",
    val_bpb: "validation windows, bits per byte",
    loss: "loss, nats per token",
    lr: "learning rate",
    muon_lr: "learning rate of the matrices",
    grad_norm: "gradient norm",
    tokens_per_s: "tokens/s",
    mfu: "share of the machine's peak",
    memory_gib: "peak memory, GiB",
    elapsed: "time",
  };

  let listing = [];
  let run = ""; // the key of the run at hand
  let others = []; // keys of those beside it
  const histories = ptx.histories();

  // ---- controls --------------------------------------------------------------------------------

  const choice = el("select", { "aria-label": "Run", id: "run-choice" });
  const over = el("select", { "aria-label": "Over", id: "curves-over" },
    ...["step", "tokens", "elapsed"].map((key) => el("option", { value: key }, axes[key].name)));
  const log = el("input", { type: "checkbox", id: "curves-log" });
  const smooth = el("input", { type: "range", min: "0", max: "0.99", step: "0.01", value: "0.9", id: "curves-smooth" });
  const whole = ptx.button("Show all", () => view.set({ zoom: null }), { disabled: "" });
  const beside = el("div", { class: "beside", role: "group", "aria-label": "Compare with" });
  const differences = el("div", { class: "differences", role: "status" });
  const legend = el("div", { class: "legend" });
  const readout = el("p", { class: "readout", role: "status" });

  const view = ptx.chartView();
  const main = ptx.chart({
    label: "Bits per byte of training and validation", unit: "bits per byte", view,
    height: (width) => Math.max(220, Math.min(380, Math.round(width * 0.42))),
  });
  const small = ["lr", "grad_norm", "tokens_per_s"].map((figure) => ({
    figure,
    chart: ptx.chart({ label: NAMES[figure], unit: NAMES[figure], view, height: () => 120 }),
  }));
  const figures = el("dl", { class: "figures" });
  const written = ptx.written();
  const element = el("div", { class: "curves" },
    el("div", { class: "bar controls" },
      el("label", {}, "Run ", choice),
      el("label", {}, "over ", over),
      el("label", { for: "curves-log" }, log, " log scale"),
      el("label", { for: "curves-smooth" }, "Smoothing ", smooth), whole,
      ptx.share.exports("curves", () => element, numbers)),
    beside, differences, main.element,
    el("div", { class: "under" }, legend, readout),
    el("div", { class: "small-charts" }, ...small.map(({ chart }) => chart.element)),
    figures, written.element);

  choice.addEventListener("change", () => onChoose(choice.value));
  over.addEventListener("change", () => {
    view.zoom = view.hover = null;
    draw();
  });
  log.addEventListener("change", draw);
  smooth.addEventListener("input", draw);
  view.on(() => {
    ptx.keepFocus(() => (whole.disabled = view.zoom === null), () => [main.element.firstChild]);
    drawReadout();
  });

  // Every point of the runs that are shown, for a file.
  function numbers() {
    const names = ["step", "tokens", "elapsed", "bpb", "val_bpb", "lr", "muon_lr", "grad_norm", "tokens_per_s"];
    const rowsOf = (name, columns) => (columns.step ?? []).map((_, i) =>
      ({ run: name, ...Object.fromEntries(names.map((n) => [n, columns[n]?.[i] ?? ""])) }));
    return [run, ...others].filter((key) => histories.has(key)).flatMap((key) => {
      const { train, val } = histories.get(key);
      const { name } = listing.find((one) => one.key === key) ?? { name: key };
      return [...rowsOf(name, train), ...rowsOf(name, val)];
    });
  }

  // ---- what the server sends -------------------------------------------------------------------

  // What is shown, for the next question: {key: how far it is known}.
  function wanted() {
    const keys = [run, ...others].filter(Boolean);
    return Object.fromEntries(keys.map((key) => [key, histories.get(key)?.read ?? null]));
  }

  // Whether there is more to read at once.
  function take(answer) {
    listing = answer.runs;
    const known = new Set(listing.map(({ key }) => key));
    others = others.filter((key) => known.has(key) && key !== answer.run);
    const changed = run !== answer.run;
    run = answer.run;
    if (changed) view.zoom = view.hover = null;
    let news = changed;
    for (const [key, part] of Object.entries(answer.shown)) news = histories.add(key, part) || news;
    drawChoices();
    if (news) {
      draw();
      drawFigures();
      written.show(run, histories.get(run));
    }
    return Object.values(answer.shown).some(({ more }) => more);
  }

  // ---- choosing --------------------------------------------------------------------------------

  const STATES = { training: "training", pausing: "pausing", elsewhere: "training", failed: "failed" };
  const label = ({ name, state }) => (STATES[state] ? `${name} · ${STATES[state]}` : name);
  const colorOf = (key) => ptx.color(`--run-${1 + ([run, ...others].indexOf(key) % COLORS)}`);

  function drawChoices() {
    const current = JSON.stringify([run, others, listing.map((r) => [r.key, label(r)])]);
    if (choice.dataset.current === current) return;
    choice.dataset.current = current;
    choice.replaceChildren(...listing.map((r) => el("option", { value: r.key }, label(r))));
    choice.value = run;
    const rest = listing.filter(({ key }) => key !== run);
    beside.hidden = !rest.length;
    const boxes = rest.slice(0, 30).map((r) => {
      const on = others.includes(r.key);
      const box = el("input", { type: "checkbox", value: r.key });
      box.checked = on;
      box.disabled = !on && others.length >= COLORS - 1;
      box.addEventListener("change", () => {
        others = box.checked ? [...others, r.key] : others.filter((key) => key !== r.key);
        delete choice.dataset.current;
        drawChoices();
        draw();
        ptx.training.ask();
      });
      const node = el("label", { class: on ? "chip on" : "chip" }, box, r.name);
      if (on) node.style.setProperty("--chip", `var(--run-${1 + ([run, ...others].indexOf(r.key) % COLORS)})`);
      return node;
    });
    ptx.keepFocus(() => beside.replaceChildren(el("span", { class: "hint" }, "Compare with"), ...boxes),
      ({ value }) => [...beside.querySelectorAll("input")].filter((box) => box.value === value));
    drawDifferences();
  }

  const SETTINGS = { batch_size: "batch size", lr: "learning rate", muon_lr: "matrices' learning rate" };
  function drawDifferences() {
    const base = histories.get(run)?.settings ?? {};
    const name = nameOf(run);
    ptx.say(differences, ...others.map((key) => {
      const settings = histories.get(key)?.settings;
      const keys = [...new Set([...Object.keys(base), ...Object.keys(settings ?? {})])];
      const text = (value) => (typeof value === "number" ? number(value, 5) : String(value ?? "unknown"));
      const parts = keys
        .filter((k) => base[k] !== settings?.[k])
        .map((k) => `${SETTINGS[k] ?? k.replaceAll("_", " ")} ${text(settings?.[k])} (${name}: ${text(base[k])})`);
      const what = !settings || !Object.keys(settings).length || !Object.keys(base).length
        ? "its settings are not known"
        : parts.length ? parts.join(" · ") : "the same settings";
      return el("p", {}, el("b", {}, nameOf(key)), ` ${what}`);
    }));
  }
  const nameOf = (key) => listing.find((r) => r.key === key)?.name ?? key;

  // ---- drawing ---------------------------------------------------------------------------------

  // Exponential moving average over steps, without the bias of its start.
  function smoothed(step, y) {
    const keep = Number(smooth.value);
    let mean = 0;
    let weight = 0;
    let last = null;
    return y.map((value, i) => {
      if (value === null) return null;
      const share = last === null || step[i] - last === 1 ? keep : keep ** (step[i] - last);
      last = step[i];
      mean = share * mean + (1 - share) * value;
      weight = share * weight + (1 - share);
      return mean / weight;
    });
  }

  function curve(key, part, figure) {
    const columns = histories.get(key)?.[part];
    const x = columns?.[over.value];
    return x?.length && x[0] !== null && x.at(-1) !== null && columns[figure]
      ? { x, y: columns[figure], step: columns.step }
      : { x: [], y: [], step: [] };
  }

  let means = new Map(); // key -> the smoothed curve that is drawn
  function draw() {
    means = new Map();
    const keys = [run, ...others];
    const alone = keys.length === 1;
    element.classList.toggle("several", !alone); // room for the readout: nothing may jump
    const series = [];
    const axis = axes[over.value];
    for (const key of keys) {
      const color = colorOf(key);
      const { x, y, step } = curve(key, "train", "bpb");
      const even = Number(smooth.value) > 0;
      if (even) series.push({ x, y, color, width: 1, alpha: alone ? 0.28 : 0.14 });
      means.set(key, even ? smoothed(step, y) : y);
      series.push({ x, y: means.get(key), color, width: even ? 2 : 1.2 });
      const val = curve(key, "val", "val_bpb");
      series.push({ x: val.x, y: val.y, color: alone ? ptx.color("--val") : color, width: 2, dash: alone ? null : [5, 4], dots: true });
    }
    main.show({ series, axis, log: log.checked });
    for (const { figure, chart } of small) {
      chart.show({
        series: keys.flatMap((key) => {
          const { x, y } = curve(key, "train", figure);
          const rates = figure === "lr" ? curve(key, "train", "muon_lr") : { x: [], y: [] };
          return [{ x, y, color: colorOf(key) }, { ...rates, color: colorOf(key), dash: [4, 3] }];
        }),
        axis,
        log: log.checked,
      });
    }
    const key = (kind, text) => el("span", { class: `key ${kind}` }, text);
    legend.replaceChildren(...(alone
      ? [key("train", "training"), key("val", "validation")]
      : [...keys.map((k) => {
          const node = key("run", nameOf(k));
          node.style.color = colorOf(k);
          return node;
        }), el("span", {}, "line: training · dashes: validation")]));
    whole.disabled = view.zoom === null;
    drawReadout();
    drawDifferences();
  }

  function drawReadout() {
    if (view.hover === null) {
      ptx.say(readout, el("span", { class: "hint" }, "Point at a curve or use the arrow keys; drag to zoom, double-click for all."));
      return;
    }
    const axis = axes[over.value];
    const parts = [axis.text(view.hover)];
    const own = pointedAt();
    for (const key of [run, ...others]) {
      const train = curve(key, "train", "bpb");
      if (!train.x.length) continue;
      const i = ptx.nearest(train.x, view.hover);
      const ended = view.hover > train.x.at(-1) ? ` (its last, ${axis.text(train.x[i])})` : "";
      const name = others.length ? `${nameOf(key)}${ended}: ` : "";
      if (own) {
        parts.push(name + (wordsOf(own, key, i).join(" · ") || "not known"));
        continue;
      }
      const words = [`training ${train.y[i].toFixed(3)}`, `smoothed ${means.get(key)[i].toFixed(3)}`];
      const val = curve(key, "val", "val_bpb");
      if (val.x.length) {
        const j = ptx.nearest(val.x, view.hover);
        words.push(`validation ${val.y[j].toFixed(3)} (${axis.text(val.x[j])})`);
      }
      parts.push(name + words.join(" · "));
    }
    ptx.say(readout, parts.join(" · "));
  }

  // The small chart that somebody points at, or walks along.
  const pointedAt = () =>
    small.find(({ chart }) => chart.element.matches(":hover")) ??
    small.find(({ chart }) => chart.element.matches(":focus-within") && !main.element.matches(":hover"));

  // What a small chart says at point i of a run.
  function wordsOf({ figure }, key, i) {
    const values = (figure === "lr" ? ["lr", "muon_lr"] : [figure])
      .map((name) => [name, curve(key, "train", name).y[i]])
      .filter(([, value]) => value !== null && value !== undefined);
    return values.map(([name, value]) => `${NAMES[name]} ${number(value, 4)}`);
  }

  function drawFigures() {
    const latest = histories.get(run)?.latest ?? {};
    const shown = Object.entries(NAMES).filter(([key]) => key in latest);
    figures.replaceChildren(...shown.map(([key, name]) => {
      const value = latest[key];
      return el("div", {}, el("dt", {}, name), el("dd", {}, key === "elapsed" ? axes.duration(value) : number(value, 4)));
    }));
  }

  ptx.onTheme(draw);
  return { element, choice, wanted, take };
};
