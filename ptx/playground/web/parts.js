// A logit difference as the sum of what wrote it: a cell for each head and MLP, and how the sum
// grows, layer by layer.
ptx.parts = ({ tell }) => {
  const { el, store, pins } = ptx;
  const LEFT = 46;
  const ROW = 24;
  const NUMBER = 26; // pixels that one with one decimal takes
  const BETWEEN = 6; // between heads, MLP and the sum
  const TOP = 18; // the columns' names

  const canvas = el("canvas", { class: "parts", tabindex: "0", role: "img" });
  const frame = el("div", { class: "parts-frame" }, canvas);
  const sum = el("p", { class: "sum" });
  const node = el("div", {}, frame, sum);
  let parts = null; // of the answer to "look", see reading.py
  let rows = []; // of the picture, see table()
  let at = null; // [row, column] under the pointer or the arrow keys

  // Rows of the picture, from the embedding down: {name, cells: [{name, value, head}], sum}.
  function table() {
    const { embedding, heads, mlps, biases } = parts;
    return [
      { name: "embed", cells: [{ name: "The embedding", value: embedding }] },
      ...heads.map((row, layer) => ({
        name: `L${layer}`,
        cells: [
          ...row.map((value, head) => ({ name: `Head ${layer}.${head}`, value, head: `${layer}.${head}` })),
          { name: `MLP ${layer}`, value: mlps[layer] },
        ],
      })),
      ...(biases ? [{ name: "biases", cells: [{ name: "All biases", value: biases }] }] : []),
    ].map((row) => ({ ...row, sum: row.cells.reduce((total, { value }) => total + value, 0) }));
  }

  // ---- drawing ---------------------------------------------------------------------------------

  function geometry() {
    const width = frame.clientWidth;
    const columns = (parts ? parts.heads[0].length : 1) + 1;
    const grid = Math.round((width - LEFT - 2 * BETWEEN) * (columns > 6 ? 0.72 : 0.6));
    const cell = (grid - BETWEEN) / columns;
    return { width, columns, cell, mlp: LEFT + cell * (columns - 1) + BETWEEN, bars: LEFT + grid + BETWEEN * 2 };
  }

  const xOf = (column, { columns, cell, mlp }) => (column === columns - 1 ? mlp : LEFT + column * cell);

  function draw(given) {
    parts = given;
    rows = table();
    if (at) retell();
    paint();
    const heads = parts.heads.flat().reduce((a, b) => a + b, 0);
    const mlps = parts.mlps.reduce((a, b) => a + b, 0);
    sum.replaceChildren(
      ...[["embedding", parts.embedding], ["heads", heads], ["MLPs", mlps], ...(parts.biases ? [["biases", parts.biases]] : [])]
        .flatMap(([name, value], i) => [i ? " " : "", `${name} `, ptx.signedBold(value)]),
      " = ", el("b", { class: "total" }, ptx.signed(parts.total)), " logits",
    );
    canvas.setAttribute("aria-label", `Contributions to the logit of ${ptx.visible(parts.token.text)} less that of ${ptx.visible(parts.against.text)}: ${ptx.signed(parts.total)} in all`);
  }

  function paint() {
    if (!parts || !frame.clientWidth) return;
    const shape = geometry();
    const g = ptx.fit(canvas, shape.width, TOP + rows.length * ROW);
    g.font = `10.5px ${ptx.color("--font-mono")}`;
    g.textBaseline = "middle";
    drawNames(g, shape);
    drawCells(g, shape);
    drawSums(g, shape);
  }

  function drawNames(g, shape) {
    const { columns, cell, bars } = shape;
    g.fillStyle = ptx.color("--body-text-color-subdued");
    g.textAlign = "center";
    for (let c = 0; c < columns; c += 1) g.fillText(c === columns - 1 ? "MLP" : cell < 22 ? c : `H${c}`, xOf(c, shape) + cell / 2, 8);
    g.textAlign = "left";
    g.fillText("sum so far", bars, 8);
    g.textAlign = "right";
    rows.forEach(({ name }, r) => g.fillText(name, LEFT - 6, TOP + r * ROW + ROW / 2));
  }

  function drawCells(g, shape) {
    const largest = Math.max(1e-9, ...rows.flatMap(({ cells }) => cells.map(({ value }) => Math.abs(value))));
    g.textAlign = "center";
    g.lineWidth = 2;
    rows.forEach(({ cells }, r) => {
      const y = TOP + r * ROW;
      const w = cells.length === 1 ? shape.cell * (shape.columns - 1) : shape.cell; // one alone is over the heads' columns
      cells.forEach(({ value, head }, c) => {
        const x = xOf(c, shape);
        g.fillStyle = ptx.diverging(value / largest);
        g.fillRect(x + 0.5, y + 1, w - 1, ROW - 2);
        if (w > NUMBER) {
          g.fillStyle = ptx.onDiverging(value / largest);
          g.fillText(ptx.signed(value, w > NUMBER + 8 ? 2 : 1), x + w / 2, y + ROW / 2 + 0.5);
        }
        if (head && store.state.pinned.includes(head)) {
          g.strokeStyle = ptx.color(pins.colour(head));
          g.strokeRect(x + 1.5, y + 2, w - 3, ROW - 4);
        }
        if (at && at[0] === r && at[1] === c) {
          g.strokeStyle = ptx.color("--body-text-color");
          g.strokeRect(x + 0.5, y + 1, w - 1, ROW - 2);
        }
      });
    });
  }

  // How the sum grows from row to row, each from where the one above ended.
  function drawSums(g, { width, bars }) {
    let total = 0;
    const sums = rows.map((row) => [total, (total += row.sum)]);
    const low = Math.min(0, ...sums.flat());
    const high = Math.max(0, ...sums.flat());
    const place = (value) => bars + ((value - low) / (high - low || 1)) * (width - bars - 2);
    const subdued = ptx.color("--body-text-color-subdued");
    sums.forEach(([before, after], r) => {
      const y = TOP + r * ROW;
      const [left, right] = [before, after].map(place).sort((a, b) => a - b);
      g.fillStyle = ptx.diverging(Math.sign(rows[r].sum) * 0.75);
      g.fillRect(left, y + 5, Math.max(1, right - left), ROW - 10);
      g.fillStyle = subdued;
      if (r + 1 < rows.length) g.fillRect(place(after), y + ROW - 5, 1, 10);
    });
    g.fillRect(place(0), TOP, 1, rows.length * ROW);
  }

  // ---- reading cells -----------------------------------------------------------------------------

  function select(r, c) {
    const row = Math.min(rows.length - 1, Math.max(0, r));
    const column = Math.min(rows[row].cells.length - 1, Math.max(0, c));
    at = [row, column];
    paint();
    tell(rows[row].cells[column]);
  }

  // Other numbers stand in the cell; another model may have none there.
  function retell() {
    const told = rows[at[0]]?.cells[at[1]] ?? null;
    if (!told) at = null;
    tell(told);
  }

  function leave() {
    if (!at) return;
    at = null;
    paint();
    tell(null);
  }

  function hit(event) {
    const shape = geometry();
    const r = Math.floor((event.offsetY - TOP) / ROW);
    const x = event.offsetX;
    if (r < 0 || r >= rows.length || x < LEFT) return null;
    if (rows[r].cells.length === 1) return x < shape.mlp - BETWEEN ? [r, 0] : null;
    if (x >= shape.mlp) return x < shape.mlp + shape.cell ? [r, shape.columns - 1] : null;
    return x < shape.mlp - BETWEEN ? [r, Math.floor((x - LEFT) / shape.cell)] : null;
  }

  function press() {
    const head = at && rows[at[0]].cells[at[1]].head;
    if (head) pins.toggle(head);
  }

  canvas.addEventListener("pointermove", (event) => {
    if (!parts) return;
    const found = hit(event);
    if (!found) leave();
    else if (!at || at[0] !== found[0] || at[1] !== found[1]) select(...found);
  });
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("click", press);
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!parts || (!step && event.key !== "Enter")) return;
    event.preventDefault();
    if (!step) press();
    else if (at) select(at[0] + step[0], at[1] + step[1]);
    else select(1, 0);
  });

  // The room for a model's picture, before there is one.
  function reserve({ layers }) {
    frame.style.minHeight = `${TOP + (layers + 1) * ROW}px`;
  }

  new ResizeObserver(paint).observe(frame);
  ptx.onTheme(paint);
  store.on(["pinned"], paint);

  return { node, draw, reserve };
};
