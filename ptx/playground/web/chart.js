// One chart on a canvas: lines over a common x, zoom by dragging, a readout by pointer or keys.
// Charts of one page share a view (what is zoomed to, what is pointed at), so they move together.
ptx.chartView = () => {
  const listeners = [];
  const view = {
    zoom: null, // [from, to] in x, or null for all
    hover: null, // an x, or null
    set(changes) {
      Object.assign(view, changes);
      for (const call of listeners) call();
    },
    on: (call) => listeners.push(call),
  };
  return view;
};

// series: [{color, x, y, width, alpha, dash, dots}]; x grows, null in y is a gap.
ptx.chart = ({ label, unit, view, height }) => {
  const { el, number } = ptx;
  const MARGIN = { left: 50, right: 12, top: 20, bottom: 22 };
  const canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": label });
  const element = el("div", { class: "chart" }, canvas);
  let series = [];
  let axis = ptx.axes.step;
  let log = false;
  let scale = null; // of the last drawing
  let drag = null; // [from, to] in pixels

  // ---- ranges ----------------------------------------------------------------------------------

  function wholeRange() {
    let low = Infinity;
    let high = -Infinity;
    for (const { x } of series) {
      if (!x.length) continue;
      low = Math.min(low, x[0]);
      high = Math.max(high, x[x.length - 1]);
    }
    return low > high ? [0, 1] : [low, Math.max(high, low + 1e-9 + (low === high ? 1 : 0))];
  }

  // The indices of a series that lie in [from, to], and one more on each side.
  function visible({ x }, from, to) {
    return [Math.max(0, ptx.lowerBound(x, from) - 1), Math.min(x.length, ptx.lowerBound(x, to) + 2)];
  }

  function yRange(from, to) {
    let low = Infinity;
    let high = -Infinity;
    for (const s of series) {
      const [start, end] = visible(s, from, to);
      for (let i = start; i < end; i += 1) {
        const value = s.y[i];
        if (!isShown(value) || s.x[i] < from || s.x[i] > to) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (low > high) return [log ? 0.1 : 0, 1];
    if (log) return [low / 1.06, high * 1.06];
    const pad = 0.05 * (high - low) || Math.abs(high) * 0.05 || 1;
    return [low - pad, high + pad];
  }

  function makeScale(width, tall) {
    const [x0, x1] = view.zoom ?? wholeRange();
    const [y0, y1] = yRange(x0, x1);
    const f = log ? Math.log : (v) => v;
    const w = width - MARGIN.left - MARGIN.right;
    const h = tall - MARGIN.top - MARGIN.bottom;
    const perX = w / (x1 - x0);
    const perY = h / (f(y1) - f(y0));
    return {
      x0, x1, y0, y1, right: width - MARGIN.right, bottom: tall - MARGIN.bottom,
      x: (value) => MARGIN.left + (value - x0) * perX,
      y: (value) => MARGIN.top + h - (f(value) - f(y0)) * perY,
      at: (pixel) => x0 + (pixel - MARGIN.left) / perX,
    };
  }

  // ---- drawing ---------------------------------------------------------------------------------

  function draw() {
    const width = Math.floor(element.clientWidth);
    if (!width) return;
    const tall = height(width);
    const g = ptx.fit(canvas, width, tall);
    scale = makeScale(width, tall);
    if (!main()) {
      note(g, width, tall);
      return;
    }
    drawAxes(g, width, tall);
    g.save();
    g.beginPath();
    g.rect(MARGIN.left, 0, scale.right - MARGIN.left, scale.bottom + 1);
    g.clip();
    for (const s of series) line(g, s);
    if (drag) selection(g);
    g.restore();
    if (view.hover !== null) drawHover(g);
  }

  function note(g, width, tall) {
    g.font = `12px ${ptx.color("--font")}`;
    g.fillStyle = ptx.color("--body-text-color-subdued");
    g.textAlign = "center";
    g.fillText("no points yet", width / 2, tall / 2);
    g.textAlign = "left";
    g.fillText(unit, MARGIN.left, 12);
  }

  function drawAxes(g, width, tall) {
    g.font = `11px ${ptx.color("--font")}`;
    g.fillStyle = ptx.color("--body-text-color-subdued");
    g.strokeStyle = ptx.color("--border-color-primary");
    g.lineWidth = 1;
    g.textAlign = "right";
    g.textBaseline = "middle";
    g.beginPath();
    for (const value of yTicks(tall)) {
      const y = Math.round(scale.y(value)) + 0.5;
      g.moveTo(MARGIN.left, y);
      g.lineTo(scale.right, y);
      g.fillText(axisNumber(value), MARGIN.left - 6, y);
    }
    g.stroke();
    g.textBaseline = "top";
    const { ticks, text } = axis.ticks(scale.x0, scale.x1, Math.max(2, width / 100));
    for (const value of ticks) {
      const x = scale.x(value);
      g.textAlign = x > scale.right - 20 ? "right" : x < MARGIN.left + 8 ? "left" : "center";
      g.fillText(text(value), Math.min(x, scale.right), scale.bottom + 6);
    }
    g.textAlign = "left";
    g.fillText(unit, MARGIN.left, 2);
  }

  function yTicks(tall) {
    const count = Math.max(2, tall / 50);
    if (!log) return ptx.ticks(scale.y0, scale.y1, count);
    const found = [];
    for (let power = Math.floor(Math.log10(scale.y0)); power <= Math.log10(scale.y1); power += 1) {
      for (const m of [1, 1.5, 2, 3, 5, 7]) found.push(Number((m * 10 ** power).toPrecision(12)));
    }
    const inside = found.filter((v) => v >= scale.y0 && v <= scale.y1);
    if (inside.length < 2) return ptx.ticks(scale.y0, scale.y1, count);
    const every = Math.ceil(inside.length / (2 * count));
    return inside.filter((_, i) => i % every === 0);
  }

  const isShown = (value) => value !== null && !(log && value <= 0);

  function line(g, s) {
    const [start, end] = visible(s, scale.x0, scale.x1);
    const dense = end - start > 2 * (scale.right - MARGIN.left);
    g.strokeStyle = s.color;
    g.lineWidth = s.width ?? 1;
    g.lineJoin = dense ? "bevel" : "round"; // round ones cost the most of a dense line
    g.globalAlpha = s.alpha ?? 1;
    g.setLineDash(s.dash ?? []);
    g.beginPath();
    for (let i = start; i < end; i += 1) {
      if (!isShown(s.y[i])) continue;
      const from = i;
      while (i < end && isShown(s.y[i])) i += 1;
      g.moveTo(scale.x(s.x[from]), scale.y(s.y[from]));
      (dense ? columns : points)(g, s, from, i);
    }
    g.stroke();
    g.setLineDash([]);
    if (s.dots && end - start <= 150) dots(g, s, start, end);
    g.globalAlpha = 1;
  }

  function points(g, { x, y }, from, to) {
    for (let i = from; i < to; i += 1) g.lineTo(scale.x(x[i]), scale.y(y[i]));
  }

  // More points than pixels are drawn as what a finer pen would leave: in each column of pixels the
  // first, the least, the greatest and the last.
  function columns(g, { x, y }, from, to) {
    for (let i = from; i < to;) {
      const column = Math.round(scale.x(x[i]));
      const first = i;
      let least = i;
      let greatest = i;
      for (; i < to && Math.round(scale.x(x[i])) === column; i += 1) {
        if (y[i] < y[least]) least = i;
        if (y[i] > y[greatest]) greatest = i;
      }
      for (const at of new Set([first, least, greatest, i - 1])) g.lineTo(column, scale.y(y[at]));
    }
  }

  function dots(g, { x, y, color, width }, start, end) {
    g.fillStyle = color;
    for (let i = start; i < end; i += 1) {
      if (!isShown(y[i])) continue;
      g.beginPath();
      g.arc(scale.x(x[i]), scale.y(y[i]), (width ?? 1) + 0.8, 0, 2 * Math.PI);
      g.fill();
    }
  }

  function selection(g) {
    g.fillStyle = ptx.color("--color-accent");
    g.globalAlpha = 0.15;
    g.fillRect(Math.min(...drag), MARGIN.top, Math.abs(drag[1] - drag[0]), scale.bottom - MARGIN.top);
    g.globalAlpha = 1;
  }

  function drawHover(g) {
    const x = scale.x(view.hover);
    if (x < MARGIN.left - 1 || x > scale.right + 1) return;
    g.strokeStyle = ptx.color("--body-text-color-subdued");
    g.lineWidth = 1;
    g.setLineDash([3, 3]);
    g.beginPath();
    g.moveTo(x, MARGIN.top);
    g.lineTo(x, scale.bottom);
    g.stroke();
    g.setLineDash([]);
  }

  // ---- pointer and keys ------------------------------------------------------------------------

  const inside = (x) => Math.min(scale.right, Math.max(MARGIN.left, x));
  const main = () => series.find((s) => s.x.length); // the keys walk along its points

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !scale) return;
    canvas.setPointerCapture(event.pointerId);
    drag = [inside(event.offsetX), inside(event.offsetX)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!scale || !main()) return;
    if (drag) drag[1] = inside(event.offsetX);
    const { x } = main();
    view.set({ hover: x[ptx.nearest(x, scale.at(inside(event.offsetX)))] });
  });
  canvas.addEventListener("pointerup", () => {
    const chosen = drag;
    drag = null;
    if (!chosen || Math.abs(chosen[1] - chosen[0]) <= 6) return;
    const [from, to] = chosen.map(scale.at).sort((a, b) => a - b);
    view.set({ zoom: [from, to] });
  });
  canvas.addEventListener("pointercancel", () => (drag = null));
  canvas.addEventListener("pointerleave", () => view.set({ hover: null }));
  canvas.addEventListener("dblclick", () => view.set({ zoom: null }));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey || !scale) return; // a plain wheel scrolls the page
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 0.7 : 1 / 0.7, scale.at(inside(event.offsetX)));
  }, { passive: false });

  function zoomBy(factor, middle) {
    const whole = wholeRange();
    const [from, to] = view.zoom ?? whole;
    middle ??= view.hover ?? (from + to) / 2;
    const zoom = [
      Math.max(whole[0], middle - (middle - from) * factor),
      Math.min(whole[1], middle + (to - middle) * factor),
    ];
    if (zoom[1] - zoom[0] < 1e-6 * (whole[1] - whole[0])) return;
    view.set({ zoom: zoom[0] <= whole[0] && zoom[1] >= whole[1] ? null : zoom });
  }

  function walk(direction) {
    const { x } = main();
    const [start, end] = visible({ x }, scale.x0, scale.x1);
    const stride = Math.max(1, Math.round((end - start) / 100));
    const from = view.hover === null ? (direction < 0 ? x.length : -1) : ptx.nearest(x, view.hover);
    view.set({ hover: x[Math.min(x.length - 1, Math.max(0, from + direction * stride))] });
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's
    if (!scale || !main()) return;
    const actions = {
      ArrowLeft: () => walk(-1),
      ArrowRight: () => walk(1),
      "+": () => zoomBy(0.5),
      "-": () => zoomBy(2),
      0: () => view.set({ zoom: null }),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });

  view.on(draw);
  new ResizeObserver(draw).observe(element);
  ptx.onTheme(draw);

  function axisNumber(value) {
    const size = Math.abs(value);
    if (size >= 1e4) return `${number(value / 1e3, 1)}k`;
    if (size && size < 1e-3) return value.toExponential().replace("e-", "e−");
    return String(value);
  }

  return {
    element,
    show(changes) {
      ({ series = series, axis = axis, log = log } = changes);
      draw();
    },
  };
};
