// The heads: all of them small, some large, what they look at from the cursor, and what they are
// worth.
ptx.heads = ({ element }) => {
  const { el, store, pins, attention } = ptx;
  const MOST = 4; // large maps
  const NAMED = 4; // tokens in a line of the readout
  const PACE = 240; // ms between two pictures while a text streams: they cost it the processor
  const LATER = 300; // ms that what came without more text waits for some, to be drawn together
  const VIEWS = [
    ["raw", "raw", "Share of attention."],
    ["no sink", "without first token", "Share of the attention that is not on the first token."],
    ["weighted", "value-weighted", "Attention times the size of what it writes, in units of the residual stream."],
  ];
  // A first head to look at: one that does something that a person can follow.
  const TELLING = ["induction", "same identifier", "definition", "matching bracket", "previous token"];

  const views = ptx.segments("View", VIEWS, (view) => store.set({ view }));
  const lines = ptx.lines();
  const linesOn = el("button", { type: "button", class: "quiet", "aria-pressed": "true", title: "Draw attention over the text, from the cursor to where it looked" }, "lines in the text");
  const atlas = ptx.atlas();
  const readout = store.quietly(el("div", { class: "readout looks", role: "status" }));
  const ramp = el("canvas", { class: "ramp" });
  const ticks = el("div", { class: "ticks", "aria-hidden": "true" });
  const unit = el("span", { class: "unit" });
  const price = ptx.price({ relabel: () => draw() });
  const cards = Array.from({ length: MOST }, card);
  const peek = card();
  const maps = el("div", { class: "maps" }, ...cards.map(({ node }) => node), el("div", { class: "peek", hidden: "" }, peek.node));
  const roles = el("details", { class: "roles" }, el("summary", {}, "What the roles mean"),
    el("dl", {}, ...Object.values(ptx.roles).filter(([name]) => name).flatMap(([name, means]) => [el("dt", {}, name), el("dd", {}, means)])));
  element.replaceChildren(
    el("section", { class: "panel heads-panel", "aria-label": "Heads" },
      el("div", { class: "bar" }, el("h2", {}, "Heads"), views.node, linesOn,
        ptx.share.exports("attention", () => element.firstElementChild, numbers)),
      el("div", { class: "heads-body" }, atlas.node,
        el("div", { class: "large" }, maps, readout,
          el("div", { class: "legend" }, el("div", { class: "scale" }, ramp, ticks), unit))),
      price.node,
      roles),
  );

  let cell = null; // under the pointer on a large map
  let picture = null; // the last that there was
  let choosing = true; // a head to begin with
  let emptied = false; // by a model that has none of the heads that were pinned

  // Every weight of the pinned heads, exactly, for a file.
  async function numbers() {
    const now = attention.current();
    const found = [];
    for (const name of now ? store.state.pinned : []) {
      const [layer, head] = pins.place(name);
      const answer = await ptx.ask("head", { ...now.question, layer, head, exact: true });
      if (!answer) continue;
      const weights = new Float32Array(ptx.bytes(answer.triangle).buffer);
      const labels = ptx.labels(answer.start, answer.at - answer.start);
      for (let q = 0, i = 0; q < labels.length; q += 1) {
        for (let k = 0; k <= q; k += 1, i += 1) {
          found.push({ layer, head, view: now.question.view, query: answer.start + q, key: answer.start + k,
            query_text: labels[q], key_text: labels[k], weight: weights[i] });
        }
      }
    }
    return found;
  }

  // ---- large maps --------------------------------------------------------------------------------

  function card() {
    const title = el("b", {});
    const role = el("span", { class: "role" });
    const mute = ptx.button("M", () => pins.mute(one.name), { title: "Mute: it writes nothing (M)" });
    const close = ptx.button("×", () => pins.toggle(one.name), { title: "Unpin" });
    const map = ptx.map({ tell: tellCell, label: (name) => `Attention of head ${name}: row = the token that looks, column = the token looked at` });
    const node = el("div", { class: "card", hidden: "" },
      el("div", { class: "card-head" }, el("span", { class: "dot" }), title, role, mute, close), map.node);
    const one = { node, map, close, name: null, draw };

    function draw(name) {
      node.hidden = !name;
      one.name = name;
      if (!name) return;
      const muted = store.state.muted.includes(name);
      const hue = pins.colour(name);
      node.style.setProperty("--hue", `var(${hue})`);
      title.textContent = name;
      const { short, long } = roleOf(name);
      role.textContent = short;
      role.title = long;
      mute.setAttribute("aria-pressed", muted);
      mute.setAttribute("aria-label", `Mute head ${name}`);
      close.setAttribute("aria-label", `Unpin head ${name}`);
      map.draw(attention.square(name), name, hue);
    }
    return one;
  }

  function roleOf(name) {
    const [layer, head] = pins.place(name);
    const found = picture?.roles[layer]?.[head];
    if (!found) return { short: "", long: "" };
    const [short, means] = ptx.roles[found.label] ?? [found.label, found.label];
    const judged = found.here ? "judged on this text" : "judged on a reference text, as this one has too little of it";
    return { short, long: short ? `${found.label} (${found.score.toFixed(2)}): ${means}; ${judged}` : means };
  }

  function labelOf(name) {
    const role = roleOf(name);
    return price.labelOf(name) ?? { text: role.short, title: `head ${name}: ${role.long}` };
  }

  // ---- in words --------------------------------------------------------------------------------

  const show = (weight) =>
    store.state.view === "weighted" ? ptx.number(Number(weight.toPrecision(2)), 2) : `${(100 * weight).toFixed(weight < 0.1 ? 1 : 0)} %`;

  function tellCell(found) {
    cell = found;
    read();
  }

  function read() {
    const { tokens, pinned } = store.state;
    const cursor = attention.cursor();
    readout.style.setProperty("--lines", 1 + Math.max(3, pinned.length));
    if (cell) {
      const token = ({ text, index }) => [el("code", {}, ptx.visible(text, 24)), el("small", {}, String(index))];
      readout.replaceChildren(el("p", {}, `Head ${cell.name}: `, ...token(cell.from), " looks at ", ...token(cell.to), " with ", el("b", {}, cell.weight.toFixed(3))));
      return;
    }
    if (!cursor) {
      readout.replaceChildren();
      return;
    }
    const heads = pins.shown(store.state);
    // until there is something to say, what was said stays
    if (readout.childElementCount && heads.length && !heads.some(attention.atCursor)) return;
    const token = tokens[cursor];
    const what = token ? [el("code", {}, ptx.visible(token.bytes || token.text, 24)), el("small", {}, String(cursor))] : ["what comes next"];
    readout.replaceChildren(
      el("p", {}, "Choosing ", ...what, token ? ", it looked at" : ", it looks at"),
      ...heads.map(looks),
      ...(heads.length === 1 ? [el("p", { class: "hint means", title: roleOf(heads[0]).long }, roleOf(heads[0]).long)] : []),
    );
  }

  // One head's strongest from the cursor.
  function looks(name) {
    const found = attention.atCursor(name);
    const line = el("p", { class: "look" }, el("span", { class: "dot", style: `--hue: var(${pins.colour(name)})` }), el("b", {}, name), " ");
    if (!found) return line;
    const best = Array.from(found.weights, (weight, k) => [weight, k]).sort((a, b) => b[0] - a[0]).slice(0, NAMED);
    const labels = ptx.labels(found.start, found.weights.length);
    for (const [weight, k] of best) {
      if (weight > 0.005) line.append(el("code", {}, ptx.visible(labels[k] ?? "", 14)), ` ${show(weight)} `);
    }
    return line;
  }

  // ---- the legend ------------------------------------------------------------------------------

  let legend = ""; // what it shows

  function drawLegend(scale = 1) {
    const { view } = store.state;
    if (legend === (legend = [view, scale, ptx.isDark()].join())) return;
    const g = ramp.getContext("2d");
    ramp.width = 256;
    ramp.height = 1;
    const data = new ImageData(256, 1);
    new Uint32Array(data.data.buffer).set(ptx.packedColormap());
    g.putImageData(data, 0, 0);
    unit.textContent = `${VIEWS.find(([name]) => name === view)[2]} Row: the token that looks; column: the token looked at.`;
    ticks.replaceChildren(...[0, 0.01, 0.1, 0.25, 0.5, 1].map((weight) =>
      el("span", { style: `left: ${100 * Math.sqrt(weight)}%` }, ptx.number(Number((weight * scale).toPrecision(2)), 2))));
  }

  // ---- together --------------------------------------------------------------------------------

  function settle() {
    const { model, pinned, muted } = store.state;
    if (!model) return;
    const exists = (name) => name.split(".").every((n, i) => Number(n) < [model.layers, model.heads][i]);
    picture = null;
    store.set({ peek: null }); // the button under the pointer may be gone
    if (!pinned.every(exists)) {
      store.set({ pinned: pinned.filter(exists) });
      choosing = emptied = !store.state.pinned.length;
    }
    if (!muted.every(exists)) store.set({ muted: muted.filter(exists) });
  }

  // The clearest of the most telling role, in place of the head that happens to be the first; that
  // one where none has such a role.
  function choose({ roles }) {
    choosing = false;
    if (!pins.chosen() || (emptied && !store.state.pinned.length)) {
      const heads = roles.flatMap((row, l) => row.map((role, h) => ({ ...role, name: `${l}.${h}` })));
      const rank = ({ label, score }) => TELLING.length - TELLING.indexOf(label) + score;
      const telling = heads.filter(({ label }) => TELLING.includes(label)).sort((a, b) => rank(b) - rank(a));
      store.set({ pinned: [(telling[0] ?? heads[0]).name] });
    }
  }

  function draw() {
    picture = attention.picture() ?? picture;
    if (choosing && picture?.roles.length) choose(picture);
    const { pinned, peek: name, view } = store.state;
    atlas.draw(picture, labelOf);
    maps.dataset.count = pinned.length;
    ptx.keepFocus(() => cards.forEach((one, i) => one.draw(pinned[i] ?? null)),
      () => [...cards.map(({ close }) => close).reverse(), atlas.node.querySelector(".thumb[tabindex='0']")], maps);
    peek.node.parentElement.hidden = !name;
    peek.draw(name);
    views.set(view);
    drawLegend(picture?.scale);
    read();
    lines.draw();
  }

  let due = false;
  let waiting = null; // a timer
  let last = 0; // when it was drawn
  let wrote = false; // whether a text was being written, when it was last asked for

  // withText: there is more text, so that the browser draws in any case
  function ask(withText) {
    const { writing, following } = store.state;
    if (writing && !wrote) last = performance.now(); // the text's first token comes first
    wrote = writing;
    const now = withText && performance.now() >= last + PACE && !ptx.pace.wait();
    if (!(writing && following) || now) soon();
    else waiting ??= setTimeout(later, LATER);
  }

  function later() {
    const wait = ptx.pace.wait();
    if (wait) waiting = setTimeout(later, wait);
    else soon();
  }

  function soon() {
    clearTimeout(waiting);
    waiting = null;
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      last = performance.now();
      draw();
    });
  }

  linesOn.addEventListener("click", () => {
    const on = linesOn.getAttribute("aria-pressed") !== "true";
    linesOn.setAttribute("aria-pressed", on);
    lines.toggle(on);
  });
  store.on(["model"], settle);
  store.on(["pinned", "peek", "muted", "view"], soon); // a person waits for it
  store.on(["tokens"], () => ask(true));
  attention.onChange(() => ask(false));
  ptx.onTheme(soon);
  soon();
};
