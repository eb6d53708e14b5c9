// Ctrl+Enter generates and Esc stops, wherever the focus is.
(() => {
  function press(event, id) {
    const button = document.getElementById(id);
    if (!button?.offsetParent) return; // another tab is open
    event.preventDefault();
    button.click();
  }
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.stopPropagation(); // the editor would add a line
        press(event, "generate");
      } else if (event.key === "Escape") {
        press(event, "stop");
      }
    },
    true,
  );
})();
