// Ctrl+Enter generates and Esc stops, wherever the focus is.
document.addEventListener(
  "keydown",
  (event) => {
    if (!document.getElementById("generate")?.offsetParent) return; // another tab is open
    if (document.querySelector("dialog[open]")) return; // the keys are its own
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.stopPropagation(); // the editor would add a line
      ptx.writing.generate();
    } else if (event.key === "Escape" && ptx.store.state.writing) {
      event.preventDefault(); // else it is the editor's: Escape, then Tab leaves it
      ptx.writing.stop();
    }
  },
  true,
);
