// One head large: row = the token that looks, column = the token looked at. A canvas with the row of
// the cursor marked; pointer and arrow keys read cells, a click or Enter moves the cursor to a row.
ptx.map = ({ tell, label }) => {
  const { el, store } = ptx;
  const LABELS = 240; // pixels a side from which on the rows and columns are named
  const GUTTER = 58;
  const ROW = 11; // least distance of two names

  const canvas = el("canvas", { class: "map", tabindex: "0", role: "img" });
  const node = el("div", { class: "map-frame" }, canvas);
  let shown = null; // the square drawn, with the labels of its tokens
  let name = "";
  let colour = "--color-accent";
  let at = null; // [q, k] under the pointer or the arrow keys
  let picture = null; // the cells as an image, see `imageOf`
  let side = 0; // pixels of the frame, as the browser last told; 0 while it is hidden

  const valueOf = (q, k) => shown.values[(q * (q + 1)) / 2 + k];
  const weightOf = (q, k) => shown.scale * (valueOf(q, k) / 255) ** 2;

  function geometry() {
    const gutter = side >= LABELS ? GUTTER : 1;
    return { gutter, cell: (side - gutter - 1) / shown.size };
  }

  function draw(square, head, hue) {
    // what is there is another head's until its own has come
    node.classList.toggle("old", !square && name !== "" && head !== name);
    if (square && (square !== shown?.square || square.rows !== shown.rows || square.read !== shown.read || head !== name)) {
      const grown = square === shown?.square && square.values === shown.values && square.from === shown.from
        && square.read === shown.read && square.rows > shown.rows && head === name;
      if (!grown) picture = null;
      shown = { ...square, square, labels: ptx.labels(square.start, square.size) };
      const stays = at && at[0] >= shown.from && at[0] < shown.rows && head === name;
      name = head;
      if (stays) tellCell();
      else if (at) {
        at = null;
        tell(null);
      }
    }
    colour = hue;
    canvas.setAttribute("aria-label", label(head));
    paint();
  }

  function paint() {
    if (!shown || !side) return;
    const { gutter, cell } = geometry();
    const n = shown.size;
    const g = ptx.fit(canvas, side, side);
    picture ??= imageOf();
    addRows();
    g.imageSmoothingEnabled = false; // a cell stays a square of the legend's colour
    g.drawImage(picture.canvas, gutter, gutter, cell * n, cell * n);
    g.strokeStyle = ptx.color("--border-color-primary");
    g.strokeRect(gutter - 0.5, gutter - 0.5, cell * n + 1, cell * n + 1);
    const row = cursorRow();
    if (gutter > 1) names(g, gutter, cell, row);
    if (row !== null) {
      g.strokeStyle = ptx.color(colour);
      g.lineWidth = 1.5;
      const grow = Math.max(0, (3 - cell) / 2);
      g.strokeRect(gutter, gutter + row * cell - grow, cell * (row + 1), cell + 2 * grow);
    }
    if (at) cross(g, gutter, cell);
  }

  function cursorRow() {
    const row = store.state.cursor - 1 - shown.start;
    return store.state.cursor && row >= shown.from && row < shown.rows ? row : null;
  }

  // Room for a cell for each weight, or where there are more weights than pixels, for their largest:
  // none is lost. Of `shown` in this theme; so far the rows before `rows`.
  function imageOf() {
    const pixels = Math.round(side * (window.devicePixelRatio || 1));
    const n = Math.min(shown.size, pixels);
    const place = Array.from({ length: shown.size }, (_, i) => Math.floor((i * n) / shown.size));
    const canvas = new OffscreenCanvas(n, n);
    return { n, place, canvas, largest: new Uint8Array(n * n), data: new ImageData(n, n), rows: shown.from };
  }

  function addRows() {
    const { n, place, canvas, largest, data, rows } = picture;
    if (rows >= shown.rows) return;
    for (let q = rows; q < shown.rows; q += 1) {
      const line = place[q] * n;
      for (let k = 0; k <= q; k += 1) {
        const value = valueOf(q, k);
        if (largest[line + place[k]] < value) largest[line + place[k]] = value;
      }
    }
    const cells = new Uint32Array(data.data.buffer);
    const colors = ptx.packedColormap();
    const [first, last] = [place[rows], place[shown.rows - 1]];
    for (let y = first; y <= last; y += 1) {
      for (let x = 0; x <= y; x += 1) cells[y * n + x] = colors[largest[y * n + x]];
    }
    canvas.getContext("2d").putImageData(data, 0, 0, 0, first, n, last + 1 - first);
    picture.rows = shown.rows;
  }

  function names(g, gutter, cell, row) {
    const every = Math.ceil(ROW / cell);
    const chosen = [at ? at[0] : row, at ? at[1] : null]; // these get their name in any case
    g.font = `10px ${ptx.color("--font-mono")}`;
    g.textBaseline = "middle";
    const inks = [ptx.color("--body-text-color-subdued"), ptx.color(colour)];
    for (let axis = 0; axis < 2; axis += 1) {
      const mine = chosen[axis];
      for (let i = 0; i < shown.rows; i += 1) {
        const crowded = mine !== null && mine !== i && Math.abs(mine - i) * cell < ROW;
        if (i === mine || (i % every === 0 && !crowded)) write(g, gutter, cell, i, axis === 1, inks[Number(i === mine)]);
      }
    }
  }

  function write(g, gutter, cell, i, above, ink) {
    const middle = gutter + (i + 0.5) * cell;
    g.save();
    g.fillStyle = ink;
    g.textAlign = above ? "left" : "right";
    if (above) {
      g.translate(middle, gutter - 4);
      g.rotate(-Math.PI / 2);
    } else {
      g.translate(gutter - 4, middle);
    }
    g.fillText(ptx.visible(shown.labels[i], 8), 0, 0);
    g.restore();
  }

  function cross(g, gutter, cell) {
    const [q, k] = at;
    // outlines, not a tint: the colours of the cells must stay those of the legend
    g.strokeStyle = ptx.color("--body-text-color");
    g.lineWidth = 1;
    g.globalAlpha = 0.35;
    g.strokeRect(gutter, gutter + q * cell, cell * shown.size, cell);
    g.strokeRect(gutter + k * cell, gutter, cell, cell * shown.size);
    g.globalAlpha = 1;
    g.lineWidth = 2;
    const grow = Math.max(0, (5 - cell) / 2);
    g.strokeRect(gutter + k * cell - grow, gutter + q * cell - grow, cell + 2 * grow, cell + 2 * grow);
  }

  // ---- reading cells ---------------------------------------------------------------------------

  function select(q, k) {
    q = Math.min(shown.rows - 1, Math.max(shown.from, q));
    at = [q, Math.min(q, Math.max(0, k))];
    paint();
    tellCell();
  }

  function tellCell() {
    const token = (i) => ({ text: shown.labels[i], index: shown.start + i });
    tell({ name, from: token(at[0]), to: token(at[1]), weight: weightOf(...at) });
  }

  function leave() {
    if (!at) return;
    at = null;
    paint();
    tell(null);
  }

  const toRow = () => at && store.set({ cursor: shown.start + at[0] + 1, following: false });

  canvas.addEventListener("pointermove", (event) => {
    if (!shown) return;
    const { gutter, cell } = geometry();
    const q = Math.floor((event.offsetY - gutter) / cell);
    const k = Math.floor((event.offsetX - gutter) / cell);
    if (q < shown.from || k < 0 || q >= shown.rows || k > q) leave();
    else if (!at || at[0] !== q || at[1] !== k) select(q, k);
  });
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("click", toRow);
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's
    const step = {
      ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      PageUp: [-10, 0], PageDown: [10, 0], Home: [0, -Infinity], End: [0, Infinity],
    }[event.key];
    if (!shown || (!step && event.key !== "Enter")) return;
    event.preventDefault();
    if (!step) return toRow();
    const [q, k] = at ?? [cursorRow() ?? shown.rows - 1, 0];
    if (at) select(q + step[0], k + step[1]);
    else select(q, k);
  });

  new ResizeObserver(() => {
    side = Math.floor(node.clientWidth);
    picture = null;
    paint();
  }).observe(node);
  ptx.onTheme(() => {
    picture = null;
    paint();
  });

  return { node, draw };
};
