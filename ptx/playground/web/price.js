// Which heads are muted and what that costs: the token at the cursor, and a token of the text before
// it on average, in bits. And what each head alone would cost, for the labels under the small pictures.
ptx.price = ({ relabel }) => {
  const { el, store, pins } = ptx;
  const REST = 200; // ms for which the cursor has to stand still
  const LABELS = [
    ["role", "role"],
    ["next", "price, this token"],
    ["loss", "price, text"],
  ];

  const line = el("p", { class: "price-line", role: "status" });
  const chips = el("div", { class: "chips" });
  const choice = ptx.segments("Labels", LABELS, (value) => {
    labels = value;
    schedule(0);
    relabel();
  });
  const node = el("div", { class: "price" }, el("div", { class: "bar" }, el("h3", {}, "Muted heads"), chips, choice.node), line);

  let labels = "role";
  let answer = null; // the last, with the key of what it is about
  let each = null; // {key, next, loss} of each head alone
  let timer = null;
  let asked = "";

  // What a price is about, as the server is asked: the window up to the cursor, and the token there.
  let parts = []; // what the last question was made of
  let made = null;
  function question() {
    const { model, ids, cursor } = store.state;
    const now = [model, ids, cursor, store.openPrompt()];
    if (now.some((part, i) => part !== parts[i])) made = make(...now);
    parts = now;
    return made;
  }

  function make(model, ids, cursor, open) {
    if (!model || !(cursor >= 1 && cursor <= ids.length)) return null;
    const start = open === null ? store.visibleFrom(cursor) : 0;
    const text = ids.slice(start, cursor + 1);
    return { ids: text, at: cursor - start, open, key: JSON.stringify([model.key, start, open, text]) };
  }

  function schedule(pause = REST) {
    clearTimeout(timer);
    const { muted, writing, following } = store.state;
    draw();
    if (writing && following) return; // every token would ask; at the end is early enough
    if (muted.length || labels !== "role") timer = setTimeout(ask, pause);
  }

  async function ask() {
    const now = question();
    if (!now) return;
    const { muted } = store.state;
    const all = labels !== "role" && each?.key !== now.key;
    const about = `${now.key}|${muted.join()}`;
    if (asked === `${about}|${all}` || (!all && answer?.about === about)) return;
    asked = `${about}|${all}`;
    const found = await ptx.ask("price", { ids: now.ids, at: now.at, open: now.open, muted, each: all });
    if (asked === `${about}|${all}`) asked = "";
    if (!found) return;
    answer = { ...found, about };
    if (all) each = { key: now.key, next: found.each, loss: found.each_loss };
    draw();
    relabel();
  }

  function change(name, before, by) {
    if (before === null || by === null) return [];
    return [`${name} ${before.toFixed(2)} → ${(before + by).toFixed(2)} bits `, ptx.signedBold(by)];
  }

  let chipped = ""; // the heads that have a chip

  function drawChips({ muted }) {
    if (chipped === (chipped = muted.join())) return;
    const made = muted.map((name) => {
      const label = `Let head ${name} write again`;
      return ptx.button(`${name} ×`, () => pins.mute(name), { class: "chip", "aria-label": label });
    });
    if (muted.length > 1) made.push(ptx.button("none", () => store.set({ muted: [] })));
    ptx.keepFocus(() => chips.replaceChildren(...made), () => [chips.firstChild, choice.node.firstChild]);
  }

  function draw() {
    const { muted, writing, following } = store.state;
    drawChips(store.state);
    const now = muted.length ? question() : null;
    const known = answer?.about === `${now?.key}|${muted.join()}`;
    if (!now) {
      ptx.say(line, el("span", { class: "hint" }, "Mute a head (M, or the corner of its picture) and see what it was worth, in bits."));
    } else if (writing && following) {
      ptx.say(line, el("span", { class: "hint" }, "The price is worked out when the text has ended."));
    } else if (known) {
      ptx.say(line,
        el("code", {}, ptx.visible(answer.token.text, 16)),
        ...change("", answer.base_next, answer.next),
        ...(answer.loss === null ? [] : [" · ", ...change("a token of the text before it", answer.base_loss, answer.loss)]),
        el("span", { class: "hint" }, " · Generate writes with all heads"),
      );
    } // else what is there stays until the new price has come
    line.classList.toggle("stale", Boolean(now) && !known);
  }

  // The label of one head, or null where it is its role's.
  function labelOf(name) {
    if (labels === "role") return null;
    const now = question();
    if (!now || each?.key !== now.key) return { text: "…", title: "being worked out" };
    const [layer, head] = pins.place(name);
    const bits = each[labels][layer][head];
    if (bits === null) return { text: "–", title: labels === "loss" ? "there is no token before the cursor" : "it cannot come here" };
    const what = labels === "next" ? "the token at the cursor" : "a token of the text before it";
    return {
      text: ptx.signed(bits),
      title: `Without head ${name} ${what} costs ${ptx.signed(bits)} bits`,
      sign: Math.sign(Math.round(100 * bits)),
    };
  }

  store.on(["muted", "ids", "cursor", "model", "writing", "following"], () => schedule());
  draw();
  return { node, labelOf };
};
