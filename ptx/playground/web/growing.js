// The pictures of a text that is being written: they get a row for each new token, and twice the room
// when that is full.
//
// Rows come as the server kept them while it wrote; what was there before is read once, beside. For
// muted heads and the value-weighted view the server has to read the text anew, about once a second.
ptx.growing = (() => {
  const { store } = ptx;
  const { state } = store;
  const PAUSE = 300; // ms between questions for rows
  const RETURN = 1000; // ms between two readings of the whole text
  const ALL = 64; // rows in an answer when there are more
  const LEAST = 32; // rows that there is room for at first

  let before = null; // the run of the text that was there before this one
  let grown = null; // {start, question, run, model, exact, picture, squares, fresh, first, next}
  let busy = false;

  store.on(["writing"], () => {
    if (state.writing) before = state.run;
  });
  store.on(["model"], () => (grown = null));

  // Whether a window is one that gets longer.
  function covers(now) {
    const full = now.start + state.model.context <= state.ids.length;
    const yes = state.writing && state.run !== before && !full;
    if (!yes) grown = null;
    else if (!grown || !fits(now)) begin(now);
    return yes;
  }

  function fits({ start, ids }) {
    const { question, run, model } = grown;
    return grown.start === start && run === state.run && model === state.model &&
      question.view === state.view && question.muted === state.muted &&
      question.ids.every((id, i) => id === ids[i]);
  }

  function begin({ start, question }) {
    const { model, run, view, muted } = state;
    let next = start + 1; // the first token that is chosen in this window
    while (store.visibleFrom(next) !== start) next += 1;
    grown = {
      start, question, run, model, squares: {}, next,
      exact: view !== "weighted" && !muted.length,
      fresh: new Map(), // q: what the server kept, in this view
      first: null, // the run's first new token
      maps: null, // the server's answer about the text as it was, or is now and then
      picture: { start, from: 0, rows: 0, scale: 1, roles: ptx.attention.roles(), layers: model.layers, heads: model.heads },
    };
    room(grown, question.at);
    if (grown.exact) read(grown);
    if (!busy) follow();
  }

  // Makes room for so many rows, and draws again what was there.
  function room(mine, rows) {
    const { model, picture, fresh, maps, squares } = mine;
    const size = Math.min(model.context, Math.max(LEAST, 2 ** Math.ceil(Math.log2(rows))));
    const side = Math.min(size, ptx.attention.sideOf(model));
    const place = Uint16Array.from({ length: size }, (_, k) => Math.floor((k * side) / size));
    Object.assign(picture, { size, side, place, pixels: new Uint8Array(picture.layers * picture.heads * side * side) });
    if (maps) spread(maps, picture);
    for (const [q, codes] of fresh) paint(picture, q, codes);
    for (const square of Object.values(squares)) {
      const { values } = square;
      square.values = new Uint8Array((size * (size + 1)) / 2);
      square.values.set(values.subarray(0, square.values.length));
      square.size = size;
    }
  }

  async function follow() {
    busy = true;
    while (grown && state.writing) {
      const mine = grown;
      let pause = RETURN;
      if (mine.exact) pause = (await addRows(mine)) === ALL ? 0 : PAUSE;
      else await read(mine);
      ptx.attention.changed();
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    busy = false;
  }

  // The text so far, all of it.
  async function read(mine) {
    if (mine !== grown) return;
    if (!mine.exact) mine.question = ptx.attention.current()?.question ?? mine.question;
    const answer = await ptx.ask("maps", mine.question);
    if (!answer || mine !== grown) return;
    const { picture, squares } = mine;
    mine.maps = answer;
    if (!mine.exact) for (const square of Object.values(squares)) square.stale = true;
    room(mine, Math.max(answer.at, picture.rows));
    Object.assign(picture, {
      from: 0, rows: Math.max(picture.rows, answer.at), roles: answer.roles, scale: answer.scale,
      read: (picture.read ?? 0) + 1,
    });
    ptx.attention.changed();
  }

  // Thumbnails of a shorter text on the grid of a longer one.
  function spread({ side: from, at, thumbnails }, { layers, heads, side, size, pixels }) {
    const values = ptx.bytes(thumbnails);
    const place = (token) => Math.floor((token * side) / size);
    const cells = Array.from({ length: from }, (_, i) => [
      place(Math.floor((i * at) / from)),
      place(Math.ceil(((i + 1) * at) / from) - 1),
    ]);
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
  }

  // The rows since the last time; returns how many came.
  async function addRows(mine) {
    const from = mine.first === null ? 0 : Math.max(0, mine.next - mine.first);
    const answer = await ptx.ask("rows", { run: mine.run, from });
    if (!answer || answer.first === null || mine !== grown) return 0;
    mine.first = answer.first;
    answer.rows.forEach((row, i) => {
      const token = answer.first + answer.from + i;
      if (store.visibleFrom(token) === mine.start) add(mine, token - 1 - mine.start, ptx.bytes(row));
      mine.next = token + 1;
    });
    return answer.rows.length;
  }

  function add(mine, q, row) {
    const { picture, model } = mine;
    const length = q + 1;
    if (row.length !== picture.layers * picture.heads * length || length > model.context) {
      mine.exact = false; // it was not kept: the text has to be read
      return;
    }
    const codes = state.view === "no sink" ? rowsWithoutSink(row, length) : row;
    mine.fresh.set(q, codes);
    if (!picture.rows) picture.from = q;
    picture.rows = Math.max(picture.rows, length);
    if (length > picture.size) room(mine, length);
    else paint(picture, q, codes);
  }

  function paint({ layers, heads, side, place, pixels }, q, codes) {
    const length = q + 1;
    for (let head = 0, i = 0; head < layers * heads; head += 1) {
      const line = (head * side + place[q]) * side;
      for (let k = 0; k < length; k += 1, i += 1) {
        if (pixels[line + place[k]] < codes[i]) pixels[line + place[k]] = codes[i];
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

  // ---- one head large ----------------------------------------------------------------------------

  // The rows that came, and once they are there those before.
  function square(name) {
    if (!grown) return null;
    const { picture, start, squares } = grown;
    const { size } = picture;
    if (!squares[name]) {
      const values = new Uint8Array((size * (size + 1)) / 2);
      squares[name] = { start, from: 0, rows: 0, size, scale: 1, values, stale: true, read: 0 };
    }
    const found = squares[name];
    if (found.stale) ask(grown, name, found);
    if (grown.exact) extend(grown, name, found);
    return found.rows ? found : null;
  }

  async function ask(mine, name, found) {
    found.stale = false;
    const answer = await ptx.attention.askHead(mine.question, name);
    if (!answer || mine !== grown) return;
    if (answer.at > found.size) room(mine, answer.at);
    found.values.set(ptx.bytes(answer.triangle));
    Object.assign(found, { from: 0, rows: Math.max(found.rows, answer.at), scale: answer.scale, read: found.read + 1 });
    ptx.attention.changed();
  }

  function extend({ fresh, picture: { heads } }, name, found) {
    if (!found.rows) found.from = found.rows = fresh.keys().next().value ?? 0;
    const [layer, head] = name.split(".").map(Number);
    for (let codes; (codes = fresh.get(found.rows)); found.rows += 1) {
      const length = found.rows + 1;
      const from = (layer * heads + head) * length;
      found.values.set(codes.subarray(from, from + length), (found.rows * length) / 2);
    }
  }

  return { covers, picture: () => grown?.picture ?? null, square };
})();
