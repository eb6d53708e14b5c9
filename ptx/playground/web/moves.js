// The cursor moves over the text: to a token, by lines, by the keys, to where somebody clicks.
ptx.moves = (code) => {
  const { store, writing } = ptx;
  const PAGE = 10; // lines
  const { element, tokens } = code;
  let column = null; // where Up and Down want to be

  function moveTo(index) {
    const { ids, writing: busy } = store.state;
    if (ids.length < 2) return;
    const last = busy ? ids.length - 1 : ids.length;
    const cursor = Math.min(Math.max(1, index), ids.length);
    store.set({ cursor, following: cursor >= last });
    code.mark(store.state);
    code.reveal();
  }

  const lineStart = (offset) => code.text().lastIndexOf("\n", offset - 1) + 1;
  const offsetOf = (index) => tokens[index]?.start ?? code.text().length;

  // The token that holds a character; the one past the last for the end of the text.
  function tokenAt(offset) {
    if (offset >= code.text().length) return tokens.length;
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
        const end = code.text().indexOf("\n", start);
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
    const end = code.text().indexOf("\n", start);
    const last = end < 0 ? code.text().length : end;
    const index = tokenAt(Math.min(start + wanted, last));
    return offsetOf(index) < start && index + 1 < tokens.length && offsetOf(index + 1) <= last ? index + 1 : index;
  }

  const home = () => moveTo(onLine(lineStart(offsetOf(store.state.cursor)), 0));
  const end = () => moveTo(onLine(lineStart(offsetOf(store.state.cursor)), Infinity));

  element.addEventListener("keydown", (event) => {
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

  element.addEventListener("click", (event) => {
    if (!document.getSelection().isCollapsed) return; // somebody selects text
    column = null;
    moveTo(code.indexAt(event));
  });
  element.addEventListener("dblclick", (event) => {
    document.getSelection().removeAllRanges();
    writing.goOn(code.indexAt(event) + 1);
  });

  // To the first token of a line, counted from 1.
  function toLine(line) {
    let start = 0;
    for (let n = 1; n < line; n += 1) start = code.text().indexOf("\n", start) + 1;
    moveTo(tokenAt(start));
    element.focus({ preventScroll: true });
  }

  return { toLine };
};
