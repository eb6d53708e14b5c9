// The pictures of a text that is being written: they get a row for each new token, and twice the room
// when that is full.
//
// The server kept, while it wrote, where every head looked: it tells what is new of all heads as
// pixels, and row by row of those that are shown large. What was there before is known from another
// window that begins alike, or read once, a second after the first picture: reading takes the
// processor that a fast text needs. For muted heads and the value-weighted view the text has to
// be read anew, about once a second.
ptx.growing = (() => {
  const { store } = ptx;
  const { state } = store;
  const PAUSE = 300; // ms between questions for rows
  const RETURN = 1000; // ms between two readings of the whole text
  const AGAIN = 5000; // ms until one that was refused is tried again
  const LEAST = 32; // rows that there is room for at first

  let before = null; // the recording of the text that was there before this one
  let grown = null; // {start, question, recording, model, exact, known, picture, squares, maps, common, next, refused}
  let since = { recording: null, began: 0 }; // when the first of a recording was shown
  let busy = false;

  store.on(["writing"], () => {
    if (state.writing) before = state.recording;
  });
  store.on(["model"], () => (grown = null));

  // Whether a window is one that gets longer.
  function covers(now) {
    const full = now.start + state.model.context <= state.ids.length;
    const yes = state.writing && state.recording !== before && !full;
    if (!yes) grown = null;
    else if (!grown || !fits(now)) begin(now);
    return yes;
  }

  function fits({ start, ids }) {
    const { question, recording, model } = grown;
    return grown.start === start && recording === state.recording && model === state.model &&
      question.view === state.view && question.muted === state.muted &&
      question.ids.every((id, i) => id === ids[i]);
  }

  function begin(now) {
    const { start, question } = now;
    const { model, recording, view, muted } = state;
    if (since.recording !== recording) since = { recording, began: performance.now() };
    const exact = view !== "weighted" && !muted.length;
    const known = exact ? ptx.attention.nearest(now) : null;
    grown = {
      start, question, recording, model, exact, known, squares: {},
      maps: known?.maps.all ?? null, // the server's answer about the text as it was, or is now and then
      common: known?.common ?? 0, // tokens of which it is right
      next: 0, // the first position whose row is not among the pixels
      refused: -AGAIN, // when the whole text was last not read
      picture: {
        start, from: 0, rows: 0, scale: 1, roles: known?.maps.all.roles ?? ptx.attention.roles(),
        layers: model.layers, heads: model.heads, size: 0, side: 0, pixels: new Uint8Array(),
      },
    };
    grown.picture.rows = grown.common;
    makeRoom(grown, question.at);
    if (!busy) follow();
  }

  // Room for so many rows. What the pixels were is told once more, on the new grid.
  function makeRoom(mine, rows) {
    const { model, picture, squares } = mine;
    if (rows <= picture.size) return;
    const { layers, heads } = picture;
    const size = Math.min(model.context, Math.max(LEAST, 2 ** Math.ceil(Math.log2(rows))));
    const side = Math.min(size, ptx.attention.sideOf(model));
    Object.assign(picture, { size, side, pixels: new Uint8Array(layers * heads * side * side) });
    mine.next = 0;
    if (mine.maps) spread(mine);
    for (const square of Object.values(squares)) {
      const { values } = square;
      square.values = new Uint8Array(triangle(size));
      square.values.set(values.subarray(0, square.values.length));
      square.size = size;
    }
  }

  async function follow() {
    busy = true;
    const sleep = (pause) => new Promise((resolve) => setTimeout(resolve, pause));
    while (grown && state.writing) {
      const wait = ptx.pace.wait();
      if (wait) {
        await sleep(wait);
        continue;
      }
      const mine = grown;
      const pause = mine.exact ? PAUSE : RETURN;
      await (mine.exact ? addRows(mine) : read(mine));
      if (mine.exact && mine.picture.from && due() && performance.now() > mine.refused + AGAIN) await read(mine);
      ptx.attention.changed();
      await sleep(pause);
    }
    busy = false;
  }

  const due = () => performance.now() > since.began + RETURN;

  // The text so far, all of it.
  async function read(mine) {
    if (mine !== grown) return;
    if (!mine.exact) mine.question = ptx.attention.current()?.question ?? mine.question;
    const answer = await ptx.ask("maps", mine.question);
    if (!answer) mine.refused = performance.now();
    if (!answer || mine !== grown) return;
    const { picture, squares } = mine;
    Object.assign(mine, { maps: answer, common: answer.at });
    makeRoom(mine, answer.at);
    if (!mine.exact) {
      picture.pixels.fill(0);
      for (const square of Object.values(squares)) square.stale = true;
    }
    spread(mine);
    Object.assign(picture, {
      from: 0, rows: Math.max(picture.rows, answer.at), roles: answer.roles, scale: answer.scale,
      read: (picture.read ?? 0) + 1,
    });
    ptx.attention.changed();
  }

  // Thumbnails of another text on the grid of this one, as far as both have the same tokens.
  function spread({ maps, common, picture }) {
    const { side: from, at, thumbnails } = maps;
    const { layers, heads, side, size, pixels } = picture;
    const rows = Math.floor((common * from) / at);
    const values = ptx.bytes(thumbnails);
    const place = (token) => Math.floor((token * side) / size);
    const cells = Array.from({ length: rows }, (_, i) => [
      place(Math.floor((i * at) / from)),
      place(Math.ceil(((i + 1) * at) / from) - 1),
    ]);
    for (let head = 0; head < layers * heads; head += 1) {
      for (let i = 0; i < rows; i += 1) {
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
    const { start, question, recording, picture, squares, next } = mine;
    const shown = ptx.pins.shown(state).filter((name) => squares[name]);
    const heads = Object.fromEntries(shown.map((name) => [name, squares[name].rows]));
    const asked = { recording, start, from: next, size: picture.size, view: question.view, heads };
    const answer = await ptx.ask("rows", asked);
    if (!answer || mine !== grown) return;
    mine.exact = answer.whole; // or else the text has to be read
    const { size, from, end, top, band } = answer;
    makeRoom(mine, size);
    if (end > mine.next && size === picture.size) {
      join(picture, top, ptx.bytes(band));
      if (!next) picture.from = from > mine.common ? from : 0;
      picture.rows = Math.max(picture.rows, end);
      mine.next = end;
    }
    for (const [name, told] of Object.entries(answer.heads)) {
      const square = squares[name];
      if (!told.rows || told.end > square.size) continue;
      square.values.set(ptx.bytes(told.rows), triangle(told.from));
      if (told.from > square.rows) Object.assign(square, { from: told.from, stale: true });
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

  const triangle = (rows) => (rows * (rows + 1)) / 2; // weights in so many rows

  // The rows that came, and once they are there those before.
  function square(name) {
    if (!grown) return null;
    const { picture, start, squares, exact, known } = grown;
    const { size } = picture;
    if (!squares[name]) {
      const values = new Uint8Array(triangle(size));
      const before = known?.squares[name];
      const rows = before ? known.common : 0;
      if (before) values.set(before.values.subarray(0, triangle(rows)));
      squares[name] = { start, from: 0, rows, size, scale: 1, values, stale: !exact, read: 0 };
    }
    const found = squares[name];
    if (found.stale && (!exact || due())) ask(grown, name, found);
    return found.rows ? found : null;
  }

  async function ask(mine, name, found) {
    found.stale = false;
    const answer = await ptx.attention.askHead(mine.question, name);
    if (!answer || mine !== grown) return;
    const { rows, values, scale } = answer;
    makeRoom(mine, rows);
    found.values.set(values);
    Object.assign(found, { from: 0, rows: Math.max(found.rows, rows), scale, read: found.read + 1 });
    ptx.attention.changed();
  }

  return { covers, picture: () => grown?.picture ?? null, square };
})();
