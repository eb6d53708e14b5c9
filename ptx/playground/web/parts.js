// A logit difference as the sum of what wrote it: a cell for each head and MLP, and how the sum
// grows, layer by layer.
ptx.parts = ({ tell }) => {
  const { el, store, pins } = ptx;
  const LEFT = 46;
  const ROW = 24;
  const NUMBER = 26; // pixels that one with one decimal takes
  const BETWEEN = 6; // between heads, MLP and the sum

  const canvas = el("canvas", { class: "parts", tabindex: "0", role: "img" });
  const frame = el("div", { class: "parts-frame" }, canvas);
  const sum = el("p", { class: "sum" });
  const node = el("div", {}, frame, sum);
  let parts = null; // of the answer to "look", see reading.py
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
    if (at) retell();
    paint();
    const heads = parts.heads.flat().reduce((a, b) => a + b, 0);
    const mlps = parts.mlps.reduce((a, b) => a + b, 0);
    sum.replaceChildren(
      ...[["embedding", parts.embedding], ["heads", heads], ["MLPs", mlps], ...(parts.biases ? [["biases", parts.biases]] : [])]
        .flatMap(([name, value], i) => [i ? " " : "", `${name} `, el("b", { "data-sign": Math.sign(Math.round(100 * value)) }, ptx.signed(value))]),
      " = ", el("b", { class: "total" }, ptx.signed(parts.total)), " logits",
    );
    canvas.setAttribute("aria-label", `Contributions to the logit of ${ptx.visible(parts.token.text)} less that of ${ptx.visible(parts.against.text)}: ${ptx.signed(parts.total)} in all`);
  }

  function paint() {
    if (!parts || !frame.clientWidth) return;
    const rows = table();
    const shape = geometry();
    const { width, columns, cell, bars } = shape;
    const g = ptx.fit(canvas, width, 18 + rows.length * ROW);
    const largest = Math.max(1e-9, ...rows.flatMap(({ cells }) => cells.map(({ value }) => Math.abs(value))));
    const text = ptx.color("--body-text-color");
    const subdued = ptx.color("--body-text-color-subdued");
    g.font = `10.5px ${ptx.color("--font-mono")}`;
    g.textBaseline = "middle";
    g.fillStyle = subdued;
    g.textAlign = "center";
    for (let c = 0; c < columns; c += 1) g.fillText(c === columns - 1 ? "MLP" : cell < 22 ? c : `H${c}`, xOf(c, shape) + cell / 2, 8);
    g.textAlign = "left";
    g.fillText("sum so far", bars, 8);
    let total = 0;
    const sums = rows.map((row) => [total, (total += row.sum)]);
    const low = Math.min(0, ...sums.flat());
    const high = Math.max(0, ...sums.flat());
    const place = (value) => bars + ((value - low) / (high - low || 1)) * (width - bars - 2);
    rows.forEach((row, r) => {
      const y = 18 + r * ROW;
      g.textAlign = "right";
      g.fillStyle = subdued;
      g.fillText(row.name, LEFT - 6, y + ROW / 2);
      const wide = row.cells.length === 1; // one cell over the heads' columns
      row.cells.forEach(({ value, head }, c) => {
        const x = xOf(c, shape);
        const w = wide ? cell * (columns - 1) : cell;
        g.fillStyle = ptx.diverging(value / largest);
        g.fillRect(x + 0.5, y + 1, w - 1, ROW - 2);
        if (w > NUMBER) {
          g.fillStyle = ptx.onDiverging(value / largest);
          g.textAlign = "center";
          g.fillText(ptx.signed(value, w > NUMBER + 8 ? 2 : 1), x + w / 2, y + ROW / 2 + 0.5);
        }
        if (head && store.state.pinned.includes(head)) {
          g.strokeStyle = ptx.color(pins.colour(head));
          g.lineWidth = 2;
          g.strokeRect(x + 1.5, y + 2, w - 3, ROW - 4);
        }
        if (at && at[0] === r && at[1] === c) {
          g.strokeStyle = text;
          g.lineWidth = 2;
          g.strokeRect(x + 0.5, y + 1, w - 1, ROW - 2);
        }
      });
      const [before, after] = sums[r];
      g.fillStyle = ptx.diverging(Math.sign(row.sum) * 0.75);
      g.fillRect(Math.min(place(before), place(after)), y + 5, Math.max(1, Math.abs(place(after) - place(before))), ROW - 10);
      if (r + 1 < rows.length) {
        g.fillStyle = subdued;
        g.fillRect(place(after), y + ROW - 5, 1, 10);
      }
    });
    g.fillStyle = subdued;
    g.fillRect(place(0), 18, 1, rows.length * ROW);
  }

  // ---- reading cells -----------------------------------------------------------------------------

  function select(r, c) {
    const rows = table();
    const row = Math.min(rows.length - 1, Math.max(0, r));
    const column = Math.min(rows[row].cells.length - 1, Math.max(0, c));
    at = [row, column];
    paint();
    tell(rows[row].cells[column]);
  }

  // Other numbers stand in the cell; another model may have none there.
  function retell() {
    const told = table()[at[0]]?.cells[at[1]] ?? null;
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
    const rows = table();
    const shape = geometry();
    const r = Math.floor((event.offsetY - 18) / ROW);
    const x = event.offsetX;
    if (r < 0 || r >= rows.length || x < LEFT) return null;
    if (rows[r].cells.length === 1) return x < shape.mlp - BETWEEN ? [r, 0] : null;
    if (x >= shape.mlp) return x < shape.mlp + shape.cell ? [r, shape.columns - 1] : null;
    return x < shape.mlp - BETWEEN ? [r, Math.floor((x - LEFT) / shape.cell)] : null;
  }

  function press() {
    const head = at && table()[at[0]].cells[at[1]].head;
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
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!parts || (!step && event.key !== "Enter")) return;
    event.preventDefault();
    if (!step) press();
    else if (at) select(at[0] + step[0], at[1] + step[1]);
    else select(1, 0);
  });

  // The room for a model's picture, before there is one.
  function reserve({ layers }) {
    frame.style.minHeight = `${18 + (layers + 1) * ROW}px`;
  }

  new ResizeObserver(paint).observe(frame);
  ptx.onTheme(paint);
  store.on(["pinned"], paint);

  return { node, draw, reserve };
};
