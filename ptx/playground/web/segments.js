// A choice of a few, all of them to be seen. options: [[value, label, explanation]].
ptx.segments = (label, options, choose) => {
  const { el } = ptx;
  const buttons = options.map(([value, name, title]) => {
    const press = () => {
      set(value);
      choose(value);
    };
    return [value, ptx.button(name, press, { class: null, "aria-pressed": "false", title: title ?? null })];
  });
  const node = el("div", { class: "segments", role: "group", "aria-label": label }, ...buttons.map(([, button]) => button));
  function set(value) {
    for (const [own, button] of buttons) button.setAttribute("aria-pressed", own === value);
  }
  set(options[0][0]);
  return { node, set };
};
