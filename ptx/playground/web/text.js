// The text as it grows: code with its tokens, what each of them is on hover, and how it went.
ptx.text = ({ element, props, watch }) => {
  const { el } = ptx;
  const CHUNK = 64; // tokens
  const FINISH = {
    length: "reached the length",
    "end of text": "the model ended the text",
    stopped: "stopped",
  };

  const stats = el("span", { class: "stats" });
  const finish = el("span", { class: "finish", role: "status" });
  const copy = el("button", { type: "button", class: "quiet", hidden: "" }, "Copy");
  const error = el("p", { class: "message error", role: "alert", hidden: "" });
  const notes = el("div", { class: "notes" });
  const code = el("pre", { class: "code", tabindex: "0", "aria-label": "Generated text" });
  const hint = el(
    "p",
    { class: "hint" },
    "Ctrl+Enter generates, Esc stops. Point at a word to see its tokens.",
  );
  const tip = el("div", { class: "tip", hidden: "" });
  element.replaceChildren(
    el("section", { class: "text-panel" },
      el("div", { class: "bar" }, el("h2", {}, "Text"), stats, finish, copy),
      error, notes, code, hint),
    tip,
  );

  let run = null;
  let consumed = ""; // the lines drawn so far
  let tokens = []; // {id, text, probability, own, bytes, start, node, key}
  let text = "";
  let lexemes = [];
  let unseen = 0; // tokens that the model no longer sees
  let chunk = null; // the last block of whole lines

  function reset(v) {
    run = v.run;
    consumed = text = "";
    tokens = [];
    lexemes = [];
    unseen = 0;
    chunk = null;
    code.replaceChildren();
  }

  function parse(lines) {
    return lines.split("\n").filter(Boolean).map((line) => {
      const [id, text, probability, own, bytes] = JSON.parse(line);
      return { id, text, probability, own, bytes };
    });
  }

  // A browser lays out a block anew when it grows, so a long text is many blocks. A block that ends
  // in a line feed shows no line for it: neither the looks nor the characters change.
  function place(node) {
    if (!chunk || (chunk.childElementCount >= CHUNK && text.endsWith("\n"))) {
      chunk = el("div");
      code.append(chunk);
    }
    chunk.append(node);
  }

  function append(token) {
    token.start = text.length;
    token.node = el("span", { class: "token" });
    token.node.dataset.i = tokens.length;
    token.key = null;
    place(token.node);
    text += token.text;
    tokens.push(token);
  }

  // The tail is the end of the prompt that has no token yet: drawn as one, then taken back.
  function dropTail() {
    const last = tokens.at(-1);
    if (last?.id !== undefined || !last) return;
    tokens.pop();
    text = text.slice(0, last.start);
    last.node.remove();
  }

  // Cuts a token where a lexeme or the prompt ends: [{end, kind, own}], offsets within the token.
  function pieces(token, from) {
    const end = token.start + token.text.length;
    const result = [];
    let at = token.start;
    let i = from;
    while (at < end) {
      while (lexemes[i].end <= at) i += 1;
      let stop = Math.min(end, lexemes[i].end);
      const border = token.start + token.own;
      if (at < border && border < stop) stop = border;
      result.push({ end: stop - token.start, kind: lexemes[i].kind, own: at < border });
      at = stop;
    }
    return [result, i];
  }

  function paint(from) {
    let i = Math.max(0, lexemes.findLastIndex((lexeme) => lexeme.start <= from));
    let t = Math.max(0, tokens.findLastIndex((token) => token.start <= from));
    for (; t < tokens.length; t += 1) {
      const token = tokens[t];
      if (!token.text) continue;
      const [cut, at] = pieces(token, Math.min(i, lexemes.length - 1));
      i = at;
      const key = cut.map((p) => `${p.end}${p.kind}${p.own}`).join();
      if (key === token.key) continue;
      token.key = key;
      let start = 0;
      token.node.replaceChildren(
        ...cut.map(({ end, kind, own }) => {
          const node = el("span", { class: `py-${kind}${own ? "" : " new"}` }, token.text.slice(start, end));
          start = end;
          return node;
        }),
      );
    }
  }

  function dim(to) {
    for (let i = Math.min(unseen, to); i < Math.max(unseen, to) && i < tokens.length; i += 1) {
      tokens[i].node.classList.toggle("unseen", i < to);
    }
    unseen = to;
  }

  function drawText(v) {
    if (v.run !== run || !v.lines.startsWith(consumed)) reset(v);
    const atEnd = code.scrollTop + code.clientHeight >= code.scrollHeight - 24;
    dropTail();
    const same = text.length;
    parse(v.lines.slice(consumed.length)).forEach(append);
    consumed = v.lines;
    if (v.tail) append({ id: undefined, text: v.tail, probability: null, own: v.tail.length });
    lexemes = ptx.lex(text, lexemes, same);
    // what was certain keeps its colours; begin where the lexer began again
    paint(Math.max(0, same - changedBefore(same)));
    dim(v.visible_from);
    if (atEnd) code.scrollTop = code.scrollHeight;
  }

  // How far before `same` a colour may have changed: to the start of the lexeme that reaches it.
  function changedBefore(same) {
    let i = lexemes.findLastIndex((lexeme) => lexeme.start < same);
    i = Math.max(0, i - 4);
    return lexemes.length ? Math.max(0, same - lexemes[i].start) : 0;
  }

  function update() {
    const v = props.value;
    if (!v) return;
    error.textContent = v.error ?? "";
    error.hidden = !v.error;
    if (v.lines === undefined) {
      finish.textContent = "";
      return;
    }
    drawText(v);
    hint.hidden = copy.hidden = false;
    stats.textContent = v.generated
      ? `${v.generated} token${v.generated === 1 ? "" : "s"} · ${v.rate.toFixed(1)} tokens/s · seed ${v.seed}`
      : `seed ${v.seed}`;
    finish.textContent = v.error ? "refused" : v.finish ? FINISH[v.finish] : "writing…";
    finish.dataset.finish = v.error ? "refused" : (v.finish ?? "");
    notes.replaceChildren(...v.notes.map((note) => el("p", { class: "message" }, note)));
  }

  function describe(token) {
    const name = token.bytes ?? JSON.stringify(token.text);
    const facts = [`id ${token.id}`];
    if (token.probability !== null) facts.push(`probability ${ptx.number(token.probability, 4)}`);
    else facts.push("prompt");
    return [el("code", {}, name), el("span", {}, facts.join(" · "))];
  }

  function point(event) {
    const node = event.target.closest?.(".token");
    const token = node && tokens[node.dataset.i];
    tip.hidden = !token || token.id === undefined || token.id === null;
    if (tip.hidden) return;
    tip.replaceChildren(...describe(token));
    const box = node.getClientRects()[0];
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${box.top - tip.offsetHeight - 6}px`;
  }

  code.addEventListener("pointerover", point);
  code.addEventListener("pointerleave", () => (tip.hidden = true));
  code.addEventListener("scroll", () => (tip.hidden = true));
  document.addEventListener("scroll", () => (tip.hidden = true), { passive: true });
  copy.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(text);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1200);
  });
  // A text may have to wait for its turn: say so from the click on, not from the first answer.
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#generate")) return;
    finish.textContent = "waiting for the model…";
    finish.dataset.finish = "";
  });

  watch("value", update);
  update();
};
