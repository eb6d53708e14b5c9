// The page's state in its address: after the #, which no server sees. It follows what a person does,
// so a reload, or the link in another browser, opens the same picture.
ptx.link = (() => {
  const LONGEST = 8000; // characters, which mail and chat programs leave whole
  const PAUSE = 400; // ms without a change until the address follows
  const { state, on } = ptx.store;

  async function through(stream, bytes) {
    return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
  }

  // Any JSON as letters that an address may hold.
  async function pack(value) {
    const bytes = await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(JSON.stringify(value)));
    const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
    return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  }

  // What `pack` was given; null for anything else.
  async function unpack(letters) {
    if (!letters || letters.length > LONGEST) return null;
    try {
      const bytes = ptx.bytes(letters.replaceAll("-", "+").replaceAll("_", "/"));
      const text = await through(new DecompressionStream("deflate-raw"), bytes);
      return JSON.parse(new TextDecoder().decode(text));
    } catch {
      return null;
    }
  }

  // Half of a surrogate pair cannot go through UTF-8: it becomes U+FFFD there, and here at once.
  const whole = (text) => text.toWellFormed?.() ?? text;

  function picture() {
    const { model, ids, prompt, open, knobs, cursor, view, pinned, muted } = state;
    const [written, origin] = [whole(ptx.writing.written()), ptx.writing.origin()];
    return { m: model.key, l: model.name, w: written, o: origin, i: ids, n: prompt, e: open, k: knobs, c: cursor, v: view, h: pinned, u: muted };
  }

  // The address of what is on the screen; {error: sentence} if it would be too long.
  async function address() {
    const letters = await pack(picture());
    if (letters.length > LONGEST) {
      const much = ptx.number(letters.length);
      return { error: `This text makes a link of ${much} characters, and ${ptx.number(LONGEST)} are the most: shorten the prompt, or write less.` };
    }
    return { href: `${location.origin}${location.pathname}${location.search}#${letters}` };
  }

  const list = (value, test) => (Array.isArray(value) && value.every(test) ? value : null);
  const whether = (value, allowed) => (allowed.includes(value) ? value : allowed[0]);
  const isHead = (name) => {
    if (typeof name !== "string" || !/^(0|[1-9]\d*)\.(0|[1-9]\d*)$/.test(name)) return false;
    const [layer, head] = ptx.pins.place(name);
    return layer < state.model.layers && head < state.model.heads;
  };

  // Puts the link's model on the page, if it is here; returns whether it is there. Its key may be
  // another one: the model that one page opened with has the key "", and on another is in the list.
  async function openModel({ m, l }) {
    if (typeof m !== "string") return true;
    const here = state.about.models.find(({ key, name }) => (key === "" ? name === l && (!m || m === l) : key === (m || l)));
    const key = here?.key ?? m;
    if (key !== state.model.key) await ptx.chooseModel(key);
    if (typeof l === "string") return state.model.name === l;
    return state.model.key === key || state.model.key.startsWith(`${key}/`);
  }

  // A link may come from anyone: what does not fit is left out.
  async function open(found, note = null) {
    if (typeof found?.w !== "string") return;
    const knobsOf = await ptx.fitKnobs;
    ptx.complain("");
    if (!(await openModel(found))) {
      const wanted = ptx.visible(found.m || String(found.l), 60);
      ptx.complain(`The link is about the model ${wanted}, which is not here: ${state.model.name} reads its prompt instead.`);
      ptx.store.set({ knobs: knobsOf(found.k) });
      ptx.writing.edit(found.w);
      return;
    }
    ptx.store.set({
      knobs: knobsOf(found.k),
      view: whether(found.v, ["raw", "no sink", "weighted"]),
      pinned: list(found.h, isHead)?.slice(0, 4) ?? state.pinned,
      muted: list(found.u, isHead) ?? [],
    });
    await ptx.writing.open({
      written: found.w,
      origin: found.o ? knobsOf(found.o) : null,
      ids: list(found.i, Number.isInteger) ?? [],
      prompt: Number.isInteger(found.n) ? found.n : 0,
      open: found.e !== false,
      cursor: Number.isInteger(found.c) ? found.c : null,
    }, note);
  }

  let timer = null;
  let opening = null; // until what the address holds is on the page, the address stays
  function follow() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      if (opening || state.writing || !state.ids.length) return;
      const { href } = await address();
      if (!state.writing) history.replaceState(null, "", href ?? location.pathname + location.search);
    }, PAUSE);
  }

  // A text that was being written while the page was left is no longer, and the address does not
  // have it: who comes back finds it here, as far as it had come.
  const LEFT = "ptx-left";
  addEventListener("pagehide", () => {
    if (!state.writing || !state.ids.length) return;
    try {
      sessionStorage.setItem(LEFT, JSON.stringify(picture()));
    } catch {
      // a browser that stores nothing, or a text too long for it, loses it
    }
  });

  function left() {
    try {
      const found = JSON.parse(sessionStorage.getItem(LEFT));
      sessionStorage.removeItem(LEFT);
      const [{ type }] = performance.getEntriesByType("navigation");
      return type === "navigate" ? null : found; // a link that was followed here says what to open
    } catch {
      return null;
    }
  }

  // What the address holds, as soon as no text is being written.
  async function openAddress() {
    if (state.writing) return ptx.writing.stop();
    const mine = unpack(location.hash.slice(1)).then(open);
    opening = mine;
    await mine.finally(() => {
      if (opening === mine) opening = null;
    });
  }

  async function start() {
    const unfinished = left();
    if (unfinished) {
      await open(unfinished, "The page was left while this text was written: it ends where it was then.");
      follow();
    } else if (location.hash.length > 1) await openAddress();
    let pasted = false; // into the address of the page as it is open
    // not "hashchange": while a text is written the address still holds the picture before, and a
    // link to that one changes nothing in it
    addEventListener("popstate", () => {
      pasted = state.writing;
      openAddress();
    });
    on(["writing"], () => {
      if (pasted && !state.writing) openAddress();
      pasted &&= state.writing;
    });
    on(["model", "ids", "knobs", "cursor", "view", "pinned", "muted", "writing"], follow);
  }

  return { address, pack, start };
})();
