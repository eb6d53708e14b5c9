// Next token: what could stand at the cursor, before the knobs and after them, and what each knob
// cut. Computed here, over the full vocabulary, so that the bars follow a knob at once.
ptx.bench = ({ element }) => {
  const { el, percent, store, sampler } = ptx;
  const ROWS = 12; // of the likeliest tokens; then the chosen one if it is not among them, and the rest
  const CUT = {
    prompt: "the prompt",
    python: "Python's parser",
    temperature: "temperature 0",
    top_k: "top-k",
    top_p: "top-p",
    min_p: "min-p",
  };

  const where = el("span", { class: "hint" });
  const rows = Array.from({ length: ROWS + 1 }, row);
  const rest = row(true);
  const summary = store.quietly(el("p", { class: "summary", role: "status" }));
  const list = el("div", { class: "tokens", role: "group", "aria-label": "Tokens that could come" },
    el("div", { class: "head", "aria-hidden": "true" },
      el("span", {}, "token"), el("span", {}, "model"), el("span", {}, "after the knobs"), el("span", {}, "cut by")),
    ...rows.map(({ node }) => node), rest.node);
  element.replaceChildren(
    el("section", { class: "panel bench-panel", "aria-label": "Next token" },
      el("div", { class: "bar" }, el("h2", {}, "Next token"), where,
        ptx.share.exports("next-token", () => element.firstElementChild, numbers)),
      list, summary,
      el("p", { class: "hint" }, "Click a token, or press Enter on it, and the text goes on from it; Undo brings this one back.")),
  );
  ptx.showsLook(element);

  function row(still = false) {
    const name = el("code", {});
    const raw = bar("raw");
    const final = bar("final");
    const cut = el("span", { class: "cut" });
    const node = el(still ? "div" : "button", { class: still ? "candidate" : "candidate none", type: still ? null : "button", "aria-disabled": still ? null : "true" }, name, raw.node, final.node, cut);
    const one = { node, name, raw, final, cut, token: null, look: null };
    if (still) return one;
    node.addEventListener("click", () => node.ariaDisabled !== "true" && ptx.writing.branch(one.token, one.look.at));
    // a key that is held must not choose what comes next, too
    node.addEventListener("keydown", (event) => event.repeat && event.key === "Enter" && event.preventDefault());
    return one;
  }

  // Marked and not disabled, which would take the focus from a bar while its text goes on. Nothing
  // comes after an end, and nothing can be said of a bar that is about to be another token's.
  function allow({ node, token, look: its }, usable) {
    const known = token !== null && token !== store.state.model?.eot && its === look;
    node.ariaDisabled = String(!known || !usable);
  }

  function bar(kind) {
    const fill = el("i", {});
    const value = el("b", {});
    const node = el("span", { class: `share ${kind}` }, el("span", { class: "track" }, fill), value);
    return {
      node,
      show(p) {
        fill.style.width = `${100 * p}%`;
        value.textContent = percent(p);
      },
    };
  }

  // ---- the numbers -----------------------------------------------------------------------------

  let look = null;
  let choice = null; // of `look`
  let names = null; // {id: text} of the likeliest

  function take(answer) {
    look = answer;
    const ids = new Int32Array(ptx.bytes(look.sharp.ids).buffer);
    names = new Map(Array.from(ids, (id, i) => [id, look.names[i]]));
    const token = store.state.tokens[look.at];
    const dead = token?.id === look.token ? token.dead : null;
    choice = sampler.choice(ptx.logits(look), look.ids, dead ?? []);
  }

  // Whether the bars are about the text at hand: only then can it go on from one of them.
  function fits({ look: answer, ids }) {
    return Boolean(answer) && answer === look && look.ids.every((id, i) => id === ids[i]);
  }

  // The likeliest tokens, and the chosen one.
  function shown() {
    const likeliest = [...names.keys()].slice(0, ROWS);
    const beyond = look.token !== null && !likeliest.includes(look.token);
    return [...likeliest, ...Array(ROWS - likeliest.length).fill(null), beyond ? look.token : null];
  }

  const nameOf = (id) => (id === look.token ? look.text : names.get(id));

  function draw() {
    const after = choice.after(store.state.knobs);
    const tokens = shown();
    tokens.forEach((id, i) => drawRow(rows[i], id, after));
    drawRest(tokens.filter((id) => id !== null), after);
    drawSummary(after);
    const { muted } = store.state;
    const at = look.token === null ? "at the end of the text" : `for token ${ptx.number(look.at)}`;
    where.textContent = muted.length ? `${at}, ${ptx.pins.without(muted)}` : at;
  }

  function drawRow(one, id, after) {
    one.token = id;
    one.look = look;
    one.node.classList.toggle("none", id === null);
    allow(one, fits(store.state));
    if (id === null) return;
    const chosen = id === look.token;
    const reason = after.cut[id] ? CUT[sampler.KNOBS[after.cut[id] - 1]] : "";
    const label = labelOf(nameOf(id), id);
    one.name.textContent = label;
    one.raw.show(choice.raw[id]);
    one.final.show(after.final[id]);
    const rank = chosen && look.rank !== null ? look.rank : choice.rank(id); // from all logits, exactly
    const place = rank > ROWS ? `chosen, rank ${ptx.number(rank)}` : "chosen";
    one.cut.textContent = [reason, chosen ? `◂ ${place}` : ""].filter(Boolean).join(" ");
    one.node.classList.toggle("chosen", chosen);
    one.node.classList.toggle("gone", Boolean(reason));
    one.node.setAttribute("aria-label",
      `${label}: model ${percent(choice.raw[id])} percent, after the knobs ${percent(after.final[id])} percent${reason ? `, cut by ${reason}` : ""}${chosen ? `, ${place}` : ""}`);
  }

  function labelOf(text, id) {
    if (id === store.state.model?.eot) return "⟨end of text⟩";
    return text ? ptx.visible(text, 24) : `token ${id}`;
  }

  function drawRest(tokens, after) {
    const sum = (probs) => Math.max(0, 1 - tokens.reduce((total, id) => total + probs[id], 0));
    rest.name.textContent = `${ptx.number(choice.raw.length - tokens.length)} more`;
    rest.raw.show(sum(choice.raw));
    const among = after.left - tokens.filter((id) => !after.cut[id]).length;
    rest.final.show(among ? sum(after.final) : 0); // what rounding leaves is none
    rest.cut.textContent = among ? `${ptx.number(among)} may come` : "none may come";
  }

  function drawSummary({ left, entropy, removed }) {
    const cut = Object.entries(removed).filter(([, mass]) => mass > 0)
      .map(([knob, mass]) => `${CUT[knob]} ${percent(mass)} %`);
    const mass = Object.values(removed).reduce((total, one) => total + one, 0);
    summary.replaceChildren(
      fact("may come", `${ptx.number(left)} of ${ptx.number(choice.raw.length)}`),
      fact("entropy", `${choice.entropy.toFixed(2)} → ${entropy.toFixed(2)} bits`),
      fact("cut off", cut.length ? `${percent(mass)} %${cut.length > 1 || mass ? ` (${cut.join(", ")})` : ""}` : "nothing"),
    );
    summary.title = "Entropy: how many bits of a choice there are, before and after the knobs. Cut off: the probability of what the knobs removed.";
  }

  const fact = (name, value) => el("span", {}, el("small", {}, name), ` ${value}`);

  // All the likeliest, for a file.
  function numbers() {
    if (!choice) return [];
    const after = choice.after(store.state.knobs);
    return [...names].map(([id, text]) => ({
      position: look.at, id, text, raw: choice.raw[id], final: after.final[id],
      cut_by: after.cut[id] ? sampler.KNOBS[after.cut[id] - 1] : "", chosen: id === look.token,
    }));
  }

  // ---- together --------------------------------------------------------------------------------

  let asked = false;
  function redraw() {
    if (asked || !choice) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      if (choice) draw();
    });
  }

  // An answer about another position is out of date, but better than bars that vanish.
  function update({ look: answer }) {
    if (answer && answer !== look) take(answer);
    redraw();
  }

  store.on(["look", "knobs"], update);
  store.on(["look", "ids"], (state) => {
    const usable = fits(state);
    for (const one of rows) allow(one, usable);
  });
  // an older answer is shown as such until the new one comes
  store.on(["cursor", "look", "writing"], ({ cursor, look: answer, writing }) =>
    list.classList.toggle("old", !writing && answer !== null && answer.at !== cursor));
  if (store.state.look) update(store.state);
};
