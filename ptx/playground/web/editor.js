// The editor as a prompt needs it: a text may end anywhere, so no bracket or quote is closed for a
// person, and an indent is four blanks, as in the Python that the model knows.
//
// Gradio's editor is CodeMirror with settings of its own and no way to others: what a person types
// is put into it here instead.
(() => {
  const PAIRED = new Set("()[]{}'\"");
  const INDENT = 4;
  const LEAVING = 2000; // ms after Escape in which Tab goes to what comes after the editor
  const OPENS = /[:([{]\s*(#.*)?$/;

  // CodeMirror's view of the editor that an event is about, or null.
  const viewOf = (event) => event.target.closest?.("#prompt .cm-content")?.cmTile?.view ?? null;

  function put(view, text) {
    view.dispatch({ ...view.state.replaceSelection(text), userEvent: "input.type", scrollIntoView: true });
  }

  const before = ({ state }) => {
    const { from } = state.selection.main;
    const line = state.doc.lineAt(from);
    return line.text.slice(0, from - line.from);
  };

  function newLine(view) {
    const line = before(view);
    const [blanks] = line.match(/^[ \t]*/);
    const more = OPENS.test(line) ? (blanks.startsWith("\t") ? "\t" : " ".repeat(INDENT)) : "";
    put(view, `\n${blanks}${more}`);
  }

  // The selected lines, or blanks at the caret up to the next stop.
  function indent(view) {
    const { main } = view.state.selection;
    if (main.empty) return put(view, " ".repeat(INDENT - (before(view).length % INDENT)));
    const changes = linesOf(view).filter(({ length }) => length).map(({ from }) => ({ from, insert: " ".repeat(INDENT) }));
    return view.dispatch({ changes, userEvent: "input.indent" });
  }

  function outdent(view) {
    const changes = linesOf(view).map(({ from, text }) => ({ from, to: from + text.match(/^(\t| {0,4})/)[0].length }));
    view.dispatch({ changes, userEvent: "delete.dedent" });
  }

  function linesOf({ state }) {
    const { from, to } = state.selection.main;
    const [first, last] = [state.doc.lineAt(from).number, state.doc.lineAt(to).number];
    return Array.from({ length: last - first + 1 }, (_, i) => state.doc.line(first + i));
  }

  function take(event, call) {
    event.preventDefault();
    event.stopPropagation();
    call();
  }

  document.addEventListener("beforeinput", (event) => {
    const view = viewOf(event);
    if (view && event.inputType === "insertText" && PAIRED.has(event.data) && !event.isComposing) {
      take(event, () => put(view, event.data));
    }
  }, true);

  let leaving = 0;
  document.addEventListener("keydown", (event) => {
    const view = viewOf(event);
    if (!view || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const { key, shiftKey } = event;
    const menu = document.querySelector("#prompt .cm-tooltip-autocomplete");
    if (key === "Enter" && !menu) take(event, () => newLine(view));
    else if (key === "Tab" && !menu && performance.now() > leaving) take(event, () => (shiftKey ? outdent(view) : indent(view)));
    if (key === "Escape") {
      leaving = performance.now() + LEAVING;
      view.setTabFocusMode(LEAVING);
    } else if (key !== "Shift") leaving = 0;
  }, true);
})();
