// The pictures of a text that is being written: they have room for all that may come, so that
// nothing moves, and get a row for each new token.
//
// The rows that the server kept while it wrote are weights as they are. For muted heads and for the
// value-weighted view it has to read the text anew, which happens once a second.
ptx.growing = (() => {
  const { store } = ptx;
  const { state } = store;
  const PAUSE = 150; // ms between questions for rows
  const RETURN = 1000; // ms between two readings of the whole text
  const ALL = 64; // rows in an answer when there are more

  let grown = null; // {now, question, run, size, side, picture, squares, fresh: Map(q: codes), from}
  let busy = false;

  const full = (now) => now.start + state.model.context <= state.ids.length;

  // Whether this window is one that gets longer.
  function covers(now) {
    const yes = state.writing && !full(now);
    if (!yes) grown = null;
    else if (!grown || !fits(now)) begin(now);
    return yes;
  }

  function fits({ start, ids }) {
    const { question, run, model } = grown;
    return grown.start === start && run === state.run && model === state.model &&
      question.view === state.view && question.muted === state.muted && ids.length <= grown.size &&
      question.ids.every((id, i) => id === ids[i]);
  }

  function begin({ start, question }) {
    const { model, knobs, prompt, run, view, muted } = state;
    const size = Math.min(model.context, Math.max(prompt + (knobs.length ?? 0), question.at) - start + 8);
    grown = {
      start, question, run, model, size, fresh: new Map(), squares: {}, picture: null,
      from: null, // index of the next row to ask for, among those of the run
      exact: view !== "weighted" && !muted.length,
    };
    if (!busy) follow();
  }

  async function follow() {
    busy = true;
    while (grown && state.writing) {
      const mine = grown;
      let pause = PAUSE;
      if (!mine.picture) await read(mine);
      else if (mine.exact) pause = (await addRows(mine)) === ALL ? 0 : PAUSE;
      else {
        pause = RETURN;
        await read(mine);
      }
      if (mine === grown) ptx.attention.changed();
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    busy = false;
  }

  // Reads the whole text so far.
  async function read(mine) {
    if (mine.picture) mine.question = ptx.attention.current()?.question ?? mine.question;
    const answer = await ptx.ask("maps", mine.question);
    if (!answer || mine !== grown) return;
    const side = Math.min(mine.size, answer.side < answer.at ? answer.side : 64);
    mine.picture = {
      ...answer,
      start: mine.start,
      rows: answer.at,
      size: mine.size,
      side,
      pixels: spread(answer, mine.size, side),
    };
    if (!mine.exact) mine.squares = Object.fromEntries(Object.entries(mine.squares).map(([name, old]) => [name, { ...old, stale: true }]));
  }

  // Thumbnails of a shorter text on the grid of a longer one.
  function spread({ layers, heads, side: from, at, thumbnails }, size, side) {
    const values = ptx.bytes(thumbnails);
    const place = (token) => Math.floor((token * side) / size);
    const cells = Array.from({ length: from }, (_, i) => [
      place(Math.floor((i * at) / from)),
      place(Math.ceil(((i + 1) * at) / from) - 1),
    ]);
    const pixels = new Uint8Array(layers * heads * side * side);
    for (let head = 0; head < layers * heads; head += 1) {
      for (let i = 0; i < from; i += 1) {
        for (let k = 0; k <= i; k += 1) {
          const value = values[(head * from + i) * from + k];
          if (!value) continue;
          for (let y = cells[i][0]; y <= cells[i][1]; y += 1) {
            for (let x = cells[k][0]; x <= cells[k][1]; x += 1) {
              const p = (head * side + y) * side + x;
              if (pixels[p] < value) pixels[p] = value;
            }
          }
        }
      }
    }
    return pixels;
  }

  // The rows of tokens since the last time; returns how many came.
  async function addRows(mine) {
    const answer = await ptx.ask("rows", { run: mine.run, from: mine.from ?? 0 });
    if (!answer || mine !== grown) return 0;
    if (answer.first === null) return 0;
    const first = answer.first + answer.from;
    for (const [i, row] of answer.rows.entries()) add(mine, first + i - 1 - mine.start, ptx.bytes(row));
    mine.from = Math.max(answer.from + answer.rows.length, mine.start + mine.picture.rows + 1 - answer.first);
    return answer.rows.length;
  }

  function add(mine, q, row) {
    const { layers, heads, side, size, pixels, rows } = mine.picture;
    const length = q + 1;
    if (q < rows || row.length !== layers * heads * length) {
      mine.exact &&= q < rows || row.length > 0; // not recorded: the text has to be read
      return;
    }
    const codes = state.view === "no sink" ? rowsWithoutSink(row, length) : row;
    mine.fresh.set(q, codes);
    mine.picture.rows = Math.max(rows, q + 1);
    const y = Math.floor((q * side) / size);
    for (let head = 0; head < layers * heads; head += 1) {
      for (let k = 0; k < length; k += 1) {
        const p = (head * side + y) * side + Math.floor((k * side) / size);
        const value = codes[head * length + k];
        if (pixels[p] < value) pixels[p] = value;
      }
    }
  }

  function rowsWithoutSink(row, length) {
    const made = new Uint8Array(row.length);
    for (let i = 0; i < row.length; i += length) {
      const weights = Float32Array.from(row.subarray(i, i + length), (v) => (v / 255) ** 2);
      made.set(ptx.attention.withoutSink(weights).map((w) => Math.round(255 * Math.sqrt(w))), i);
    }
    return made;
  }

  // One head large: what was there when it was first wanted, and the rows that came since.
  function square(name) {
    if (!grown?.picture) return null;
    const found = grown.squares[name];
    if (!found || (found.stale && !found.asked)) ask(grown, name, found);
    else if (grown.exact && found.values) extend(grown, name, found);
    return found?.values ? found : null;
  }

  async function ask(mine, name, before) {
    mine.squares[name] = { ...before, asked: true };
    const answer = await ptx.attention.askHead(ptx.attention.current()?.question ?? mine.question, name);
    if (!answer || mine !== grown) return;
    const values = new Uint8Array((mine.size * (mine.size + 1)) / 2);
    values.set(ptx.bytes(answer.triangle));
    mine.squares[name] = { start: mine.start, rows: answer.at, size: mine.size, values, scale: answer.scale };
    ptx.attention.changed();
  }

  function extend({ fresh, picture: { heads } }, name, found) {
    const [layer, head] = name.split(".").map(Number);
    for (let codes; (codes = fresh.get(found.rows)); found.rows += 1) {
      const length = found.rows + 1;
      const from = (layer * heads + head) * length;
      found.values.set(codes.subarray(from, from + length), (found.rows * length) / 2);
    }
  }

  return { covers, picture: () => grown?.picture ?? null, square };
})();
