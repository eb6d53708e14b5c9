// Attention drawn over the text itself: from the token at the cursor to where it was chosen from.
ptx.lines = () => {
  const { store, pins } = ptx;
  const MOST = 12; // lines of all heads together
  const LEAST = 0.02; // of the largest weight that there can be
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "attention-lines");
  svg.setAttribute("aria-hidden", "true");
  const group = make("g", {}); // goes with the text as it scrolls
  svg.append(group);
  let code = null; // the text's element, with its listeners
  let on = true;
  let due = false;
  let drawn = { top: 0, height: 0 }; // the text's, when the lines were drawn

  function make(tag, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function find() {
    const found = document.querySelector("#text-panel pre.code");
    if (!found || found === code) return Boolean(found);
    code = found;
    code.addEventListener("scroll", scrolled, { passive: true });
    new ResizeObserver(draw).observe(code);
    return true;
  }

  // The strongest of all heads in the picture: {name, from, to, weight, share}.
  function strongest() {
    const found = [];
    for (const name of pins.shown(store.state)) {
      const row = ptx.attention.atCursor(name);
      if (!row) continue;
      const most = store.state.view === "weighted" ? Math.max(...row.weights) : 1;
      row.weights.forEach((weight, k) => {
        const share = most ? weight / most : 0;
        if (share >= LEAST) found.push({ name, to: row.start + k, weight, share });
      });
    }
    return found.sort((a, b) => b.share - a.share).slice(0, MOST);
  }

  // Where a token is, within the text's frame; the first of its boxes, as it may break over lines.
  function boxOf(index, frame) {
    const token = code.querySelector(`.token[data-i="${index}"]`);
    const seen = token && [...token.getClientRects()].find((box) => box.width > 0);
    const box = seen ?? token?.getClientRects()[0];
    return box && {
      x: box.left - frame.left, y: box.top - frame.top, width: Math.max(2, box.width), height: box.height,
    };
  }

  function caret(frame) {
    const box = code.querySelector(".caret")?.getClientRects()[0];
    if (box) return { x: box.left - frame.left, y: box.top - frame.top, width: 2, height: box.height };
    const last = boxOf(store.state.ids.length - 1, frame);
    return last && { ...last, x: last.x + last.width, width: 2 };
  }

  function draw() {
    if (!find()) return;
    if (svg.parentElement !== code.parentElement) code.parentElement.append(svg);
    const cursor = ptx.attention.cursor();
    const { clientWidth: width, clientHeight: height } = code;
    Object.assign(svg.style, { left: `${code.offsetLeft}px`, top: `${code.offsetTop}px`, width: `${width}px`, height: `${height}px` });
    const frame = code.getBoundingClientRect();
    const from = on && cursor ? (boxOf(cursor, frame) ?? caret(frame)) : null;
    const found = from && width ? strongest() : [];
    drawn = { top: code.scrollTop, height: code.scrollHeight };
    group.setAttribute("transform", "translate(0 0)");
    group.replaceChildren(...found.reverse().flatMap((line) => {
      const to = boxOf(line.to, frame);
      return to ? picture(from, to, line) : [];
    }));
  }

  function picture(from, to, { name, to: index, weight, share }) {
    const hue = `var(${pins.colour(name)})`;
    const facts = { "data-head": name, "data-to": index, "data-weight": weight.toFixed(4) };
    const box = make("rect", {
      x: to.x, y: to.y, width: to.width, height: to.height, rx: 2, class: "target", style: `fill: ${hue}`,
      "fill-opacity": (0.1 + 0.35 * share).toFixed(3),
    });
    const [x, y] = [from.x + Math.min(from.width, 14) / 2, from.y + from.height / 2];
    const [u, v] = [to.x + Math.min(to.width, 40) / 2, to.y + to.height / 2];
    // bowed to the side, so that lines along one row or one column stay apart from the text
    const bow = Math.abs(y - v) < 4 ? `${(x + u) / 2} ${y - Math.min(26, 8 + Math.abs(x - u) / 6)}`
      : `${Math.max(x, u) + 18} ${(y + v) / 2}`;
    const line = make("path", {
      d: `M ${x} ${y} Q ${bow} ${u} ${v}`, class: "line", style: `stroke: ${hue}`,
      "stroke-width": (0.8 + 3.2 * share).toFixed(2), "stroke-opacity": (0.25 + 0.6 * share).toFixed(3), ...facts,
    });
    return [box, line];
  }

  // Once a frame, however often the text is scrolled. Blocks that come into sight may be higher than
  // guessed; of a text that streams the heads' next picture is soon enough.
  function scrolled() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      const { writing, following } = store.state;
      if (code.scrollHeight !== drawn.height && !(writing && following)) draw();
      else group.setAttribute("transform", `translate(0 ${drawn.top - code.scrollTop})`);
    });
  }

  return {
    draw,
    toggle(value) {
      on = value;
      draw();
    },
  };
};
