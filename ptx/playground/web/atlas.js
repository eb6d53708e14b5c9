// All heads small, a row for each layer: what each one does, which are pinned, which are muted.
// Pointing at one peeks at it, a click pins it; M mutes it.
ptx.atlas = () => {
  const { el, store, pins, attention } = ptx;
  const MUTED = 0.22; // of a picture's strength
  const node = el("div", { class: "atlas", role: "grid", "aria-label": "Attention of all heads" });
  // All pictures on one canvas behind the buttons: a browser composes each canvas by itself, and so
  // many take it longer than all else that it draws while a text streams.
  const canvas = el("canvas", { class: "pictures", "aria-hidden": "true" });
  const small = el("canvas", {}); // the pictures under each other, a pixel for each cell
  let image = null; // what is on it
  let cells = []; // {name, box, button, mute, label, looks} in the order of the pictures
  let shape = "";
  let drawn = {}; // {picture, from, rows, size, read, dark, muted}: what the pictures show
  let mark = null; // the row of the cursor in all of them, as a share of their height
  let frame = { width: 0, height: 0 };
  let places = []; // of the pictures in it: {x, y, size}
  let current = "0.0"; // the head that Tab comes to

  function build({ layers, heads }) {
    node.style.setProperty("--heads", heads);
    node.style.setProperty("--cell", layers > 6 ? "56px" : "66px"); // or the atlas would be too high
    const line = (role, ...children) => el("div", { role, class: "line" }, ...children);
    const numbers = Array.from({ length: heads }, (_, i) => i);
    cells = [];
    node.replaceChildren(
      line("row", el("span", { role: "columnheader", class: "corner", "aria-label": "layer" }),
        ...numbers.map((h) => el("span", { role: "columnheader" }, `H${h}`))),
      ...Array.from({ length: layers }, (_, layer) =>
        line("row", el("span", { role: "rowheader" }, `L${layer}`),
          ...numbers.map((head) => cell(`${layer}.${head}`)))),
      canvas,
    );
    current = "0.0";
    measure();
  }

  // Where the pictures are: within the buttons' borders.
  function measure() {
    frame = node.getBoundingClientRect();
    places = cells.map(({ button }) => {
      const box = button.getBoundingClientRect();
      return { x: box.left - frame.left + 1, y: box.top - frame.top + 1, size: Math.max(0, box.width - 2) };
    });
    show();
  }
  new ResizeObserver(measure).observe(node);

  function cell(name) {
    const button = el("button", { type: "button", class: "thumb", tabindex: "-1" });
    const mute = el("button", { type: "button", class: "mute", tabindex: "-1" }, "M");
    const label = el("span", { class: "role" });
    const box = el("div", { role: "gridcell", class: "head" }, button, mute, label);
    button.addEventListener("click", () => pins.toggle(name));
    mute.addEventListener("click", () => pins.mute(name));
    box.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && store.set({ peek: name }));
    box.addEventListener("pointerleave", () => store.set({ peek: null }));
    button.addEventListener("focus", () => {
      current = name;
      rove();
      if (button.matches(":focus-visible")) store.set({ peek: name });
    });
    button.addEventListener("blur", () => store.set({ peek: null }));
    cells.push({ name, box, button, mute, label });
    return box;
  }

  function rove() {
    for (const { name, button } of cells) button.tabIndex = name === current ? 0 : -1;
  }

  node.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "m" || event.key === "M") {
      event.preventDefault();
      pins.mute(current);
      return;
    }
    const heads = Number(node.style.getPropertyValue("--heads"));
    const [layer, head] = pins.place(current);
    const to = {
      ArrowLeft: [layer, head - 1], ArrowRight: [layer, head + 1], ArrowUp: [layer - 1, head],
      ArrowDown: [layer + 1, head], Home: [layer, 0], End: [layer, heads - 1],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    cells.find(({ name }) => name === to.join("."))?.button.focus();
  });

  // ---- drawing ---------------------------------------------------------------------------------

  // first: the row of the text from which on it is painted; what was before that stays.
  function paint({ side, rows, size, pixels }, first, anew) {
    const colors = ptx.packedColormap();
    if (anew) {
      Object.assign(small, { width: side, height: side * cells.length });
      image = new ImageData(side, side * cells.length);
    }
    // the lines of a picture that hold these rows
    const begin = Math.floor((first * side) / size);
    const end = Math.ceil((rows * side) / size);
    const values = new Uint32Array(image.data.buffer);
    const g = small.getContext("2d");
    for (let i = 0; i < cells.length; i += 1) {
      for (let y = begin; y < end; y += 1) {
        const from = (i * side + y) * side;
        for (let x = from; x <= from + y; x += 1) values[x] = colors[pixels[x]];
      }
      g.putImageData(image, 0, 0, 0, i * side + begin, side, end - begin);
    }
  }

  function show() {
    const g = ptx.fit(canvas, Math.ceil(frame.width), Math.ceil(frame.height));
    const { width: side } = small;
    g.imageSmoothingEnabled = false;
    g.save();
    g.beginPath();
    for (const { x, y, size } of places) g.roundRect(x, y, size, size, 3);
    g.clip();
    places.forEach(({ x, y, size }, i) => {
      g.globalAlpha = drawn.muted?.includes(cells[i].name) ? MUTED : 1;
      if (drawn.picture) g.drawImage(small, 0, i * side, side, side, x, y, size, size);
    });
    g.globalAlpha = 1;
    g.fillStyle = ptx.color("--color-accent");
    // where nothing is drawn: right of the diagonal
    for (const { x, y, size } of mark === null ? [] : places) {
      const left = Math.min(mark * size + 1, size - 5);
      g.fillRect(x + left, y + Math.floor(mark * size), size - left, 1);
    }
    g.restore();
  }

  // labels: name -> {text, title, sign} written under the pictures.
  function draw(picture, labels) {
    const { model, pinned, muted, peek } = store.state;
    if (!model) return;
    const wanted = `${model.key}|${model.layers}|${model.heads}`;
    if (wanted !== shape) {
      shape = wanted;
      drawn = {};
      mark = null;
      build(model);
      rove();
    }
    const { from, rows, size, read } = picture ?? {};
    const now = { picture, from, rows, size, read, dark: ptx.isDark(), muted };
    const differs = Object.keys(now).filter((key) => now[key] !== drawn[key]).join();
    const row = picture ? attention.cursor() - 1 - picture.start : -1;
    const marked = row >= 0 && row < rows ? (row + 0.5) / size : null;
    if (picture && (differs || marked !== mark)) {
      const grown = differs === "rows" && drawn.rows < rows;
      const first = grown ? drawn.rows : from;
      drawn = now;
      mark = marked;
      if (differs) paint(picture, first, !grown);
      show();
    }
    for (const one of cells) {
      const { name, box, button, mute, label } = one;
      const { text: own = "", title = "", sign = "" } = labels(name) ?? {};
      const looks = [own, title, sign, pinned.includes(name) && pins.colour(name), muted.includes(name), peek === name].join("|");
      if (one.looks === looks) continue;
      one.looks = looks;
      label.textContent = own;
      label.title = button.title = title;
      label.dataset.sign = sign;
      const isPinned = pinned.includes(name);
      const isMuted = muted.includes(name);
      button.setAttribute("aria-pressed", isPinned);
      button.setAttribute("aria-label", [`head ${name}`, own, isMuted && "muted"].filter(Boolean).join(", "));
      mute.setAttribute("aria-pressed", isMuted);
      mute.setAttribute("aria-label", `Mute head ${name}`);
      mute.title = isMuted ? "Let it write again (M)" : "Mute: it writes nothing (M)";
      box.classList.toggle("muted", isMuted);
      box.classList.toggle("pinned", isPinned);
      box.classList.toggle("peeked", peek === name);
      if (isPinned) box.style.setProperty("--hue", `var(${pins.colour(name)})`);
    }
  }

  return { node, draw };
};
