// Why this token: what the layers would have said, and which heads and MLPs lifted its logit above
// another's.
ptx.why = ({ element }) => {
  const { el, percent, store } = ptx;
  const LISTED = 30; // likeliest tokens to compare with
  const NAMED = 3; // parts named in words
  const HEALED = "The prompt ended inside a token: this one was drawn among all ways to cut that end. The layers here read one of them.";

  const against = el("select", { "aria-label": "Compare with" });
  const title = el("span", { class: "why-title" });
  const says = store.quietly(el("p", { class: "readout", role: "status" }));
  const layers = el("table", { class: "lens" });
  const parts = ptx.parts({ tell: (part) => tell(part) });
  const healed = el("span", { class: "hint", title: HEALED });
  element.replaceChildren(
    el("section", { class: "panel why-panel", "aria-label": "Why this token" },
      el("div", { class: "bar" }, el("h2", {}, "Why this token"), title, healed),
      says,
      el("div", { class: "why-body" },
        el("div", { class: "why-lens" }, el("h3", {}, "What each layer would say"), layers),
        el("div", { class: "why-parts" },
          el("div", { class: "bar" }, el("h3", {}, "What lifted it above"), against), parts.node,
          el("div", { class: "bar save" }, el("span", { class: "hint" }, "Blue lifts, orange lowers."),
            ptx.share.exports("why", () => element.firstElementChild, numbers))))),
  );
  ptx.showsLook(element);

  let look = null;
  let options = "";
  let cell = null; // of the parts, under the pointer or the arrow keys

  const token = (text, longest = 16) => el("code", {}, ptx.visible(text, longest));

  // The layers and the parts, for a file: logits of the parts, probabilities of the layers.
  function numbers() {
    if (!look) return [];
    const { lens, parts: sum, at } = look;
    const row = (kind, layer, head, value, rank = "", text = "") => ({ position: at, kind, layer, head, value, rank, text });
    return [
      ...lens.prob.map((p, i) => row("layer", i - 1, "", p, lens.rank[i], lens.tokens[i][0].text)),
      row("embedding", "", "", sum.embedding),
      ...sum.heads.flatMap((heads, layer) => heads.map((value, head) => row("head", layer, head, value))),
      ...sum.mlps.map((value, layer) => row("MLP", layer, "", value)),
      row("biases", "", "", sum.biases),
      row("total", "", "", sum.total, "", `${sum.token.text} above ${sum.against.text}`),
    ];
  }

  // ---- layer by layer ----------------------------------------------------------------------------

  const row = (name) => {
    const chips = el("td", { class: "guesses" });
    const bar = el("div", { class: "prob" }, el("i", {}), el("span", {}));
    const rank = el("td", { class: "rank" });
    return { node: el("tr", {}, el("th", { scope: "row" }, name), chips, el("td", {}, bar), rank), chips, bar, rank };
  };
  const followedName = el("span", {});
  let rows = [];

  function buildRows(count) {
    rows = Array.from({ length: count + 1 }, (_, i) => row(i ? `L${i - 1}` : "embed"));
    layers.replaceChildren(
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "after"), el("th", { scope: "col" }, "likeliest"),
        el("th", { scope: "col" }, followedName), el("th", { scope: "col", class: "rank" }, "rank"))),
      el("tbody", {}, ...rows.map(({ node }) => node)),
    );
  }

  function drawLayers({ tokens, prob, rank, followed }) {
    if (rows.length !== tokens.length) buildRows(tokens.length - 1);
    followedName.replaceChildren(token(followed.text, 10));
    rows.forEach(({ chips, bar, rank: cellOfRank }, i) => {
      chips.replaceChildren(...tokens[i].map(({ id, text, p }) =>
        el("span", { class: id === followed.id ? "guess followed" : "guess", style: `--p: ${(100 * Math.sqrt(p)).toFixed(0)}%`, title: `${ptx.visible(text)} ${percent(p)} %` }, ptx.visible(text, 12))));
      bar.firstChild.style.width = `${(100 * prob[i]).toFixed(1)}%`;
      bar.lastChild.textContent = `${percent(prob[i])} %`;
      cellOfRank.textContent = ptx.number(rank[i]);
      cellOfRank.classList.toggle("first", rank[i] === 1);
    });
  }

  // ---- compared with -----------------------------------------------------------------------------

  function drawOptions({ sharp, names, parts: { token: chosen, against: other } }) {
    const ids = Array.from(new Int32Array(ptx.bytes(sharp.ids).buffer).slice(0, LISTED));
    const listed = ids.map((id, i) => [id, names[i]]).filter(([id]) => id !== chosen.id);
    if (!listed.some(([id]) => id === other.id)) listed.push([other.id, other.text]);
    const made = JSON.stringify([listed, chosen.id]);
    if (made !== options) {
      options = made;
      against.replaceChildren(...listed.map(([id, text], i) =>
        el("option", { value: id }, `${ptx.visible(text, 16)}${i ? "" : " (best other)"}`)));
    }
    against.value = other.id;
  }

  against.addEventListener("change", () => store.set({ against: Number(against.value) }));

  // ---- in words --------------------------------------------------------------------------------

  // The first layer from which on the followed token is the likeliest.
  function settledAt({ rank }) {
    let from = rank.length;
    while (from && rank[from - 1] === 1) from -= 1;
    return from === rank.length ? null : from;
  }

  function words() {
    const { lens, parts: { token: chosen, against: other, heads, mlps, total } } = look;
    const layer = settledAt(lens);
    const when = layer === null ? "no layer makes it the likeliest" : layer === 0 ? "it is the likeliest from the embedding on" : `it is the likeliest from layer ${layer - 1} on`;
    const all = [
      ...heads.flatMap((row, l) => row.map((value, h) => [`head ${l}.${h}`, value])),
      ...mlps.map((value, l) => [`MLP ${l}`, value]),
    ].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, NAMED);
    return [
      token(chosen.text), `: ${when}; in the end ${compared(total)} `, token(other.text),
      `. The largest parts: ${all.map(([name, value]) => `${name} ${ptx.signed(value)}`).join(", ")}.`,
    ];
  }

  // A difference of logits as odds.
  function compared(total) {
    const odds = Math.exp(Math.abs(total));
    if (odds < 1.05) return "just as likely as";
    const times = odds >= 1e6 ? odds.toExponential(0) : odds < 10 ? odds.toFixed(1) : ptx.number(Math.round(odds));
    return total > 0 ? `${times} times as likely as` : `${times} times less likely than`;
  }

  function tell(part) {
    cell = part;
    if (look) read();
  }

  function read() {
    says.replaceChildren(...(cell ? [`${cell.name}: `, el("b", {}, ptx.signed(cell.value)), ` to the logit of `, token(look.parts.token.text), " less that of ", token(look.parts.against.text)] : words()));
  }

  // ---- together --------------------------------------------------------------------------------

  function draw({ look: answer, cursor, ids, model, muted }) {
    if (!answer) {
      if (model && rows.length !== model.layers + 1) buildRows(model.layers);
      if (model) parts.reserve(model);
      return;
    }
    look = answer;
    title.replaceChildren(
      answer.token === null ? "what comes next, likeliest " : "", token(answer.parts.token.text),
      el("small", {}, cursor < ids.length || answer.token !== null ? ` ${answer.at}` : ""),
    );
    drawLayers(answer.lens);
    drawOptions(answer);
    parts.draw(answer.parts);
    healed.textContent = [
      answer.healed && "drawn with the prompt's end open", // HEALED on hover
      muted.length && ptx.pins.without(muted),
    ].filter(Boolean).join(", ");
    read();
  }

  store.on(["look", "model"], draw);
  draw(store.state);
};
