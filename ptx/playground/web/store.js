// What all panels look at: one text, one cursor, the knobs, the heads that are pinned or muted.
//
//     ptx.store.on(["cursor", "ids"], (state) => draw(state));    called once after each change
//     ptx.store.set({ cursor: 12 });
//
// Positions are indices into `ids`, whose first is end-of-text, the start of every text. The cursor
// may stand one past the last: there is no token yet, only what could come.
ptx.store = (() => {
  const state = {
    model: null, // {key, name, context, layers, heads, vocab, eot}
    about: null, // all that the page says about it, see card.py
    recording: null, // of the text being written: what the server keeps about it goes by this name
    ids: [], // every token, prompt and generated
    tokens: [], // {id, text, own, bytes, p, bits, refused, dead}, one for each of ids
    prompt: 0, // how many of ids are the prompt's
    open: true, // whether the token after them is drawn with the prompt's end open, from all ways to cut it
    writing: false,
    cursor: null, // 1 to ids.length, or null while there is no text
    following: true, // the cursor stays with the newest token until a person moves it
    knobs: {
      temperature: 0.6, top_k: 0, top_p: 0.95, min_p: 0, repetition_penalty: 1, python: false,
      length: 200, seed: 0, // which change no distribution
    },
    // How the text is doing: {generated, rate, seed, place, waiting, finish, notes, syntax, error}, see
    // live.py; `finish` is null while it is written, and until a prompt is continued.
    status: {},
    look: null, // the server's answer about the cursor, see reading.py; null until it is there
    against: null, // the token that the one at the cursor is weighed against; null: the runner-up
    view: "raw", // of attention: "raw", "no sink", "weighted"
    pinned: ["0.0"], // heads shown large, "layer.head", up to four
    peek: null, // the head that the pointer is on
    muted: [], // heads that write nothing
  };
  const listeners = [];
  let waiting = null; // the keys that changed since the listeners were last called

  function set(changes) {
    for (const [key, value] of Object.entries(changes)) {
      if (!(key in state)) throw new Error(`the store has no ${key}`);
      if (Object.is(state[key], value)) continue;
      state[key] = value;
      if (!waiting) {
        waiting = new Set();
        queueMicrotask(tell);
      }
      waiting.add(key);
    }
  }

  function tell() {
    const changed = waiting;
    waiting = null;
    for (const { keys, call } of listeners) {
      if (!keys.some((key) => changed.has(key))) continue;
      try {
        call(state, changed);
      } catch (error) {
        reportError(error); // the other panels are told all the same
      }
    }
  }

  function on(keys, call) {
    listeners.push({ keys, call });
  }

  // A screen reader is not told of every token while the text streams past.
  function quietly(node) {
    on(["writing", "following"], ({ writing, following }) =>
      node.setAttribute("aria-live", writing && following ? "off" : "polite"));
    return node;
  }

  // Index of the first token that the model sees while it chooses the one at `at`; as the server's.
  function visibleFrom(at) {
    const { context } = state.model;
    const step = context - Math.floor(context / 2);
    return step * Math.max(0, Math.ceil((at - context) / step));
  }

  // The prompt of a text, as text: its last characters may be the first of the token after it.
  const promptOf = ({ tokens, prompt }) => tokens.slice(0, prompt + 1).map(({ text, own }) => text.slice(0, own)).join("");

  // The same where the cursor is on the first token after an open prompt, or at its end.
  const openPrompt = () => (state.open && state.cursor === state.prompt ? promptOf(state) : null);

  return { state, set, on, quietly, visibleFrom, promptOf, openPrompt };
})();
