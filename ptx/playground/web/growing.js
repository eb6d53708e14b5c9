// The pictures of a text that is being written: they get a row for each new token, and twice the room
// when that is full.
//
// The server kept, while it wrote, where every head looked: it tells what is new of all heads as
// pixels, and row by row of those that are shown large. What was there before is known, or read once.
// For muted heads and the value-weighted view the text has to be read anew, about once a second.
ptx.growing = (() => {
  const { store } = ptx;
  const { state } = store;
  const PAUSE = 300; // ms between questions for rows
  const RETURN = 1000; // ms between two readings of the whole text
  const LEAST = 32; // rows that there is room for at first

  let before = null; // the run of the text that was there before this one
  let grown = null; // {start, question, key, run, model, exact, picture, squares, maps, next}
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

  function begin({ start, question, key }) {
    const { model, run, view, muted } = state;
    grown = {
      start, question, key, run, model, squares: {},
      exact: view !== "weighted" && !muted.length,
      maps: null, // the server's answer about the text as it was, or is now and then
      next: 0, // the first position whose row is not among the pixels
      picture: {
        start, from: 0, rows: 0, scale: 1, roles: ptx.attention.roles(),
        layers: model.layers, heads: model.heads, size: 0, side: 0, pixels: new Uint8Array(),
      },
    };
    makeRoom(grown, question.at);
    if (grown.exact) read(grown);
    if (!busy) follow();
  }

  // Room for so many rows. What the pixels were is told once more, on the new grid.
  function makeRoom(mine, rows) {
    const { model, picture, squares, maps } = mine;
    if (rows <= picture.size) return;
    const { layers, heads } = picture;
    const size = Math.min(model.context, Math.max(LEAST, 2 ** Math.ceil(Math.log2(rows))));
    const side = Math.min(size, ptx.attention.sideOf(model));
    Object.assign(picture, { size, side, pixels: new Uint8Array(layers * heads * side * side) });
    mine.next = 0;
    if (maps) spread(maps, picture);
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
      const pause = mine.exact ? PAUSE : RETURN;
      await (mine.exact ? addRows(mine) : read(mine));
      ptx.attention.changed();
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    busy = false;
  }

  // The text so far, all of it.
  async function read(mine) {
    if (mine !== grown) return;
    if (!mine.exact) mine.question = ptx.attention.current()?.question ?? mine.question;
    const kept = ptx.attention.kept(mine.exact && mine.key)?.maps.all;
    const answer = await (kept ?? ptx.ask("maps", mine.question));
    if (!answer || mine !== grown) return;
    const { picture, squares } = mine;
    mine.maps = answer;
    makeRoom(mine, answer.at);
    if (!mine.exact) {
      picture.pixels.fill(0);
      for (const square of Object.values(squares)) square.stale = true;
    }
    spread(answer, picture);
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

  // What is new since the last time.
  async function addRows(mine) {
    const { start, question, run, picture, squares, next } = mine;
    const shown = ptx.pins.shown(state).filter((name) => squares[name]);
    const heads = Object.fromEntries(shown.map((name) => [name, squares[name].rows]));
    const asked = { run, start, from: next, size: picture.size, view: question.view, heads };
    const answer = await ptx.ask("rows", asked);
    if (!answer || mine !== grown) return;
    mine.exact = answer.whole; // or else the text has to be read
    const { size, from, end, top, band } = answer;
    makeRoom(mine, size);
    if (end > mine.next && size === picture.size) {
      join(picture, top, ptx.bytes(band));
      if (!picture.rows) picture.from = from;
      picture.rows = Math.max(picture.rows, end);
      mine.next = end;
    }
    for (const [name, told] of Object.entries(answer.heads)) {
      const square = squares[name];
      if (!told.rows || told.end > square.size) continue;
      square.values.set(ptx.bytes(told.rows), (told.from * (told.from + 1)) / 2);
      if (!square.rows) square.from = told.from;
      square.rows = Math.max(square.rows, told.end);
    }
  }

  // Rows of pixels of all heads, from `top` on.
  function join({ layers, heads, side, pixels }, top, band) {
    const length = band.length / (layers * heads); // of the new rows of one head
    for (let head = 0, i = 0; head < layers * heads; head += 1) {
      let p = (head * side + top) * side;
      for (const end = p + length; p < end; p += 1, i += 1) {
        if (pixels[p] < band[i]) pixels[p] = band[i];
      }
    }
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
    return found.rows ? found : null;
  }

  async function ask(mine, name, found) {
    found.stale = false;
    const kept = ptx.attention.kept(mine.exact && mine.key)?.squares[name];
    const answer = await (kept ?? ptx.attention.askHead(mine.question, name));
    if (!answer || mine !== grown) return;
    const { rows, values, scale } = answer;
    makeRoom(mine, rows);
    found.values.set(values);
    Object.assign(found, { from: 0, rows: Math.max(found.rows, rows), scale, read: found.read + 1 });
    ptx.attention.changed();
  }

  return { covers, picture: () => grown?.picture ?? null, square };
})();
