// Tokens as code: a node for each, coloured as Python or by `heat`, one of them marked. It stays with
// the end of a text that is followed.
ptx.code = () => {
  const { el, store } = ptx;
  const CHUNK = 64; // tokens
  const FRESH = 2; // blocks at the end that are always laid out, so that their height is no guess
  const element = el("pre", {
    class: "code", tabindex: "0", role: "textbox", "aria-readonly": "true", "aria-multiline": "true",
    "aria-label": "Text, token by token", "aria-describedby": "text-keys", spellcheck: "false",
  });
  const caret = el("span", { class: "caret" });
  const tokens = []; // those drawn: {token, start, node, key, looks, heat}
  let text = "";
  let lexemes = [];
  let heatOf = () => null; // of a token, from 0 to 1; null for none
  let unseen = 0; // tokens that the model did not see at the cursor
  let chunk = null; // the last block of whole lines
  let blanks = false; // whether blanks are shown
  let marked = null; // the entry under the cursor
  let recording = null; // of the text that was drawn last
  let atEnd = true; // the view stays with the end of a text that is followed
  let height = 0; // of the text as it was last on the screen; it may have grown since

  // ---- nodes -----------------------------------------------------------------------------------

  const same = (a, b) => a === b || (a.id === b.id && a.text === b.text && a.own === b.own && a.bytes === b.bytes && !a.refused === !b.refused);

  // A browser lays out a block anew when it grows, so a long text is many blocks. A block that ends
  // in a line feed shows no line for it: neither the looks nor the characters change.
  function place(node) {
    if (!chunk || (chunk.childElementCount >= CHUNK && text.endsWith("\n"))) {
      chunk = el("div");
      element.append(chunk);
      heights.observe(chunk);
    }
    chunk.append(node);
  }

  function append(token) {
    const node = el("span", { class: token.refused ? "token mended" : "token" });
    node.dataset.i = tokens.length;
    place(node);
    tokens.push({ token, start: text.length, node, key: null, looks: [], heat: undefined });
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
        chunk = element.lastElementChild;
      }
    }
    unseen = Math.min(unseen, count);
  }

  // ---- colours ----------------------------------------------------------------------------------

  // Cuts a token where its colour changes or the prompt ends and around what has to be made visible:
  // [{end, kind, own, blank}], offsets within the token. Every node costs the browser time, so that
  // a token of one piece has no other.
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

  function blankOf(char) {
    if (ptx.isUnseen(char)) return "unseen";
    if (!blanks) return null;
    return char === "\n" ? "line" : char === "\t" ? "tab" : char === " " ? "space" : null;
  }

  function cutBlanks(part, offset, looks, result) {
    let blank;
    let end = offset;
    for (const char of part) {
      const kind = blankOf(char);
      if (kind !== blank || kind === "unseen" || kind === "line" || kind === "tab") {
        begin({ ...looks, blank: kind, end }, result);
        blank = kind;
      }
      end += char.length;
      result.at(-1).end = end;
    }
  }

  // A piece that looks like the one before, or as white space like any, only makes that one longer.
  function begin(one, result) {
    const before = result.at(-1);
    const alike = before && !before.blank && !one.blank && before.own === one.own;
    if (alike && before.kind === "space") before.kind = one.kind;
    else if (!alike || (one.kind !== "space" && one.kind !== before.kind)) result.push(one);
  }

  const looksOf = ({ kind, own }) => (own ? [`py-${kind}`] : [`py-${kind}`, "new"]);

  function piece(one, part) {
    const names = looksOf(one);
    if (one.blank) names.push(`blank-${one.blank}`);
    return el("span", { class: names.join(" "), "data-mark": one.blank === "unseen" ? ptx.mark(part) : null }, part);
  }

  // The node of a token, which may have other classes too, from its pieces.
  function fill(entry, cut) {
    const { node, token, looks } = entry;
    const whole = cut.length === 1 && !cut[0].blank;
    node.classList.remove(...looks);
    entry.looks = whole ? looksOf(cut[0]) : [];
    node.classList.add(...entry.looks);
    if (whole) {
      node.textContent = token.text;
      return;
    }
    let start = 0;
    node.replaceChildren(...cut.map((one) => {
      const part = piece(one, token.text.slice(start, one.end));
      start = one.end;
      return part;
    }));
  }

  function paint(from) {
    let i = Math.max(0, lexemes.findLastIndex((lexeme) => lexeme.start <= from));
    let t = Math.max(0, tokens.findLastIndex((entry) => entry.start <= from));
    for (; t < tokens.length; t += 1) {
      const entry = tokens[t];
      if (!entry.token.text) continue;
      const [cut, at] = pieces(entry, Math.min(i, lexemes.length - 1));
      i = at;
      const key = cut.map((p) => `${p.end}${p.kind}${p.own}${p.blank}`).join();
      if (key === entry.key) continue;
      entry.key = key;
      fill(entry, cut);
    }
  }

  // How far before `to` a colour may have changed: to the start of the lexeme that reaches it.
  function changedBefore(to) {
    const i = Math.max(0, lexemes.findLastIndex((lexeme) => lexeme.start < to) - 4);
    return lexemes.length ? Math.max(0, to - lexemes[i].start) : 0;
  }

  function showBlanks(yes) {
    blanks = yes;
    element.classList.toggle("blanks", yes);
    paint(0);
  }

  function warm(entry) {
    const heat = heatOf(entry.token);
    if (heat === entry.heat) return;
    entry.heat = heat;
    if (heat === null) entry.node.style.removeProperty("--heat");
    else entry.node.style.setProperty("--heat", `${Math.round(100 * heat)}%`);
  }

  function colour(heat) {
    heatOf = heat;
    tokens.forEach(warm);
  }

  // ---- a text ----------------------------------------------------------------------------------

  // The height of a block out of sight is a guess, so that the text's end moves once more when it
  // comes into sight.
  const heights = new ResizeObserver(follow);

  // Stays with the end. Where this comes before the frame that a longer text is drawn in, that one
  // tells of the scrolling too, and the browser needs no second one.
  function follow() {
    height = element.scrollHeight;
    if (atEnd && recording !== null && store.state.following) element.scrollTop = height;
  }

  element.addEventListener("scroll", () => {
    atEnd = element.scrollTop + element.clientHeight >= Math.min(height, element.scrollHeight) - 24;
  });

  // Returns whether it is another text than before, or a longer one.
  function draw(list) {
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
    for (const block of [...element.children].slice(0, -FRESH)) block.classList.add("settled");
    if (fresh) element.scrollTop = 0;
    return changed;
  }

  // The cursor at a token, or past the last; null for nowhere.
  function mark({ cursor, ids, model }) {
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
    const frame = element.getBoundingClientRect();
    const margin = 22;
    if (box.top < frame.top + margin) element.scrollTop -= frame.top + margin - box.top;
    else if (box.bottom > frame.bottom - margin) element.scrollTop += box.bottom - frame.bottom + margin;
  }

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
    return node && element.contains(node) ? Number(node.dataset.i) : tokens.length;
  }

  return { element, tokens, text: () => text, draw, colour, showBlanks, mark, follow, reveal, indexAt };
};
