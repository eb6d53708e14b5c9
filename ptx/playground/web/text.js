// The text: its tokens as code, one of them under the cursor, coloured by how likely they were.
ptx.text = ({ element }) => {
  const { el, store, writing } = ptx;
  const CHUNK = 64; // tokens
  const PAGE = 10; // lines
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

  const finish = el("span", { class: "finish", role: "status" });
  const stats = el("span", { class: "stats" });
  const syntax = el("button", { type: "button", class: "syntax", hidden: "" });
  const colours = el("select", { "aria-label": "Colours" },
    ...Object.entries(COLOURS).map(([key, { name }]) => el("option", { value: key }, name)));
  const blanks = ptx.button("· → ↵", () => blanks.setAttribute("aria-pressed", code.classList.toggle("blanks")),
    { "aria-pressed": "false", title: "Show spaces, tabs and line ends" });
  const copy = ptx.button("Copy", () => ptx.share.copyFrom(copy, text));
  const lines = ptx.button("JSON", ptx.share.lines, { class: "quiet export", title: "Save the text, a line of JSON for each token" });
  const ticks = el("div", { class: "ticks" });
  const about = el("span", {});
  const legend = el("div", { class: "heat-legend" },
    el("div", { class: "scale" }, el("div", { class: "heat-ramp" }), ticks), about);
  const code = el("pre", {
    class: "code", tabindex: "0", role: "textbox", "aria-readonly": "true", "aria-multiline": "true",
    "aria-label": "Text, token by token", "aria-describedby": "text-keys", spellcheck: "false",
  });
  const keys = el("p", { class: "hint", id: "text-keys" },
    "Click a token, or use the arrow keys; Enter or a double click goes on from there.");
  const seen = store.quietly(el("p", { class: "seen", role: "status" }));
  const error = el("p", { class: "message error", role: "alert", hidden: "" });
  const notes = el("div", { class: "notes" });
  const caret = el("span", { class: "caret" });
  const tip = el("div", { class: "tip", hidden: "" });
  element.replaceChildren(
    el("section", { class: "panel text-panel", "aria-label": "Text" },
      el("div", { class: "bar" }, el("h2", {}, "Text"), finish,
        el("span", { class: "tools" }, colours, blanks, copy)),
      el("div", { class: "bar facts" }, stats, syntax, lines),
      code,
      el("div", { class: "beside" }, keys, legend),
      el("div", { class: "under-text" }, seen, error, notes)),
    tip,
  );

  let tokens = []; // those drawn: {token, start, node, key}
  let text = "";
  let lexemes = [];
  let unseen = 0; // tokens that the model did not see at the cursor
  let chunk = null; // the last block of whole lines
  let marked = null; // the entry under the cursor
  let column = null; // where Up and Down want to be
  let recording = null; // of the text that was drawn last
  let atEnd = true; // the view stays with the end of a text that is followed
  let height = 0; // of the text as it was last on the screen; it may have grown since

  // ---- drawing tokens ----------------------------------------------------------------------------

  const same = (a, b) => a === b || (a.id === b.id && a.text === b.text && a.own === b.own && a.bytes === b.bytes && !a.refused === !b.refused);

  // A browser lays out a block anew when it grows, so a long text is many blocks. A block that ends
  // in a line feed shows no line for it: neither the looks nor the characters change.
  function place(node) {
    if (!chunk || (chunk.childElementCount >= CHUNK && text.endsWith("\n"))) {
      chunk = el("div");
      code.append(chunk);
      heights.observe(chunk);
    }
    chunk.append(node);
  }

  function append(token) {
    const node = el("span", { class: token.refused ? "token mended" : "token" });
    node.dataset.i = tokens.length;
    place(node);
    tokens.push({ token, start: text.length, node, key: null, heat: undefined });
    text += token.text;
  }

  function cutTo(count) {
    while (tokens.length > count) {
      const { node, start } = tokens.pop();
      text = text.slice(0, start);
      node.remove();
      while (chunk && !chunk.childElementCount) {
        heights.unobserve(chunk);
        chunk.remove();
        chunk = code.lastElementChild;
      }
    }
    unseen = Math.min(unseen, count);
  }

  // Cuts a token where a lexeme or the prompt ends and around what has to be made visible:
  // [{end, kind, own, blank}], offsets within the token.
  function pieces({ token, start }, from) {
    const end = start + token.text.length;
    const result = [];
    let at = start;
    let i = from;
    while (at < end) {
      while (lexemes[i].end <= at) i += 1;
      let stop = Math.min(end, lexemes[i].end);
      const border = start + token.own;
      if (at < border && border < stop) stop = border;
      cutBlanks(text.slice(at, stop), at - start, { kind: lexemes[i].kind, own: at < border }, result);
      at = stop;
    }
    return [result, i];
  }

  const blankOf = (char) =>
    ptx.isUnseen(char) ? "unseen" : char === "\n" ? "line" : char === "\t" ? "tab" : char === " " ? "space" : null;

  function cutBlanks(part, offset, looks, result) {
    let blank;
    let end = offset;
    for (const char of part) {
      const kind = blankOf(char);
      if (kind !== blank || kind === "unseen" || kind === "line" || kind === "tab") {
        result.push({ ...looks, blank: kind, end });
        blank = kind;
      }
      end += char.length;
      result.at(-1).end = end;
    }
  }

  function piece({ kind, own, blank }, part) {
    const names = [`py-${kind}`];
    if (!own) names.push("new");
    if (blank) names.push(`blank-${blank}`);
    return el("span", { class: names.join(" "), "data-mark": blank === "unseen" ? ptx.mark(part) : null }, part);
  }

  function paint(from) {
    let i = Math.max(0, lexemes.findLastIndex((lexeme) => lexeme.start <= from));
    let t = Math.max(0, tokens.findLastIndex((entry) => entry.start <= from));
    for (; t < tokens.length; t += 1) {
      const entry = tokens[t];
      if (!entry.token.text) continue;
      const [cut, at] = pieces(entry, Math.min(i, lexemes.length - 1));
      i = at;
      const key = cut.map((p) => `${p.end}${p.kind}${p.own}`).join();
      if (key === entry.key) continue;
      entry.key = key;
      let start = 0;
      entry.node.replaceChildren(...cut.map((one) => {
        const node = piece(one, entry.token.text.slice(start, one.end));
        start = one.end;
        return node;
      }));
    }
  }

  // How far before `to` a colour may have changed: to the start of the lexeme that reaches it.
  function changedBefore(to) {
    const i = Math.max(0, lexemes.findLastIndex((lexeme) => lexeme.start < to) - 4);
    return lexemes.length ? Math.max(0, to - lexemes[i].start) : 0;
  }

  function warm(entry) {
    const heat = COLOURS[colours.value].heat(entry.token);
    if (heat === entry.heat) return;
    entry.heat = heat;
    if (heat === null) entry.node.style.removeProperty("--heat");
    else entry.node.style.setProperty("--heat", `${Math.round(100 * heat)}%`);
  }

  // The height of a block out of sight is a guess, so that the text's end moves once more when it
  // comes into sight.
  const heights = new ResizeObserver(() => {
    height = code.scrollHeight;
    if (atEnd && recording !== null && store.state.following) code.scrollTop = height;
  });
  code.addEventListener("scroll", () => {
    atEnd = code.scrollTop + code.clientHeight >= Math.min(height, code.scrollHeight) - 24;
  });

  // Returns whether it is another text than before, or a longer one.
  function drawText(list) {
    if (recording !== store.state.recording) {
      atEnd = true;
      height = 0; // until it is on the screen no scrolling is a person's
      recording = store.state.recording;
    }
    let kept = 0;
    while (kept < tokens.length && kept < list.length && same(tokens[kept].token, list[kept])) {
      if (tokens[kept].token !== list[kept]) {
        tokens[kept].token = list[kept];
        warm(tokens[kept]);
      }
      kept += 1;
    }
    const changed = kept < list.length || kept < tokens.length;
    const fresh = kept === 0;
    caret.remove();
    cutTo(kept);
    const before = text.length;
    list.slice(kept).forEach(append);
    lexemes = ptx.lex(text, lexemes, before);
    // what was certain keeps its colours; begin where the lexer began again
    paint(Math.max(0, before - changedBefore(before)));
    tokens.slice(kept).forEach(warm);
    if (fresh) code.scrollTop = 0;
    return changed;
  }

  // ---- the cursor ------------------------------------------------------------------------------

  function drawCursor({ cursor, ids, model }) {
    marked?.node.classList.remove("at");
    caret.remove();
    marked = cursor === null ? null : (tokens[cursor] ?? null);
    if (marked) marked.node.classList.add("at");
    else if (cursor !== null && chunk) chunk.append(caret);
    const from = cursor === null || !model ? 0 : store.visibleFrom(Math.min(cursor, ids.length));
    for (let i = Math.min(unseen, from); i < Math.max(unseen, from) && i < tokens.length; i += 1) {
      tokens[i].node.classList.toggle("unseen", i < from);
    }
    unseen = from;
  }

  function reveal() {
    const node = marked?.node ?? caret;
    const [box] = node.getClientRects();
    if (!box) return;
    const frame = code.getBoundingClientRect();
    const margin = 22;
    if (box.top < frame.top + margin) code.scrollTop -= frame.top + margin - box.top;
    else if (box.bottom > frame.bottom - margin) code.scrollTop += box.bottom - frame.bottom + margin;
  }

  function moveTo(index) {
    const { ids, writing: busy } = store.state;
    if (ids.length < 2) return;
    const last = busy ? ids.length - 1 : ids.length;
    const cursor = Math.min(Math.max(1, index), ids.length);
    store.set({ cursor, following: cursor >= last });
    drawCursor(store.state);
    reveal();
  }

  const lineStart = (offset) => text.lastIndexOf("\n", offset - 1) + 1;
  const offsetOf = (index) => tokens[index]?.start ?? text.length;

  // The token that holds a character; the one past the last for the end of the text.
  function tokenAt(offset) {
    if (offset >= text.length) return tokens.length;
    return tokens.findLastIndex((entry) => entry.start <= offset && entry.token.text);
  }

  // The cursor `lines` lines further down, in the same column where there is one.
  function moveLines(lines) {
    const from = offsetOf(store.state.cursor);
    let start = lineStart(from);
    const wanted = column ?? from - start;
    for (let n = 0; n < Math.abs(lines); n += 1) {
      if (lines < 0) {
        if (start === 0) break;
        start = lineStart(start - 1);
      } else {
        const end = text.indexOf("\n", start);
        if (end < 0) break;
        start = end + 1;
      }
    }
    let index = onLine(start, wanted);
    if (lines > 0 && index <= store.state.cursor) index = store.state.cursor + 1;
    if (lines < 0 && index >= store.state.cursor) index = store.state.cursor - 1;
    moveTo(index);
    column = wanted;
  }

  // The token in a column of the line that begins at `start`. One that began on a line above, and
  // holds this one's indentation, is taken only if no other begins here.
  function onLine(start, wanted) {
    const end = text.indexOf("\n", start);
    const last = end < 0 ? text.length : end;
    const index = tokenAt(Math.min(start + wanted, last));
    return offsetOf(index) < start && index + 1 < tokens.length && offsetOf(index + 1) <= last ? index + 1 : index;
  }

  const home = () => moveTo(onLine(lineStart(offsetOf(store.state.cursor)), 0));
  const end = () => moveTo(onLine(lineStart(offsetOf(store.state.cursor)), Infinity));

  code.addEventListener("keydown", (event) => {
    const { cursor, ids } = store.state;
    if (cursor === null || event.altKey || event.shiftKey) return;
    const control = event.ctrlKey || event.metaKey;
    const key = (control ? "Control+" : "") + event.key;
    const moves = {
      ArrowLeft: () => moveTo(cursor - 1),
      ArrowRight: () => moveTo(cursor + 1),
      ArrowUp: () => moveLines(-1),
      ArrowDown: () => moveLines(1),
      PageUp: () => moveLines(-PAGE),
      PageDown: () => moveLines(PAGE),
      Home: home,
      End: end,
      "Control+Home": () => moveTo(1),
      "Control+End": () => moveTo(ids.length),
      Enter: () => writing.goOn(cursor + 1),
      "Control+z": writing.undo,
      "Control+y": writing.redo,
    };
    if (!moves[key]) return;
    event.preventDefault();
    if (!["ArrowUp", "ArrowDown", "PageUp", "PageDown"].includes(key)) column = null;
    moves[key]();
  });

  // The token at a point; beside a line it is the nearest character's.
  function indexAt(event) {
    let node = event.target.closest?.(".token");
    if (!node) {
      const at = document.caretPositionFromPoint?.(event.clientX, event.clientY)?.offsetNode
        ?? document.caretRangeFromPoint?.(event.clientX, event.clientY)?.startContainer;
      node = (at?.nodeType === Node.TEXT_NODE ? at.parentElement : at)?.closest?.(".token");
      const box = node?.getClientRects();
      if (box && event.clientY > box[box.length - 1].bottom) node = null; // below the text: its end
    }
    return node && code.contains(node) ? Number(node.dataset.i) : tokens.length;
  }

  code.addEventListener("click", (event) => {
    if (!document.getSelection().isCollapsed) return; // somebody selects text
    column = null;
    moveTo(indexAt(event));
  });
  code.addEventListener("dblclick", (event) => {
    document.getSelection().removeAllRanges();
    writing.goOn(indexAt(event) + 1);
  });

  // ---- what the cursor sees, in words ----------------------------------------------------------------

  const percent = (p) =>
    p >= 0.9995 && p < 1 ? "99.9+ %" : p >= 0.001 ? `${(100 * p).toFixed(1)} %` : p > 0 ? `${(100 * p).toExponential(0)} %` : "0 %";

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
      ? `The model ${muted.length ? `${ptx.pins.without(muted)} gives` : "gave"} it ${percent(about.prob)}, rank ${ptx.number(about.rank)}, ${about.bits.toFixed(1)} bits of surprise`
      : token.bits !== null ? `The model gave it ${percent(2 ** -token.bits)}, ${token.bits.toFixed(1)} bits of surprise` : "";
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
    finish.textContent = stateOf(status, busy);
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
    error.textContent = status.error ?? "";
    error.hidden = !status.error;
    notes.replaceChildren(...(status.notes ?? []).map((note) => el("p", { class: "message" }, note)));
  }

  syntax.addEventListener("click", () => {
    let start = 0;
    for (let n = 1; n < store.state.status.syntax.line; n += 1) start = text.indexOf("\n", start) + 1;
    moveTo(tokenAt(start));
    code.focus({ preventScroll: true });
  });

  function drawLegend() {
    const { ticks: marks, about: what } = COLOURS[colours.value];
    code.classList.toggle("heat", Boolean(marks));
    legend.hidden = !marks;
    keys.classList.toggle("sr-only", Boolean(marks));
    about.textContent = what ?? "";
    ticks.replaceChildren(...(marks ?? []).map(([where, label]) =>
      el("span", { style: `left: ${100 * where}%` }, label)));
    tokens.forEach(warm);
  }

  colours.addEventListener("change", drawLegend);

  // ---- what a token is, on hover -----------------------------------------------------------------

  function describe({ id, text: own, bytes, p, bits, refused }, index) {
    const facts = [`id ${id}`];
    if (index < store.state.prompt) facts.push("prompt");
    if (bits !== null) facts.push(`${bits.toFixed(1)} bits`);
    if (p !== null) facts.push(`drawn with ${percent(p)}`);
    if (refused) facts.push(`instead of ${namesOf(refused, 2)}`);
    return [el("code", {}, bytes ?? ptx.visible(own)), el("span", {}, facts.join(" · "))];
  }

  function point(event) {
    const node = event.target.closest?.(".token");
    const entry = node && tokens[node.dataset.i];
    tip.hidden = !entry;
    if (tip.hidden) return;
    tip.replaceChildren(...describe(entry.token, Number(node.dataset.i)));
    const box = node.getClientRects()[0];
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${box.top - tip.offsetHeight - 6}px`;
  }
  code.addEventListener("pointerover", point);
  code.addEventListener("pointerleave", () => (tip.hidden = true));
  code.addEventListener("scroll", () => (tip.hidden = true));
  document.addEventListener("scroll", () => (tip.hidden = true), { passive: true });

  store.on(["tokens", "cursor", "ids", "model"], (state, changed) => {
    const another = changed.has("tokens") && drawText(state.tokens) && !state.writing;
    drawCursor(state);
    if (!another || state.following) return;
    reveal(); // a link's, or that of a text from before
    requestAnimationFrame(reveal); // where blocks that come into sight are not as high as guessed
  });
  store.on(["tokens", "cursor", "ids", "prompt", "look"], drawSeen);
  store.on(["status", "writing"], drawStatus);
  drawText(store.state.tokens);
  drawCursor(store.state);
  drawStatus(store.state);
  drawLegend();
};
