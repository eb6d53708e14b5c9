// The text: its tokens as code (code.js), coloured by how likely they were, the cursor over them
// (moves.js), what it sees in words, and how the writing goes.
ptx.text = ({ element }) => {
  const { el, percent, store } = ptx;
  const MOST_BITS = 12; // of surprise that have a colour of their own
  const FINISH = {
    length: "reached the length",
    "end of text": "the model ended the text",
    time: "reached the time limit",
    "not read": "nobody read it for a while, and others waited",
    stopped: "stopped",
    interrupted: "interrupted: the server did not go on",
    refused: "refused",
  };
  const COLOURS = {
    none: { name: "Python", heat: () => null },
    surprise: {
      name: "Surprise",
      heat: ({ bits }) => (bits === null ? null : Math.min(1, bits / MOST_BITS)),
      ticks: [[0, "0"], [0.25, "3"], [0.5, "6"], [0.75, "9"], [1, "12+"]],
      about: "bits of surprise: 1 is one chance in 2, 10 are one in 1,024",
    },
    probability: {
      name: "Probability",
      heat: ({ bits }) => (bits === null ? null : 1 - 2 ** -bits),
      ticks: [[0, "100"], [0.25, "75"], [0.5, "50"], [0.75, "25"], [1, "0"]],
      about: "percent that the model gave to a token, before the knobs",
    },
  };

  // ---- the parts -------------------------------------------------------------------------------

  const code = ptx.code();
  const finish = el("span", { class: "finish", role: "status" });
  const stats = el("span", { class: "stats" });
  const syntax = el("button", { type: "button", class: "syntax", hidden: "" });
  const colours = el("select", { "aria-label": "Colours" },
    ...Object.entries(COLOURS).map(([key, { name }]) => el("option", { value: key }, name)));
  const blanks = ptx.button("· → ↵", () => {
    const yes = blanks.getAttribute("aria-pressed") !== "true";
    blanks.setAttribute("aria-pressed", yes);
    code.showBlanks(yes);
  }, { "aria-pressed": "false", title: "Show spaces, tabs and line ends" });
  const copy = ptx.button("Copy", () => ptx.share.copyFrom(copy, code.text()));
  const lines = ptx.button("JSON", ptx.share.lines, { class: "quiet export", title: "Save the text, a line of JSON for each token" });
  const ticks = el("div", { class: "ticks" });
  const about = el("span", {});
  const legend = el("div", { class: "heat-legend" },
    el("div", { class: "scale" }, el("div", { class: "heat-ramp" }), ticks), about);
  const keys = el("p", { class: "hint", id: "text-keys" },
    "Click a token, or use the arrow keys; Enter or a double click goes on from there.");
  const seen = store.quietly(el("p", { class: "seen", role: "status" }));
  const error = ptx.problem();
  const notes = el("div", { class: "notes" });
  const tip = el("div", { class: "tip", hidden: "" });
  element.replaceChildren(
    el("section", { class: "panel text-panel", "aria-label": "Text" },
      el("div", { class: "bar" }, el("h2", {}, "Text"), finish,
        el("span", { class: "tools" }, colours, blanks, copy)),
      el("div", { class: "bar facts" }, stats, syntax, lines),
      code.element,
      el("div", { class: "beside" }, keys, legend),
      el("div", { class: "under-text" }, seen, error.node, notes)),
    tip,
  );

  const moves = ptx.moves(code);

  // ---- what the cursor sees, in words ----------------------------------------------------------------

  const nameOf = ([, own]) => (own ? ptx.visible(own, 12) : "⟨end of text⟩");
  const namesOf = (refused, most) =>
    refused.slice(0, most).map(nameOf).join("  ") + (refused.length > most ? ` and ${refused.length - most} more` : "");

  // What the model saw while it chose the token at the cursor; before the first there is only the
  // start of a file.
  function windowOf(cursor) {
    const from = store.state.model ? store.visibleFrom(cursor) : 0;
    if (cursor === 1) return "nothing but the start of a file";
    const all = `${ptx.number(cursor - 1)} token${cursor === 2 ? "" : "s"}`;
    return from ? `the last ${ptx.number(cursor - from)} of ${all} before it` : `all ${all} before it`;
  }

  function drawSeen({ cursor, ids, tokens: list, prompt, look, muted }) {
    if (cursor === null || ids.length < 2) {
      seen.textContent = "";
      return;
    }
    const token = list[cursor];
    const about = look?.at === cursor ? look : null;
    if (!token) {
      const bits = about ? `, ${about.entropy.toFixed(1)} bits undecided` : "";
      seen.textContent = `The end of the text${bits}${about && muted.length ? ` ${ptx.pins.without(muted)}` : ""}: what could come next is listed under Next token.`;
      return;
    }
    const parts = [`Token ${ptx.number(cursor)} of ${ptx.number(ids.length - 1)}`, cursor < prompt ? "prompt" : "generated"];
    const likely = about && about.prob !== null
      ? `The model ${muted.length ? `${ptx.pins.without(muted)} gives` : "gave"} it ${percent(about.prob)} %, rank ${ptx.number(about.rank)}, ${about.bits.toFixed(1)} bits of surprise`
      : token.bits !== null ? `The model gave it ${percent(2 ** -token.bits)} %, ${token.bits.toFixed(1)} bits of surprise` : "";
    seen.replaceChildren(
      el("code", {}, ptx.visible(token.bytes ?? token.text, 40)),
      ` ${parts.join(", ")}. ${likely}${likely ? "; it" : "It"} saw ${windowOf(cursor)}.${token.refused ? ` Drawn before, and no Python: ${namesOf(token.refused, 6)}.` : ""}`,
    );
  }

  // ---- how it goes -----------------------------------------------------------------------------

  function stateOf({ finish: end, place, waiting, error: problem }, busy) {
    if (busy && place) return `waiting: ${place} text${place === 1 ? " is" : "s are"} before this one`;
    if (busy && waiting) return "waiting for the model…";
    if (busy) return "writing…";
    return problem ? FINISH.refused : (FINISH[end] ?? "");
  }

  const mended = (list) => list.reduce((n, { refused }) => n + (refused?.length ?? 0), 0);
  const SYNTAX = { parses: "✓ parses as Python", unfinished: "… unfinished Python" };

  function drawStatus({ status, writing: busy, tokens: list }) {
    ptx.say(finish, stateOf(status, busy));
    finish.dataset.finish = busy ? "" : status.error ? "refused" : (status.finish ?? "");
    stats.textContent = status.generated
      ? `${ptx.number(status.generated)} token${status.generated === 1 ? "" : "s"} · ${status.rate.toFixed(1)} tokens/s · seed ${status.seed}`
      : "";
    const parsed = status.syntax;
    syntax.hidden = !parsed?.state;
    if (parsed?.state) {
      syntax.dataset.state = parsed.state;
      const drawnAgain = mended(list);
      syntax.textContent = (SYNTAX[parsed.state] ?? `✗ line ${parsed.line}: ${parsed.message}`)
        + (drawnAgain ? ` · ${drawnAgain} refused` : "");
      syntax.disabled = parsed.state !== "error";
      syntax.title = syntax.disabled ? "" : "Go to that line";
    }
    error.tell(status.error);
    notes.replaceChildren(...(status.notes ?? []).map((note) => el("p", { class: "message" }, note)));
  }

  syntax.addEventListener("click", () => moves.toLine(store.state.status.syntax.line));

  function drawLegend() {
    const { ticks: marks, about: what, heat } = COLOURS[colours.value];
    code.element.classList.toggle("heat", Boolean(marks));
    legend.hidden = !marks;
    keys.classList.toggle("sr-only", Boolean(marks));
    about.textContent = what ?? "";
    ticks.replaceChildren(...(marks ?? []).map(([where, label]) =>
      el("span", { style: `left: ${100 * where}%` }, label)));
    code.colour(heat);
  }

  colours.addEventListener("change", drawLegend);

  // ---- what a token is, on hover -----------------------------------------------------------------

  function describe({ id, text: own, bytes, p, bits, refused }, index) {
    const facts = [`id ${id}`];
    if (index < store.state.prompt) facts.push("prompt");
    if (bits !== null) facts.push(`${bits.toFixed(1)} bits`);
    if (p !== null) facts.push(`drawn with ${percent(p)} %`);
    if (refused) facts.push(`instead of ${namesOf(refused, 2)}`);
    return [el("code", {}, bytes ?? ptx.visible(own)), el("span", {}, facts.join(" · "))];
  }

  function point(event) {
    const node = event.target.closest?.(".token");
    const entry = node && code.tokens[node.dataset.i];
    tip.hidden = !entry;
    if (tip.hidden) return;
    tip.replaceChildren(...describe(entry.token, Number(node.dataset.i)));
    const box = node.getClientRects()[0];
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${box.top - tip.offsetHeight - 6}px`;
  }
  code.element.addEventListener("pointerover", point);
  code.element.addEventListener("pointerleave", () => (tip.hidden = true));
  code.element.addEventListener("scroll", () => (tip.hidden = true));
  document.addEventListener("scroll", () => (tip.hidden = true), { passive: true });

  store.on(["tokens", "cursor", "ids", "model"], (state, changed) => {
    const another = changed.has("tokens") && code.draw(state.tokens) && !state.writing;
    code.mark(state);
    if (state.writing && changed.has("tokens")) code.follow();
    if (!another || state.following) return;
    code.reveal(); // a link's, or that of a text from before
    requestAnimationFrame(code.reveal); // where blocks that come into sight are not as high as guessed
  });
  store.on(["tokens", "cursor", "ids", "prompt", "look"], drawSeen);
  store.on(["status", "writing"], drawStatus);
  code.draw(store.state.tokens);
  code.mark(store.state);
  drawStatus(store.state);
  drawLegend();
};
