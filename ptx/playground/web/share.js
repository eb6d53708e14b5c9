// Taking it with you: a link, the Python behind the screen, and what a picture shows as a file.
ptx.share = (() => {
  const { el, store } = ptx;

  function save(name, parts, type) {
    const href = URL.createObjectURL(new Blob(parts, { type }));
    const link = el("a", { href, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(href), 10_000);
  }

  const cell = (value) => {
    const text = String(value ?? "");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };

  // Rows of equal objects as CSV (RFC 4180).
  function csv(rows) {
    const names = Object.keys(rows[0] ?? {});
    return [names, ...rows.map((row) => names.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  // What a part of the page looks like, as a canvas: the browser itself draws a copy, in which every
  // style is written out and every canvas is an image.
  async function picture(node) {
    const { width, height } = node.getBoundingClientRect();
    const copy = node.cloneNode(true);
    const [before, after] = [node, copy].map((one) => [one, ...one.querySelectorAll("*")]);
    before.forEach((one, i) => {
      const style = getComputedStyle(one);
      after[i].removeAttribute("class");
      for (const name of style) after[i].style.setProperty(name, style.getPropertyValue(name));
    });
    before.forEach((one, i) => {
      if (one instanceof HTMLCanvasElement) {
        const image = el("img", { src: one.toDataURL(), style: after[i].style.cssText });
        after[i].replaceWith(image);
      } else if (one instanceof HTMLSelectElement) {
        after[i].replaceChildren(el("option", {}, one.selectedOptions[0]?.textContent ?? ""));
      } else if (one.classList.contains("exports")) {
        after[i].remove();
      }
    });
    copy.style.margin = "0";
    copy.setAttribute("xmlns", "http://www.w3.org/1999/xhtml");
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><foreignObject width="100%" height="100%">${new XMLSerializer().serializeToString(copy)}</foreignObject></svg>`;
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
    await image.decode();
    const canvas = el("canvas", {});
    const g = ptx.fit(canvas, Math.ceil(width), Math.ceil(height));
    g.fillStyle = ptx.color("--body-background-fill");
    g.fillRect(0, 0, width, height);
    g.drawImage(image, 0, 0);
    return canvas;
  }

  // Buttons that save a part of the page as a picture, and its numbers.
  // node: () => the part, or null if there is no picture; rows: () => its numbers, a list of equal
  // objects, or a promise of one.
  function exports(name, node, rows) {
    const button = (label, title, call) => ptx.button(label, call, { class: "quiet export", title });
    const png = async () => {
      const canvas = await picture(node());
      canvas.toBlob((blob) => blob && save(`${name}.png`, [blob], "image/png"));
    };
    const table = async () => save(`${name}.csv`, [csv(await rows())], "text/csv");
    const json = async () => save(`${name}.json`, [JSON.stringify(await rows(), null, 1)], "application/json");
    return el("span", { class: "exports", role: "group", "aria-label": `Save ${name}` },
      button("PNG", `Save ${name} as a picture`, png),
      button("CSV", `Save the numbers of ${name} as a table`, table),
      button("JSON", `Save the numbers of ${name} as JSON`, json));
  }

  // The text, a line of JSON for each token.
  function lines() {
    const { tokens, prompt, model } = store.state;
    const rows = tokens.map(({ id, text, p, bits, refused }, i) =>
      JSON.stringify({
        index: i, id, text, prompt: i < prompt, probability: p ?? null, bits: bits ?? null,
        refused: (refused ?? []).map(([, own]) => own),
      }));
    save(`${model.name.replaceAll("/", "-")}.jsonl`, [rows.join("\n") + "\n"], "application/jsonl");
  }

  function briefly(button, words) {
    button.dataset.label ??= button.textContent;
    button.textContent = words;
    setTimeout(() => (button.textContent = button.dataset.label), 1500);
  }

  const copyFrom = async (button, text) => briefly(button, await ptx.copy(text));

  // A window with code to copy.
  function show(title, code) {
    const copy = ptx.button("Copy", () => copyFrom(copy, code));
    const close = ptx.button("Close", () => dialog.close());
    const dialog = el("dialog", { class: "code-window", "aria-label": title },
      el("div", { class: "bar" }, el("h2", {}, title), copy, close), el("pre", { class: "code", tabindex: "0" }, ...ptx.colored(code)));
    dialog.addEventListener("close", () => dialog.remove());
    document.querySelector(".gradio-container").append(dialog);
    dialog.showModal();
  }

  // What the header offers.
  function buttons(say) {
    const link = ptx.button("Copy link", async () => {
      const { href, error } = await ptx.link.address();
      say(error ?? "");
      if (!href) return;
      history.replaceState(null, "", href);
      copyFrom(link, href);
    }, { id: "copy-link", title: "A link that opens this picture" });
    const code = () => ptx.python(store.state, ptx.writing.written(), ptx.writing.origin());
    return [link, ptx.button("Python", () => show("The Python behind this page", code()),
      { id: "show-python", title: "The lines of Python that compute what you see" })];
  }

  return { exports, lines, buttons, copyFrom };
})();
