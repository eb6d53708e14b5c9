// The texts: the one at hand, those before it that Undo brings back, and how one is written.
//
//     ptx.writing.generate();             continues what the editor holds
//     ptx.writing.branch(token, at);      the text up to a position, then this token
//
// A text is {written, origin, tokens, prompt, open, recording, cursor, status}: what a person typed; the
// knobs that wrote all that follows, or null if it took more than one request; and the rest as in
// the store. Each is kept, also when another one branches off it.
ptx.writing = (() => {
  const { state, set } = ptx.store;
  const KEPT = 50; // texts
  const PAUSE = 150; // ms without a key until the prompt is read
  const SILENCE = 3000; // ms in which a text that goes on has another frame

  let panel = null; // {trigger, server, facts} of the component that talks to Gradio
  let texts = [];
  let at = -1; // the index of the text at hand
  let editor = ""; // what it holds
  let asked = 0; // the number of the last request: answers to others come too late
  let dropped = false; // whether nobody wants its text any more
  let base = null; // {written, origin, open} of the text being written, and the one `before` it
  let next = null; // a request that waits for the end of the text being written
  let lines = ""; // of the text being written, as far as they were read
  let begun = false; // whether the text at hand is the one being written
  let frames = 0; // that came of all texts
  let known = false; // whether it has a frame: before, Gradio does not know what to stop
  let stopping = false;
  let again = false; // whether the end of the request before may be told once more
  let timer = null;
  let tooLong = null; // what was said of a prompt that cannot be read
  let turn = 0; // of reading the prompt: a newer one, or another text, overtakes it

  const newlines = (text) => text.replace(/\r\n?/g, "\n"); // as the editor has them
  const text = () => texts[at];

  // ---- showing ---------------------------------------------------------------------------------

  // A text that is not at hand is one string, a tenth of the memory.
  function pack(one) {
    if (!one?.tokens) return;
    const line = ({ id, text: piece, p, own, bits, bytes, refused, dead }) =>
      JSON.stringify([id, piece, p, own, bits, bytes, refused, dead]);
    one.packed = one.tokens.map(line).join("\n");
    one.tokens = null;
  }

  function add(one) {
    pack(text());
    texts.push(one);
    if (texts.length > KEPT) texts.shift();
    at = texts.length - 1;
  }

  function show() {
    text().tokens ??= read(text().packed, []);
    const { tokens, prompt, open, recording, cursor, status } = text();
    set({ tokens, ids: tokens.map((token) => token.id), prompt, open, recording, cursor, status });
  }

  // Whether the editor holds what nobody has read yet.
  const unread = () => !text() || newlines(text().written) !== newlines(editor);

  // Puts what the text at hand began with into the editor.
  function fillEditor() {
    clearTimeout(timer);
    if (!unread()) return;
    api.editor = editor = text().written;
    panel.trigger("edit");
  }

  // Of the text at hand.
  function setStatus(changes) {
    text().status = { ...text().status, ...changes };
    set({ status: text().status });
  }

  // What is said now and not kept: a text that is not there yet waits, or was refused.
  const say = (changes) => set({ status: { ...state.status, ...changes } });

  // Of the text being written, whether it is there yet or not.
  const report = (changes) => (begun ? setStatus(changes) : say(changes));

  // ---- reading lines -----------------------------------------------------------------------------

  // A line without an id is what is left of half a character: it joins the token before.
  function read(block, tokens) {
    for (const line of block.split("\n")) {
      if (!line) continue;
      const [id, piece, p, own, bits, bytes, refused, dead] = JSON.parse(line);
      if (id === null) tokens[tokens.length - 1] = { ...tokens.at(-1), text: tokens.at(-1).text + piece };
      else tokens.push({ id, text: piece, own, bytes, p, bits, refused: refused ?? null, dead: dead ?? null });
    }
    return tokens;
  }

  // What is known of the tokens at hand; another text may take their place.
  function current() {
    const { tokens, prompt, open } = text() ?? { tokens: [] };
    return { tokens, prompt, open };
  }

  // What was known about the same tokens before: the surprise depends on nothing else, but for the
  // token after an open prompt; and a text that goes on keeps the rest too.
  function inherit(tokens, { tokens: before, prompt, open }, all) {
    for (let i = 0; i < Math.min(tokens.length, before.length); i += 1) {
      if (tokens[i].id !== before[i].id) break;
      if (all && tokens[i].text === before[i].text) tokens[i] = before[i];
      else if (i !== prompt || !open) tokens[i].bits ??= before[i].bits;
    }
    return tokens;
  }

  // ---- the prompt ------------------------------------------------------------------------------

  // The editor holds something else.
  function edited(written) {
    editor = written ?? "";
    clearTimeout(timer);
    if (unread()) timer = setTimeout(readPrompt, PAUSE);
    else if (tooLong && state.status.error === tooLong) set({ status: text().status }); // it is not any more
  }

  async function readPrompt() {
    if (state.writing || !state.model) return;
    clearTimeout(timer);
    const mine = (turn += 1);
    const written = editor;
    const size = new Blob([written]).size;
    if (size > panel.facts.longest) {
      const most = panel.facts.longest;
      tooLong = `the prompt has ${ptx.number(size)} bytes and at most ${ptx.number(most)} are read: shorten it`;
      say({ finish: null, error: tooLong });
      return;
    }
    const [answer, syntax] = await Promise.all([
      ptx.ask("tokens", { text: written }),
      panel.server.parse({ text: written }),
    ]);
    if (!answer || mine !== turn || written !== editor || state.writing) return;
    const tokens = inherit(read(answer.lines, []), current(), false);
    // a prompt that was never continued is not worth keeping
    if (text() && text().tokens.length === text().prompt) texts.splice(at, 1);
    const status = { finish: null, notes: [], syntax, error: null };
    add({ written, tokens, prompt: tokens.length, open: true, recording: null, cursor: tokens.length, status });
    set({ following: true });
    show();
    score();
  }

  // Asks how surprising the tokens are of which that is not known, window by window.
  async function score() {
    const one = text();
    const ids = one.tokens.map((token) => token.id);
    const open = one.open && ids.length > one.prompt ? ptx.store.promptOf(one) : null;
    let from = one.tokens.findIndex((token, i) => i && token.bits === null);
    while (from > 0) {
      const answer = await ptx.ask("score", { ids, from, open });
      if (!answer || text() !== one || one.tokens.length !== ids.length) return;
      const bits = (token, i) => token.bits ?? answer.bits[i - answer.start] ?? null;
      one.tokens = one.tokens.map((token, i) => (token.bits === null ? { ...token, bits: bits(token, i) } : token));
      one.tokens[0].bits = null;
      set({ tokens: one.tokens });
      from = answer.next;
    }
  }

  // ---- writing ---------------------------------------------------------------------------------

  function begin(request, from) {
    if (state.writing) {
      next = [request, from];
      stop();
      return;
    }
    clearTimeout(timer);
    turn += 1;
    asked += 1;
    dropped = known = false;
    base = { ...from, before: current() };
    again = stopping; // where Stop meets the end, Gradio tells of both
    stopping = false;
    set({ writing: true, following: true });
    begun = false;
    say({ generated: 0, finish: null, error: null, place: 0, waiting: true });
    const { key } = state.model;
    panel.trigger("submit", { request: { ...request, ...state.knobs, model: key, asked } });
  }

  function generate() {
    begin({}, { written: editor, origin: state.knobs, open: true });
  }

  // Goes on from tokens that stay as they are; `first` is one to choose before the sampler does.
  function continueFrom(ids, n_prompt) {
    if (!text()) return; // it is not read yet
    const { tokens, prompt, written, open } = text();
    const cut = n_prompt < prompt; // the prompt itself
    const kept = cut ? ptx.store.promptOf({ tokens: tokens.slice(0, n_prompt), prompt }) : written;
    begin({ prompt: ids, n_prompt }, { written: kept, open: open && !cut && ids.length > prompt });
  }

  // Another token at a position. Where a prompt's open end was weighed, the tokens before it depend
  // on what comes, so that the prompt is given again as text.
  function branch(token, at) {
    if (!text()) return;
    const { ids, prompt, look } = state;
    if (look?.healed && look.at === at) {
      const { written } = text();
      begin({ prompt: written, first: token }, { written, open: true });
    } else {
      continueFrom([...ids.slice(0, at), token], Math.min(prompt, at));
    }
  }

  // Keeps the text up to the cursor's token and goes on from there. A prompt that nothing follows
  // yet may end anywhere, so its last tokens are not certain.
  function goOn(to = state.ids.length) {
    if (to >= state.ids.length && state.prompt === state.ids.length) generate();
    else continueFrom(state.ids.slice(0, to), Math.min(state.prompt, to));
  }

  function stop() {
    if (!state.writing || stopping || state.status.finish) return; // the end is on its way
    stopping = true;
    if (known) panel.trigger("stop");
  }

  // One frame from the server, see live.py.
  function take(v) {
    if (!v || v.asked !== asked || !state.writing) return;
    frames += 1;
    if (!known && stopping && !v.error && !v.finish) panel.trigger("stop");
    known = true;
    if (dropped) return;
    if (v.error) {
      report({ finish: "refused", error: v.error, waiting: false });
      return;
    }
    if (text()?.recording !== v.recording) {
      const typed = unread() && newlines(editor) !== newlines(base.written); // since it was asked for
      lines = "";
      begun = true;
      add({ written: base.written, origin: base.origin ?? null, tokens: [], open: base.open, recording: v.recording });
      if (!typed) fillEditor();
    }
    const one = text();
    const goesOn = v.lines.startsWith(lines) && lines !== "";
    one.tokens = read(v.lines.slice(goesOn ? lines.length : 0), goesOn ? one.tokens.slice() : []);
    if (!goesOn) inherit(one.tokens, base.before, v.continued);
    lines = v.lines;
    one.prompt = v.prompt;
    const { generated, rate, seed, place, finish, notes, syntax } = v;
    one.status = {
      generated, rate, seed, place, finish, notes, error: null,
      syntax: syntax ?? one.status?.syntax ?? null, waiting: !generated && !finish,
    };
    if (state.following || !one.cursor) one.cursor = Math.max(1, one.tokens.length - (generated ? 1 : 0));
    else one.cursor = Math.min(state.cursor, one.tokens.length);
    show();
  }

  // Whatever ended it: the text was finished or refused, a person stopped it, the server failed.
  function ended() {
    setTimeout(async () => {
      if (!state.writing) return;
      if (again && state.status.waiting && !stopping) {
        again = false;
        return;
      }
      if (!state.status.finish && !stopping && (await goesOn())) return;
      const { finish } = state.status;
      set({ writing: false });
      const end = { finish: finish ?? (stopping ? "stopped" : "interrupted"), waiting: false, place: 0 };
      report(end);
      if (next) {
        const request = next;
        next = null;
        begin(...request);
        return;
      }
      const one = text();
      if (unread()) { // somebody typed meanwhile, or chose another model
        const { error } = state.status;
        await readPrompt();
        if (error && !begun && !state.writing) say({ finish: "refused", error });
        return;
      }
      if (!begun) return;
      if (!finish) {
        const syntax = await panel.server.parse({ text: one.tokens.map((token) => token.text).join("") });
        if (text() === one && !state.writing && syntax?.state) setStatus({ syntax });
      }
      score();
    });
  }

  // Whether more comes of a text of whose end Gradio tells: then that was the end of one before.
  async function goesOn() {
    const [mine, heard] = [asked, frames];
    await new Promise((resolve) => setTimeout(resolve, SILENCE));
    return !state.writing || asked !== mine || frames !== heard;
  }

  // The server failed, or took no more requests: Gradio tells that alone. Of a stop it tells both.
  function failed() {
    if (!(stopping && known)) ended();
  }

  // ---- before and after ------------------------------------------------------------------------

  function move(by) {
    if (state.writing || !texts[at + by]) return;
    text().cursor = state.cursor;
    pack(text());
    at += by;
    turn += 1;
    set({ following: false });
    show();
    fillEditor();
    score();
  }

  // A text from elsewhere: {written, origin, ids, prompt, open, cursor}, from a link, so that anything in it
  // may be wrong; then a sentence is on the page and the text at hand stays.
  async function open({ written, origin, ids, prompt, open: isOpen, cursor }, note = null) {
    const answer = ids.length > 1 ? await ptx.ask("tokens", { text: written, ids }) : null;
    if (state.writing) return;
    if (!answer) {
      if (newlines(written) === newlines(editor)) readPrompt();
      else api.edit(written);
      return;
    }
    const mine = (turn += 1);
    const tokens = read(answer.lines, []);
    const inside = (n, least) => Math.min(tokens.length, Math.max(least, n ?? tokens.length));
    const syntax = await panel.server.parse({ text: tokens.map((token) => token.text).join("") });
    if (mine !== turn || state.writing) return;
    const status = { finish: null, notes: note ? [note] : [], syntax, error: null };
    add({ written, origin, tokens, prompt: inside(prompt, 1), open: isOpen, recording: null, cursor: inside(cursor, 1), status });
    set({ following: false });
    show();
    fillEditor();
    score();
  }

  // Another model reads the same text in its own tokens; what the one before still writes is dropped.
  function startOver() {
    clearTimeout(timer);
    texts = [];
    at = -1;
    dropped = true;
    next = null;
    begun = false;
    set({ ids: [], tokens: [], prompt: 0, recording: null, cursor: null, look: null, status: {} });
    if (state.writing) stop(); // and what the editor holds is read once it has ended
    else readPrompt();
  }

  function connect(component) {
    panel = component;
    editor = panel.facts.prompt;
    ptx.store.on(["model"], startOver);
    readPrompt();
    ptx.link.start();
  }

  const api = {
    editor, // what the editor is to hold, when Gradio asks
    connect, edited, take, ended, failed, generate, goOn, branch, stop, open,
    written: () => text()?.written ?? editor,
    origin: () => text()?.origin ?? null,
    undo: () => move(-1),
    redo: () => move(1),
    edit: (written) => {
      api.editor = written;
      panel.trigger("edit");
    },
    place: () => ({ at: at + 1, of: texts.length }),
  };
  return api;
})();
