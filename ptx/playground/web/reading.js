// The one door to the server for all panels, and what keeps `store.look` with the cursor.
//
//     const answer = await ptx.ask("maps", { ids, at, view });
//
// The questions and their answers are those of reading.py. There may be no answer to draw: null means
// that the server refused, and its sentence is on the page already; undefined, that a newer question
// of the same kind, about the same head, overtook this one, or another model was chosen meanwhile.
(() => {
  const { store } = ptx;
  const PATIENCE = 30_000; // milliseconds
  const WHILE_WRITING = 1000; // milliseconds between two looks that only follow the newest token,
  const RARER = 10; // and so many times what the last one took: the text needs the processor too,
  const RAREST = 5000; // but not longer than this
  const AGAIN = 5000; // milliseconds until a look that was refused is tried again
  const LAPSE = 15_000; // milliseconds after which a problem that did not come again is none

  let mount; // called with the server's functions once the panel is there
  const mounted = new Promise((resolve) => (mount = resolve));
  const newest = new Map(); // lane: number of its last question
  const problems = new Map(); // lane: {sentence}
  const problem = ptx.problem();

  ptx.ask = async (name, request = {}) => {
    const lane = [name, request.layer, request.head, request.exact].join(" ");
    const turn = (newest.get(lane) ?? 0) + 1;
    newest.set(lane, turn);
    const { ask } = await mounted;
    const { key } = store.state.model;
    const late = new Promise((resolve) => setTimeout(resolve, PATIENCE));
    const answer = await Promise.race([ask({ model: key, ...request, ask: name }), late]).catch(() => undefined);
    if (newest.get(lane) !== turn || store.state.model.key !== key) return undefined;
    complain(lane, answer ? answer.error : "The server does not answer. Is it still running?");
    return answer && !answer.error ? answer : null;
  };

  // The newest problem that has not gone away. Not every question is asked again.
  function complain(lane, sentence) {
    problems.delete(lane);
    if (sentence) {
      const told = { sentence };
      problems.set(lane, told);
      setTimeout(() => {
        if (problems.get(lane) === told) complain(lane);
      }, LAPSE);
    }
    tell();
  }

  function tell() {
    problem.tell([...problems.values()].at(-1)?.sentence);
  }

  // ---- the cursor ------------------------------------------------------------------------------

  let asked = null; // what `store.look` is about, or will be
  let flying = false;
  let waiting = null; // a timer
  let started = 0;
  let took = 0; // milliseconds, the last look

  function question({ model, ids, cursor: at, muted, against }) {
    if (!model || !(at >= 1 && at <= ids.length)) return null;
    return { key: model.key, ids, at, muted, against, open: store.openPrompt() };
  }

  // Whether two questions have the same answer: only tokens up to the cursor matter.
  function same(a, b) {
    if (a === b || !a || !b) return a === b;
    if (a.key !== b.key || a.at !== b.at || a.against !== b.against || a.open !== b.open) return false;
    if (a.muted.join() !== b.muted.join()) return false;
    if (a.ids === b.ids) return true;
    for (let i = 0; i <= a.at; i += 1) if (a.ids[i] !== b.ids[i]) return false;
    return true;
  }

  // Whether nothing but the text lies between two questions.
  const grew = (a, b) =>
    Boolean(a && b) && a.key === b.key && a.muted.join() === b.muted.join() && a.against === b.against;

  // Panels that draw the answer and are on the screen. While a text streams past nobody misses what
  // the others would draw, and the text needs the processor.
  const inSight = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) inSight[isIntersecting ? "add" : "delete"](target);
    look();
  });
  ptx.showsLook = (panel) => watch.observe(panel);

  // One question at a time, always about where the cursor is now.
  async function look() {
    const wanted = question(store.state);
    if (flying || same(wanted, asked)) return;
    const { writing, following } = store.state;
    const follows = writing && following && grew(asked, wanted);
    if (follows && !inSight.size) return;
    const wait = Math.min(RAREST, Math.max(WHILE_WRITING, RARER * took));
    const pause = follows ? Math.max(ptx.pace.wait(), started + wait - performance.now()) : 0;
    if (wanted && pause > 0) {
      waiting ??= setTimeout(() => {
        waiting = null;
        look();
      }, pause);
      return;
    }
    asked = wanted;
    if (!wanted) return store.set({ look: null });
    flying = true;
    const began = (started = performance.now());
    const { key, ...asks } = wanted;
    const answer = await ptx.ask("look", { ...asks, model: key });
    flying = false;
    if (answer) {
      took = performance.now() - began;
      store.set({ look: { ...answer, ids: wanted.ids.slice(0, answer.at) } });
    } else if (same(question(store.state), asked)) {
      asked = null;
      setTimeout(look, AGAIN);
      return;
    }
    look();
  }

  store.on(["model", "ids", "tokens", "prompt", "open", "cursor", "muted", "against", "writing"], (state, changed) => {
    if (changed.has("model")) {
      problems.clear(); // they were the other model's
      tell();
      store.set({ look: null, against: null });
    } else if (changed.has("cursor") && !changed.has("against")) store.set({ against: null });
    if (changed.has("writing") && state.writing) {
      clearTimeout(waiting);
      waiting = null;
      took = 0;
      started = -Infinity;
    }
    queueMicrotask(look); // after other panels have said what they make of this
  });

  // ---- what an answer holds --------------------------------------------------------------------

  const decoded = new WeakMap();

  // All logits of an answer to "look", as a Float32Array; -Infinity where a token cannot come.
  ptx.logits = (answer) => {
    if (decoded.has(answer)) return decoded.get(answer);
    const { low, step, sharp } = answer;
    const codes = new Uint16Array(ptx.bytes(answer.logits).buffer);
    const values = Float32Array.from(codes, (code) => (code === 65_535 ? -Infinity : low + step * code));
    const exact = new Float32Array(ptx.bytes(sharp.logits).buffer);
    new Int32Array(ptx.bytes(sharp.ids).buffer).forEach((id, i) => (values[id] = exact[i]));
    decoded.set(answer, values);
    return values;
  };

  // The panel: nothing to see but what the server refused.
  ptx.reading = ({ element, server }) => {
    element.replaceChildren(problem.node);
    mount(server);
  };
})();
