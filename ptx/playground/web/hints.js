// Five hints for a first visit: each can be followed, all can be closed, and stay closed.
ptx.hints = ({ element }) => {
  const { el, store } = ptx;
  const CLOSED = "ptx-hints-closed";
  const go = (id) => {
    const target = document.getElementById(id);
    target?.scrollIntoView({ block: "nearest", behavior: "smooth" });
    target?.classList.remove("pointed");
    requestAnimationFrame(() => target?.classList.add("pointed"));
    return target;
  };
  // [what a person can do, what "Show me" does]
  const HINTS = [
    ["Write some Python and press Generate: the model goes on, token by token.",
      () => { go("text-panel"); ptx.writing.generate(); }],
    ["Click any token of the text, or use the arrow keys: everything on the page is then about that one.",
      () => { go("text-panel"); select(); }],
    ["Turn the temperature: the bars under Next token follow at once.",
      () => { go("bench-panel"); go("knobs-panel").querySelector("#temperature input[type=range]")?.focus({ preventScroll: true }); }],
    ["Click another token under Next token: the text goes on from it, and Undo brings the old one back.",
      () => go("bench-panel")?.querySelector("button.candidate:not(.chosen)")?.focus()],
    ["Point at a small picture under Heads: lines over the code show where that head looks.",
      () => go("heads-panel")?.querySelector(".atlas .thumb[tabindex='0']")?.focus()],
  ];

  function select() {
    const { ids } = store.state;
    if (ids.length > 2) store.set({ cursor: Math.min(3, ids.length - 1), following: false });
    document.querySelector("#text-panel pre.code")?.focus({ preventScroll: true });
  }

  let at = 0;
  const count = el("span", { class: "count" });
  const words = el("p", { "aria-live": "polite" });
  const button = (label, call, name = label) => ptx.button(label, call, { "aria-label": name });
  const show = button("Show me", () => HINTS[at][1]());
  const back = button("‹", () => turn(-1), "Hint before");
  const on = button("›", () => turn(1), "Next hint");
  const close = button("Close", () => toggle(true), "Close the hints");
  const strip = el("aside", { class: "hints", "aria-label": "Hints" }, count, words, show, back, on, close);
  const open = button("Hints", () => toggle(false), "Show the hints");
  open.classList.add("open-hints");
  element.replaceChildren(strip, open);

  function turn(by) {
    at = (at + by + HINTS.length) % HINTS.length;
    count.textContent = `${at + 1}/${HINTS.length}`;
    words.textContent = HINTS[at][0];
  }

  function toggle(closed) {
    ptx.keepFocus(() => {
      strip.hidden = closed;
      open.hidden = !closed;
    }, () => [open, show]);
    ptx.remember(CLOSED, closed ? "1" : "");
  }

  turn(0);
  strip.hidden = ptx.remembered(CLOSED) === "1";
  open.hidden = !strip.hidden;
};
