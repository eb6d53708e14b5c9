// Where the heads look in the window at the cursor, for every picture of it.
//
// The window is what the model saw at the cursor and what it read on from there without dropping
// anything, so that all cursors in it share one picture. A square of weights is {start, from, rows,
// size, values, scale}: there is room for `size` rows, and those from `from` to before `rows` are
// known; row q is `values[q * (q + 1) / 2 ...]`, a byte for each of the tokens start to start + q,
// `255 * sqrt(weight / scale)`. Views are squares of their own: none is made by changing another.
ptx.attention = (() => {
  const { store } = ptx;
  const { state } = store;
  const KEPT = 8; // windows with a view
  const AGAIN = 5000; // ms until what was refused is asked for again
  const calls = [];
  const known = new Map(); // key: {kind, ids, maps, squares} of a window in a view, the newest last

  let roles = []; // the last that were told

  const changed = () => calls.forEach((call) => call());

  function frame() {
    const { model, ids, cursor, muted, view } = state;
    if (!model || !(cursor >= 1 && cursor <= ids.length)) return null;
    const start = store.visibleFrom(cursor);
    const window = ids.slice(start, start + model.context);
    if (window.some((id) => id >= model.vocab)) return null; // still the text of another model
    const kind = [model.key, view, muted.join("+"), start].join("|");
    return { start, ids: window, kind, key: `${kind}|${window}`, question: { ids: window, at: window.length, view, muted } };
  }

  let last = { ids: null }; // the frame, made once for each change of what it depends on
  function current() {
    const { model, ids, cursor, muted, view } = state;
    const start = model && cursor ? store.visibleFrom(cursor) : null;
    const same = last.model === model && last.ids === ids && last.start === start && last.muted === muted && last.view === view;
    if (!same) last = { model, ids, start, muted, view, frame: frame() };
    return last.frame;
  }

  function entry({ key, kind, ids }) {
    const found = known.get(key) ?? { kind, ids, maps: {}, squares: {} };
    known.delete(key);
    known.set(key, found);
    if (known.size > KEPT) known.delete(known.keys().next().value);
    return found;
  }

  // What was asked for once stays: null while it is on its way, and for a while if it was refused.
  function want(held, name, ask, read) {
    if (name in held) return held[name];
    held[name] = null;
    const { key } = current();
    ask().then((answer) => {
      if (answer) held[name] = read(answer);
      else if (answer === undefined || current()?.key !== key) delete held[name]; // overtaken: may be asked for again
      else setTimeout(() => {
        delete held[name];
        changed();
      }, AGAIN);
      changed();
    });
    return null;
  }

  // Of the windows whose pictures have come, that which has most of its first tokens in common with
  // another: {maps: {all}, squares: {name}, common}, or null.
  function nearest({ kind, ids }) {
    let best = null;
    for (const found of known.values()) {
      if (found.kind !== kind || !found.maps.all) continue;
      let common = 0;
      while (common < ids.length && found.ids[common] === ids[common]) common += 1;
      if (common > (best?.common ?? 0)) best = { ...found, common };
    }
    return best;
  }

  // {rows, values, scale} of a head, or null.
  async function askHead(question, name) {
    const [layer, head] = ptx.pins.place(name);
    const answer = await ptx.ask("head", { ...question, layer, head });
    return answer && { rows: answer.at, values: ptx.bytes(answer.triangle), scale: answer.scale };
  }

  function picture() {
    const now = current();
    if (!now) return null;
    if (ptx.growing.covers(now)) return ptx.growing.picture();
    return want(entry(now).maps, "all", () => ptx.ask("maps", now.question), (answer) => {
      roles = answer.roles;
      const { length } = now.ids;
      return { ...answer, start: now.start, from: 0, rows: length, size: length, pixels: ptx.bytes(answer.thumbnails) };
    });
  }

  function square(name) {
    const now = current();
    if (!now) return null;
    if (ptx.growing.covers(now)) return ptx.growing.square(name);
    return want(entry(now).squares, name, () => askHead(now.question, name), (told) => (
      { start: now.start, from: 0, size: told.rows, ...told }));
  }

  // The cursor, or while a text is written and followed, the newest token whose rows have come.
  function cursor() {
    const grown = state.writing && state.following ? picture() : null;
    return grown?.rows ? Math.min(state.cursor, grown.start + grown.rows) : state.cursor;
  }

  // The weights with which a head looked for the token at `cursor()`: {start, weights}, or null.
  function atCursor(name) {
    const { view, look, model } = state;
    const at = cursor();
    const found = square(name);
    const q = found ? at - 1 - found.start : 0;
    if (found && q >= found.from && q < found.rows) {
      const codes = found.values.subarray((q * (q + 1)) / 2, ((q + 1) * (q + 2)) / 2);
      return { start: found.start, weights: Float32Array.from(codes, (v) => found.scale * (v / 255) ** 2) };
    }
    if (look?.at !== at || view === "weighted" || !look.row) return null;
    const [layer, head] = ptx.pins.place(name);
    const size = look.at - look.start;
    const from = (layer * model.heads + head) * size;
    const codes = ptx.bytes(look.row).subarray(from, from + size);
    const weights = Float32Array.from(codes, (v) => (v / 255) ** 2);
    return { start: look.start, weights: view === "no sink" ? withoutSink(weights) : weights };
  }

  // As ptx.lens.without_sink, of one row; a new one.
  function withoutSink(weights) {
    const left = weights.subarray(1).reduce((sum, w) => sum + w, 0); // 1 - weights[0] is a byte's error
    return weights.map((w, k) => (k === 0 || left < 1e-6 ? 0 : Math.min(1, w / left)));
  }

  // Pixels a side of a small picture, at most: 64, fewer where there are many heads.
  const sideOf = ({ layers, heads }) => Math.min(64, Math.floor(Math.sqrt((150 * 1024) / (layers * heads))));

  // What the tokens of a window are called in its pictures.
  ptx.labels = (start, size) =>
    Array.from({ length: size }, (_, i) => {
      const token = state.tokens[start + i];
      if (!token) return "";
      return start + i === 0 ? "⟨start⟩" : token.id === state.model?.eot ? "⟨end⟩" : token.bytes || token.text;
    });

  store.on(["model"], () => (roles = []));
  store.on(["model", "ids", "cursor", "muted", "view", "writing"], changed);
  // What was looked up stands in for a head whose square is not there yet.
  store.on(["look"], () => {
    if (!ptx.pins.shown(state).every(square)) changed();
  });

  return {
    current, picture, square, cursor, atCursor, askHead, nearest, sideOf, changed,
    roles: () => roles,
    onChange: (call) => calls.push(call),
  };
})();
