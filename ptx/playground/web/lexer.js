// A small lexer of Python for colouring: it never fails, and it can go on where it stopped.
(() => {
  const KEYWORDS = new Set(
    ("False None True and as assert async await break class continue def del elif else except " +
      "finally for from global if import in is lambda nonlocal not or pass raise return try while " +
      "with yield match case").split(" "),
  );
  const BUILTINS = new Set(
    ("self cls super print len range int str float bool list dict set tuple bytes object type " +
      "isinstance enumerate zip map filter sorted sum min max abs any all open repr getattr " +
      "setattr hasattr property staticmethod classmethod Exception ValueError TypeError KeyError " +
      "IndexError RuntimeError AttributeError NotImplementedError StopIteration OSError").split(" "),
  );
  const LEXEMES = [
    ["space", /\s+/y],
    ["comment", /#[^\n]*/y],
    ["string", /[rRbBuUfFtT]{0,2}("""|''')(?:[^\\]|\\[^])*?(?:\1|\\?$)/y],
    ["string", /[rRbBuUfFtT]{0,2}(["'])(?:[^\\\n]|\\[^])*?(?:\1|(?=\n)|\\?$)/y],
    ["number", /0[xX][\da-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+/y],
    ["number", /(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?[jJ]?/y],
    ["word", /[\p{L}_][\p{L}\p{N}_]*/uy],
    ["other", /[^]/uy],
  ];

  // How many of the last lexemes may change when text is added: `1e` `+` may become `1e+5`.
  const UNSURE = 3;

  function next(text, at) {
    for (const [kind, pattern] of LEXEMES) {
      pattern.lastIndex = at;
      const found = pattern.exec(text);
      if (found && found[0]) return [kind, found[0]];
    }
    return ["other", text[at]];
  }

  function wordKind(word, done, text) {
    const before = done.findLast((lexeme) => lexeme.kind !== "space");
    const previous = before ? text.slice(before.start, before.end) : "";
    if (previous === "def" || previous === "class") return "name";
    if (KEYWORDS.has(word)) return "keyword";
    if (previous !== "." && BUILTINS.has(word)) return "builtin";
    return previous === "@" ? "name" : "other";
  }

  // Lexemes {start, end, kind} that cover `text`. `done`: those of a text that shares its first
  // `same` characters with this one; they are reused.
  ptx.lex = (text, done = [], same = 0) => {
    while (done.length && done.at(-1).end >= same) done.pop();
    done.length = Math.max(0, done.length - UNSURE);
    let at = done.length ? done.at(-1).end : 0;
    while (at < text.length) {
      const [kind, found] = next(text, at);
      done.push({ start: at, end: at + found.length, kind: kind === "word" ? wordKind(found, done, text) : kind });
      at += found.length;
    }
    return done;
  };

  // A finished text as coloured nodes.
  ptx.colored = (text) =>
    ptx.lex(text).map(({ start, end, kind }) =>
      kind === "space" || kind === "other"
        ? document.createTextNode(text.slice(start, end))
        : ptx.el("span", { class: `py-${kind}` }, text.slice(start, end)),
    );
})();
