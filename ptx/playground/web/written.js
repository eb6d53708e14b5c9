// The texts that a run wrote while it learnt: those of the newest step, and the earlier ones folded.
ptx.written = () => {
  const { el, number } = ptx;
  const element = el("div", { class: "samples" });

  // The nodes of a text, of which what the model wrote is marked.
  function marked(nodes, from) {
    let at = 0;
    return nodes.flatMap((node) => {
      const cut = Math.min(Math.max(from - at, 0), node.textContent.length);
      at += node.textContent.length;
      const own = node.cloneNode(true);
      own.textContent = node.textContent.slice(0, cut);
      node.textContent = node.textContent.slice(cut);
      return [own, el("span", { class: "new" }, node)].filter((part) => part.textContent);
    });
  }

  // history: as `ptx.histories` knows it, if anything is known.
  function show(run, history) {
    const texts = history?.texts ?? [];
    const current = `${run} ${history?.read?.texts}`;
    if (element.dataset.current === current) return;
    element.dataset.current = current;
    const newest = texts.at(-1)?.step;
    const figure = ({ step, prompt, text }) => {
      const code = el("pre", { class: "code", tabindex: "0" });
      code.append(...marked(ptx.colored(prompt + text), prompt.length));
      return el("figure", {}, el("figcaption", {}, `written at step ${number(step)}`), code);
    };
    const [now, before] = [true, false].map((fresh) =>
      texts.filter(({ step }) => (step === newest) === fresh).reverse().map(figure));
    const open = element.querySelector("details")?.open;
    element.replaceChildren(el("div", { class: "texts" }, ...now));
    if (!before.length) return;
    element.append(el("details", { class: "output", open: open ? "" : null },
      el("summary", {}, "Earlier texts"), el("div", { class: "texts" }, ...before)));
  }

  return { element, show };
};
