// Heads that are pinned or muted, and the colour that a pinned one has in every picture.
ptx.pins = (() => {
  const { store } = ptx;
  const MOST = 4;
  const given = store.state.pinned; // before a person or a link chose any
  let slots = []; // the pinned head of each colour

  // A head keeps its colour as long as it is pinned.
  function settle({ pinned }) {
    slots = slots.map((name) => (pinned.includes(name) ? name : null));
    for (const name of pinned) {
      if (slots.includes(name)) continue;
      const free = slots.indexOf(null);
      if (free < 0) slots.push(name);
      else slots[free] = name;
    }
  }

  const toggled = (list, name) =>
    list.includes(name) ? list.filter((other) => other !== name) : [...list, name];

  return {
    chosen: () => store.state.pinned !== given,
    // A fifth head takes the place of the one that was pinned first.
    toggle: (name) => store.set({ pinned: toggled(store.state.pinned, name).slice(-MOST) }),
    mute: (name) => store.set({ muted: toggled(store.state.muted, name) }),
    // [layer, head] of a name.
    place: (name) => name.split(".").map(Number),
    // In words, of those that are muted.
    without: (muted) => `without head${muted.length === 1 ? "" : "s"} ${muted.join(", ")}`,
    // The name of a CSS variable.
    colour(name) {
      settle(store.state);
      const slot = slots.indexOf(name);
      return slot < 0 ? "--head-peek" : `--head-${slot + 1}`;
    },
    // Those in all pictures of the moment: the one pointed at, or else all pinned.
    shown: ({ peek, pinned }) => (peek ? [peek] : pinned),
  };
})();
