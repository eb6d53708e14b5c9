// Loss curves of one run, followed while it goes on, with its latest figures and samples.
ptx.curves = ({ element, server }) => {
  const { el, number } = ptx;
  const EVERY = 2000; // ms between two questions to the server
  const MARGIN = { left: 52, right: 14, top: 12, bottom: 34 };
  const NAMES = {
    step: "step",
    tokens: "tokens read",
    bpb: "training, bits per byte",
    val_bpb: "validation, bits per byte",
    loss: "loss, nats per token",
    lr: "learning rate",
    muon_lr: "learning rate of the matrices",
    grad_norm: "gradient norm",
    tokens_per_s: "tokens/s",
    mfu: "share of the machine's peak",
    memory_gib: "peak memory, GiB",
    elapsed: "time",
  };

  const runs = el("select", { "aria-label": "Run" });
  const log = el("input", { type: "checkbox", id: "curves-log" });
  const smooth = el("input", { type: "range", min: "0", max: "0.99", step: "0.01", value: "0.9", id: "curves-smooth" });
  const whole = el("button", { type: "button", class: "quiet", disabled: "" }, "Show all");
  const live = el("span", { class: "live", hidden: "" }, "live");
  const canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": "Loss curves: bits per byte by step" });
  const readout = el("p", { class: "readout", role: "status" });
  const legend = el("div", { class: "legend" },
    el("span", { class: "key train" }, "training"), el("span", { class: "key val" }, "validation"));
  const empty = el("div", { class: "empty", hidden: "" },
    el("p", {}, "No training run here yet. Start one and it appears by itself:"),
    el("pre", { class: "code" }, "python prepare/run.py installed\npython train/run.py --preset nano"));
  const figures = el("dl", { class: "figures" });
  const samples = el("div", { class: "samples" });
  const chart = el("div", { class: "chart" }, canvas);
  const content = el("div", {}, chart,
    el("div", { class: "under" }, legend, readout), figures, samples);
  element.replaceChildren(
    el("section", { class: "curves-panel" },
      el("div", { class: "bar controls" },
        el("label", {}, "Run ", runs), live,
        el("label", { for: "curves-log" }, log, " log scale"),
        el("label", { for: "curves-smooth" }, "Smoothing ", smooth), whole),
      empty, content),
  );

  let state;
  let zoom = null; // [first, last] step shown, or null for all
  let hover = null; // index of a training point
  let drag = null; // [from, to] in pixels

  function reset(run) {
    state = {
      run, metrics: 0, samples: 0, latest: {}, texts: [],
      train: { x: [], y: [] }, val: { x: [], y: [] },
    };
    zoom = hover = drag = null;
  }

  // ---- following -------------------------------------------------------------------------------

  // New points continue a series; where they overlap it, the run was resumed from earlier.
  function extend(series, [x, y]) {
    if (!x.length) return;
    let keep = series.x.length;
    while (keep && series.x[keep - 1] >= x[0]) keep -= 1;
    series.x.length = series.y.length = keep;
    for (let i = 0; i < x.length; i += 1) {
      series.x.push(x[i]);
      series.y.push(y[i]);
    }
  }

  let asking = false;
  async function ask() {
    if (asking) return;
    asking = true;
    const asked = state.run;
    const { run, metrics, samples } = state;
    const answer = await server.follow({ run, metrics, samples }).catch(() => undefined);
    asking = false;
    if (!answer) return;
    if (state.run !== asked) {
      ask(); // another run was chosen meanwhile
      return;
    }
    if (answer.run !== state.run) reset(answer.run);
    list(answer.runs);
    empty.hidden = Boolean(answer.run);
    content.hidden = !answer.run;
    if (answer.run) take(answer);
  }

  function take(answer) {
    state.metrics = answer.metrics;
    state.samples = answer.samples;
    extend(state.train, answer.train);
    extend(state.val, answer.val);
    Object.assign(state.latest, answer.latest);
    state.texts = [...state.texts, ...answer.texts].slice(-4);
    if (answer.train[0].length || answer.val[0].length || !canvas.width) draw();
    drawFigures();
    if (answer.texts.length || !samples.children.length) drawSamples();
  }

  function list(found) {
    const current = found.map((run) => run.key + run.name).join("\n");
    if (runs.dataset.current !== current) {
      runs.dataset.current = current;
      runs.replaceChildren(...found.map((run) => el("option", { value: run.key }, run.name)));
    }
    runs.value = state.run;
    live.hidden = !found.find((run) => run.key === state.run)?.live;
  }

  // ---- figures and samples ---------------------------------------------------------------------

  function duration(seconds) {
    const [h, m, s] = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(Math.floor);
    return h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
  }

  function drawFigures() {
    const shown = Object.entries(NAMES).filter(([key]) => key in state.latest);
    figures.replaceChildren(...shown.map(([key, name]) => {
      const value = state.latest[key];
      return el("div", {}, el("dt", {}, name), el("dd", {}, key === "elapsed" ? duration(value) : number(value, 4)));
    }));
  }

  function drawSamples() {
    samples.replaceChildren(...[...state.texts].reverse().map(({ step, prompt, text }) => {
      const code = el("pre", { class: "code" });
      code.append(...ptx.colored(prompt + text));
      return el("figure", {}, el("figcaption", {}, `written at step ${number(step)}`), code);
    }));
  }

  // ---- the chart -------------------------------------------------------------------------------

  // Exponential moving average without the bias of its start.
  function smoothed(y) {
    const keep = Number(smooth.value);
    let mean = 0;
    let weight = 0;
    return y.map((value) => {
      mean = keep * mean + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
      return mean / weight;
    });
  }

  function ticks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) =>
      Number(((first + i) * step).toPrecision(12)));
  }

  function xRange() {
    const all = [...ends(state.train.x), ...ends(state.val.x)];
    return zoom ?? (all.length ? [Math.min(...all), Math.max(Math.min(...all) + 1, ...all)] : [0, 1]);
  }
  const ends = (x) => (x.length ? [x[0], x.at(-1)] : []);

  function yRange([from, to]) {
    let low = Infinity;
    let high = -Infinity;
    for (const { x, y } of [state.train, state.val]) {
      for (let i = 0; i < x.length; i += 1) {
        if (x[i] < from || x[i] > to) continue;
        low = Math.min(low, y[i]);
        high = Math.max(high, y[i]);
      }
    }
    if (low > high) return [0, 1];
    const pad = Math.max(1e-3, 0.04 * (high - low));
    return [log.checked ? Math.max(low * 0.97, 1e-3) : low - pad, high + pad];
  }

  let scale = null; // of the last drawing: {x, y, step}

  function makeScale(width, height) {
    const [x0, x1] = xRange();
    const [y0, y1] = yRange([x0, x1]);
    const f = log.checked ? Math.log : (v) => v;
    const w = width - MARGIN.left - MARGIN.right;
    const h = height - MARGIN.top - MARGIN.bottom;
    return {
      x0, x1, y0, y1,
      x: (step) => MARGIN.left + (w * (step - x0)) / (x1 - x0),
      y: (value) => MARGIN.top + h - (h * (f(value) - f(y0))) / (f(y1) - f(y0)),
      step: (pixel) => x0 + ((pixel - MARGIN.left) / w) * (x1 - x0),
    };
  }

  function draw() {
    const width = Math.floor(chart.clientWidth);
    if (!width) return;
    const height = Math.max(220, Math.min(400, Math.round(width * 0.45)));
    const g = ptx.fit(canvas, width, height);
    scale = makeScale(width, height);
    drawAxes(g, width, height);
    g.save();
    g.beginPath();
    g.rect(MARGIN.left, 0, width - MARGIN.left - MARGIN.right, height - MARGIN.bottom + 1);
    g.clip();
    const train = ptx.color("--train");
    line(g, state.train.x, state.train.y, train, 1, 0.28);
    line(g, state.train.x, smoothed(state.train.y), train, 2, 1);
    const val = ptx.color("--val");
    line(g, state.val.x, state.val.y, val, 2, 1);
    dots(g, state.val, val);
    if (drag) selection(g, height);
    g.restore();
    drawHover(g, height);
    whole.disabled = zoom === null;
  }

  function drawAxes(g, width, height) {
    g.font = `11px ${ptx.color("--font")}`;
    g.fillStyle = ptx.color("--body-text-color-subdued");
    g.strokeStyle = ptx.color("--border-color-primary");
    g.lineWidth = 1;
    g.textAlign = "right";
    g.textBaseline = "middle";
    for (const value of ticks(scale.y0, scale.y1, height / 55)) {
      const y = Math.round(scale.y(value)) + 0.5;
      g.beginPath();
      g.moveTo(MARGIN.left, y);
      g.lineTo(width - MARGIN.right, y);
      g.stroke();
      g.fillText(String(value), MARGIN.left - 6, y);
    }
    g.textAlign = "center";
    g.textBaseline = "top";
    for (const step of ticks(scale.x0, scale.x1, width / 110)) {
      if (Number.isInteger(step)) g.fillText(number(step), scale.x(step), height - MARGIN.bottom + 6);
    }
    g.fillText("step", MARGIN.left + (width - MARGIN.left - MARGIN.right) / 2, height - 14);
    g.save();
    g.translate(11, MARGIN.top + (height - MARGIN.top - MARGIN.bottom) / 2);
    g.rotate(-Math.PI / 2);
    g.textBaseline = "middle";
    g.fillText("bits per byte", 0, 0);
    g.restore();
  }

  function line(g, x, y, color, width, alpha) {
    g.strokeStyle = color;
    g.lineWidth = width;
    g.globalAlpha = alpha;
    g.lineJoin = "round";
    g.beginPath();
    x.forEach((step, i) => g.lineTo(scale.x(step), scale.y(y[i])));
    g.stroke();
    g.globalAlpha = 1;
  }

  function dots(g, { x, y }, color) {
    if (x.length > 120) return;
    g.fillStyle = color;
    x.forEach((step, i) => {
      g.beginPath();
      g.arc(scale.x(step), scale.y(y[i]), 2.5, 0, 2 * Math.PI);
      g.fill();
    });
  }

  function selection(g, height) {
    g.fillStyle = ptx.color("--color-accent");
    g.globalAlpha = 0.15;
    g.fillRect(Math.min(...drag), MARGIN.top, Math.abs(drag[1] - drag[0]), height - MARGIN.top - MARGIN.bottom);
    g.globalAlpha = 1;
  }

  function nearest(x, step) {
    let low = 0;
    let high = x.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (x[middle] < step) low = middle + 1;
      else high = middle;
    }
    return low > 0 && step - x[low - 1] < x[low] - step ? low - 1 : low;
  }

  function drawHover(g, height) {
    const { train, val } = state;
    if (hover === null || hover >= train.x.length) {
      readout.replaceChildren(el("span", { class: "hint" }, "Point at the curve or use the arrow keys; drag to zoom, double-click for all."));
      return;
    }
    const step = train.x[hover];
    const x = scale.x(step);
    g.strokeStyle = ptx.color("--body-text-color-subdued");
    g.setLineDash([3, 3]);
    g.beginPath();
    g.moveTo(x, MARGIN.top);
    g.lineTo(x, height - MARGIN.bottom);
    g.stroke();
    g.setLineDash([]);
    const parts = [`step ${number(step)}`, `training ${train.y[hover].toFixed(3)}`, `smoothed ${smoothed(train.y.slice(0, hover + 1)).at(-1).toFixed(3)}`];
    if (val.x.length) {
      const i = nearest(val.x, step);
      parts.push(`validation ${val.y[i].toFixed(3)} (step ${number(val.x[i])})`);
    }
    readout.textContent = parts.join(" · ");
  }

  // ---- pointer and keys ------------------------------------------------------------------------

  const inside = (x) => Math.min(canvas.clientWidth - MARGIN.right, Math.max(MARGIN.left, x));

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !scale) return;
    canvas.setPointerCapture(event.pointerId);
    drag = [inside(event.offsetX), inside(event.offsetX)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!scale || !state.train.x.length) return;
    if (drag) drag[1] = inside(event.offsetX);
    hover = nearest(state.train.x, scale.step(inside(event.offsetX)));
    draw();
  });
  canvas.addEventListener("pointerup", () => {
    if (drag && Math.abs(drag[1] - drag[0]) > 6) {
      const [from, to] = drag.map(scale.step).sort((a, b) => a - b);
      if (to - from >= 2) zoom = [from, to];
    }
    drag = null;
    draw();
  });
  canvas.addEventListener("pointercancel", () => (drag = null));
  canvas.addEventListener("pointerleave", () => {
    hover = null;
    draw();
  });

  function showAll() {
    zoom = null;
    draw();
  }
  canvas.addEventListener("dblclick", showAll);
  whole.addEventListener("click", showAll);

  function zoomBy(factor) {
    const [from, to] = xRange();
    const middle = hover === null ? (from + to) / 2 : state.train.x[hover];
    const half = Math.max(2, ((to - from) / 2) * factor);
    const all = ((zoom = null), xRange());
    zoom = [Math.max(all[0], middle - half), Math.min(all[1], middle + half)];
    if (zoom[0] === all[0] && zoom[1] === all[1]) zoom = null;
    draw();
  }

  canvas.addEventListener("keydown", (event) => {
    const last = state.train.x.length - 1;
    if (last < 0) return;
    const stride = Math.max(1, Math.round(last / 100));
    const actions = {
      ArrowLeft: () => (hover = Math.max(0, (hover ?? last + stride) - stride)),
      ArrowRight: () => (hover = Math.min(last, (hover ?? -stride) + stride)),
      "+": () => zoomBy(0.5),
      "-": () => zoomBy(2),
      0: showAll,
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
    draw();
  });

  runs.addEventListener("change", () => {
    reset(runs.value);
    samples.replaceChildren();
    ask();
  });
  log.addEventListener("change", draw);
  smooth.addEventListener("input", draw);
  new ResizeObserver(() => draw()).observe(chart);
  ptx.onTheme(() => draw());

  reset("");
  ask();
  const timer = setInterval(() => {
    if (!element.isConnected) clearInterval(timer);
    else if (element.offsetParent && !document.hidden) ask();
  }, EVERY);
};
