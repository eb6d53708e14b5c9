// Every head small, one of them large. Weights travel as a byte v = 255 * sqrt(weight).
ptx.heads = ({ element, props, watch, server }) => {
  const { el } = ptx;
  const GUTTER = 66; // for the labels left of and above the large map
  const ROW = 11; // least distance of two labels

  const note = el("p", { class: "message", hidden: "" });
  const grid = el("div", { class: "heads-grid", role: "group", "aria-label": "Attention of all heads" });
  const title = el("h3", {});
  const map = el("canvas", { class: "map", tabindex: "0", role: "img", "aria-label": "Attention of one head" });
  const readout = el("p", { class: "readout", role: "status" });
  const bar = el("canvas", { class: "ramp" });
  const ticks = el("div", { class: "ticks", "aria-hidden": "true" });
  element.replaceChildren(
    el("section", { class: "heads-panel" },
      el("div", { class: "bar" }, el("h2", {}, "Heads"), el("span", { class: "stats" }, "where each one looks: row = query, column = key")),
      note,
      el("div", { class: "heads-body" },
        grid,
        el("div", { class: "large" }, el("div", { class: "bar" }, title), map, readout,
          el("div", { class: "legend" }, el("span", {}, "weight"), el("div", { class: "scale" }, bar, ticks))))),
  );
  for (const weight of [0, 0.01, 0.1, 0.25, 0.5, 1]) {
    const tick = el("span", {}, String(weight));
    tick.style.left = `${100 * Math.sqrt(weight)}%`;
    ticks.append(tick);
  }

  let view = null; // the last overview
  let pinned = { layer: 0, head: 0 };
  let cells = null; // {ids, labels, start, layer, head, values}: the large map
  let at = null; // [query, key] under the pointer or the arrow keys
  let asked = 0;

  const name = (layer, head) => `layer ${layer} · head ${head}`;

  // ---- all heads -------------------------------------------------------------------------------

  function buildGrid() {
    grid.style.setProperty("--heads", view.heads);
    grid.replaceChildren(
      el("span", {}),
      ...Array.from({ length: view.heads }, (_, h) => el("span", { class: "column" }, `H${h}`)),
    );
    for (let layer = 0; layer < view.layers; layer += 1) {
      grid.append(el("span", { class: "row" }, `L${layer}`));
      for (let head = 0; head < view.heads; head += 1) {
        const button = el("button", { type: "button", "aria-label": name(layer, head), title: name(layer, head) }, el("canvas", {}));
        Object.assign(button.dataset, { layer, head });
        grid.append(button);
      }
    }
  }

  const buttonOf = (layer, head) => grid.querySelector(`[data-layer="${layer}"][data-head="${head}"]`);

  function drawGrid() {
    const colors = ptx.colormap();
    const pixels = ptx.bytes(view.thumbnails);
    const size = view.side * view.side;
    grid.querySelectorAll("canvas").forEach((canvas, i) => {
      canvas.width = canvas.height = view.side;
      const image = new ImageData(view.side, view.side);
      for (let p = 0; p < size; p += 1) {
        image.data.set(colors[pixels[i * size + p]], 4 * p);
        image.data[4 * p + 3] = 255;
      }
      canvas.getContext("2d").putImageData(image, 0, 0);
    });
  }

  function markPinned() {
    for (const button of grid.querySelectorAll("button")) {
      const chosen = +button.dataset.layer === pinned.layer && +button.dataset.head === pinned.head;
      button.setAttribute("aria-pressed", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
  }

  grid.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) pin(+button.dataset.layer, +button.dataset.head);
  });

  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const button = event.target.closest("button");
    if (!step || !button) return;
    event.preventDefault();
    buttonOf(+button.dataset.layer + step[0], +button.dataset.head + step[1])?.focus();
  });

  // ---- one head --------------------------------------------------------------------------------

  async function pin(layer, head) {
    pinned = { layer, head };
    markPinned();
    const { ids, labels, start } = view;
    const turn = (asked += 1);
    const answer = await server.head({ ids, layer, head }).catch(() => undefined);
    if (turn !== asked) return; // a newer text or another head overtook this one
    if (!answer?.triangle) {
      readout.textContent = answer?.error ?? "This head could not be fetched; try again.";
      return;
    }
    cells = { ids, labels, start, layer, head, values: ptx.bytes(answer.triangle) };
    if (at && at[0] >= ids.length) at = null;
    title.textContent = name(layer, head);
    drawMap();
    describe();
  }

  const valueOf = (q, k) => cells.values[(q * (q + 1)) / 2 + k];

  function geometry() {
    const side = Math.max(160, Math.floor(map.parentElement.clientWidth));
    const n = cells.ids.length;
    return { side, n, cell: (side - GUTTER - 1) / n };
  }

  function drawMap() {
    if (!cells || !map.parentElement.clientWidth) return;
    const { side, n, cell } = geometry();
    const g = ptx.fit(map, side, side);
    g.imageSmoothingEnabled = n * 2 > side; // few cells stay sharp squares
    g.drawImage(image(n), GUTTER, GUTTER, cell * n, cell * n);
    g.strokeStyle = ptx.color("--border-color-primary");
    g.strokeRect(GUTTER - 0.5, GUTTER - 0.5, cell * n + 1, cell * n + 1);
    drawLabels(g, n, cell);
    if (at) drawCross(g, n, cell);
  }

  function image(n) {
    const colors = ptx.colormap();
    const picture = new OffscreenCanvas(n, n);
    const data = new ImageData(n, n);
    for (let q = 0; q < n; q += 1) {
      for (let k = 0; k <= q; k += 1) {
        data.data.set(colors[valueOf(q, k)], 4 * (q * n + k));
        data.data[4 * (q * n + k) + 3] = 255;
      }
    }
    picture.getContext("2d").putImageData(data, 0, 0);
    return picture;
  }

  function drawLabels(g, n, cell) {
    const every = Math.ceil(ROW / cell);
    g.font = `10px ${ptx.color("--font-mono")}`;
    g.textBaseline = "middle";
    for (let i = 0; i < n; i += 1) {
      const chosen = (axis) => at && at[axis] === i;
      // around the chosen row and column their own label needs the room
      const crowded = (axis) => at && Math.abs(at[axis] - i) * cell < ROW;
      if (chosen(0) || (i % every === 0 && !crowded(0))) label(g, i, cell, false, chosen(0));
      if (chosen(1) || (i % every === 0 && !crowded(1))) label(g, i, cell, true, chosen(1));
    }
  }

  function label(g, i, cell, above, chosen) {
    const middle = GUTTER + (i + 0.5) * cell;
    g.save();
    g.fillStyle = ptx.color(chosen ? "--color-accent" : "--body-text-color");
    g.globalAlpha = chosen ? 1 : 0.8;
    g.textAlign = above ? "left" : "right";
    if (above) {
      g.translate(middle, GUTTER - 5);
      g.rotate(-Math.PI / 2);
    } else {
      g.translate(GUTTER - 5, middle);
    }
    g.fillText(ptx.visible(cells.labels[i], 9), 0, 0);
    g.restore();
  }

  function drawCross(g, n, cell) {
    const [q, k] = at;
    // outlines, not a tint: the colours of the cells must stay those of the legend
    g.strokeStyle = ptx.color("--color-accent");
    g.globalAlpha = 0.55;
    g.strokeRect(GUTTER, GUTTER + q * cell, cell * n, cell);
    g.strokeRect(GUTTER + k * cell, GUTTER, cell, cell * n);
    g.globalAlpha = 1;
    g.lineWidth = 2;
    const grow = Math.max(0, (5 - cell) / 2);
    g.strokeRect(GUTTER + k * cell - grow, GUTTER + q * cell - grow, cell + 2 * grow, cell + 2 * grow);
  }

  function describe() {
    if (!cells) return;
    if (!at) {
      readout.replaceChildren(el("span", { class: "hint" }, "Point at a cell, or use the arrow keys."));
      return;
    }
    const [q, k] = at;
    const token = (i) => `${ptx.visible(cells.labels[i], 24)}`;
    const weight = (valueOf(q, k) / 255) ** 2;
    readout.replaceChildren(
      el("code", {}, token(q)), el("small", {}, String(cells.start + q)), " → ",
      el("code", {}, token(k)), el("small", {}, String(cells.start + k)), ": ",
      el("b", {}, weight.toFixed(3)),
    );
  }

  function select(q, k) {
    const n = cells.ids.length;
    q = Math.min(n - 1, Math.max(0, q));
    at = [q, Math.min(q, Math.max(0, k))];
    drawMap();
    describe();
  }

  map.addEventListener("pointermove", (event) => {
    if (!cells) return;
    const { cell, n } = geometry();
    const q = Math.floor((event.offsetY - GUTTER) / cell);
    const k = Math.floor((event.offsetX - GUTTER) / cell);
    if (q < 0 || k < 0 || q >= n || k > q) return;
    if (!at || at[0] !== q || at[1] !== k) select(q, k);
  });
  map.addEventListener("pointerleave", () => {
    if (document.activeElement === map) return;
    at = null;
    drawMap();
    describe();
  });
  map.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !cells) return;
    event.preventDefault();
    const [q, k] = at ?? [cells.ids.length - 1, 0];
    select(q + (at ? step[0] : 0), k + (at ? step[1] : 0));
  });

  // ---- together --------------------------------------------------------------------------------

  function drawRamp() {
    const colors = ptx.colormap();
    bar.width = 256;
    bar.height = 1;
    const data = new ImageData(256, 1);
    colors.forEach((c, i) => data.data.set([...c, 255], 4 * i));
    bar.getContext("2d").putImageData(data, 0, 0);
  }

  function redraw() {
    drawRamp();
    if (view) drawGrid();
    drawMap();
  }

  function update() {
    if (!props.value) return;
    const first = !view;
    view = props.value;
    if (first) buildGrid();
    note.hidden = view.start === 0;
    note.textContent = `The text is longer than the context: these maps show the last ${view.ids.length} tokens, which the model still sees.`;
    drawGrid();
    pin(pinned.layer, pinned.head);
  }

  new ResizeObserver(drawMap).observe(map.parentElement);
  ptx.onTheme(redraw);
  drawRamp();
  watch("value", update);
  update();
};
