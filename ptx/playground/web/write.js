// What a person can do: generate, stop, continue, undo; examples to begin with.
ptx.write = ({ element, props, watch, trigger, server }) => {
  const { el, store, writing } = ptx;
  const facts = props.value;

  const button = (id, label, title, call, kind = "quiet") => ptx.button(label, call, { id, class: kind, title });
  const generate = button("generate", "Generate", "Continue the prompt (Ctrl+Enter)", writing.generate, "primary");
  const stop = button("stop", "Stop", "Stop here and keep the text (Esc)", writing.stop);
  const goOn = button("continue", "Continue", "Write on from the end of the text", () => writing.goOn());
  const undo = button("undo", "Undo", "Back to the text before", writing.undo);
  const redo = button("redo", "Redo", "On to the text after", writing.redo);
  const place = el("span", { class: "hint place" });
  const examples = Object.entries(facts.examples).map(([name, text]) =>
    button(null, name, "Put this example into the editor", () => writing.edit(text), "chip"),
  );
  element.replaceChildren(
    el("div", { class: "write-panel" },
      el("div", { class: "examples", role: "group", "aria-label": "Examples" },
        el("span", { class: "hint" }, "Try"), ...examples),
      el("div", { class: "actions", role: "group", "aria-label": "Write" },
        generate, stop, goOn, undo, redo, place)),
  );

  function update({ writing: busy, ids }) {
    const { at, of } = writing.place();
    const off = [[stop, !busy], [goOn, busy || ids.length < 2], [undo, busy || at < 2], [redo, busy || at >= of]];
    // none while a text streams
    const changed = off.filter(([control, value]) => control.disabled !== value);
    if (changed.length) {
      ptx.keepFocus(() => changed.forEach(([control, value]) => (control.disabled = value)),
        (held) => [held === undo ? redo : held === redo ? undo : stop, generate]);
    }
    place.textContent = of > 1 ? `text ${at} of ${of}` : "";
  }
  store.on(["writing", "ids", "tokens", "recording", "status"], update);
  update(store.state);

  writing.connect({ trigger, server, facts });
  watch("value", () => writing.take(props.value));
};
