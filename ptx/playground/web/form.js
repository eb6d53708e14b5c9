// A new run: what to learn from, the few settings that matter, and what they will cost.
ptx.trainingForm = ({ act }) => {
  const { el, number, axes } = ptx;
  let options = null;

  const field = (text, control, hint) =>
    el("label", { class: "field" }, el("span", {}, text), control, hint ? el("small", {}, hint) : "");
  const amount = (id, attributes) => el("input", { type: "number", id, ...attributes });

  const data = el("select", { id: "train-data" });
  const text = el("textarea", { id: "train-text", rows: "6", spellcheck: "false", placeholder: "Paste Python here, or choose a file." });
  const file = el("input", { type: "file", id: "train-file", accept: ".py,.txt,text/*", "aria-label": "Or a text file" });
  const textName = el("input", { type: "text", id: "train-text-name", value: "pasted", maxlength: "60" });
  const pasted = el("div", { class: "pasted", hidden: "" }, text, file, field("Name of this data", textName));
  const preset = el("select", { id: "train-preset" });
  const length = amount("train-length", { min: "1", step: "any" });
  const unit = el("select", { id: "train-unit", "aria-label": "Unit of the length" },
    el("option", { value: "steps" }, "steps"), el("option", { value: "minutes" }, "minutes"));
  const batch = amount("train-batch", { min: "1", max: "4096" });
  const rate = amount("train-rate", { min: "0.001", step: "any", value: "1" });
  const seed = amount("train-seed", { min: "0", value: "0" });
  const name = el("input", { type: "text", id: "train-name", maxlength: "60", placeholder: "numbered by itself" });
  const rates = el("small", {});
  const UNKNOWN = "Press Estimate first: it measures how many steps this machine takes a minute. Or give the length in steps.";
  const cost = el("p", { class: "cost", role: "status" });
  const advice = el("p", { class: "hint" });
  const time = el("button", { type: "button", class: "quiet", id: "train-estimate", title: "Measures speed and memory on this machine" }, "Estimate");
  const start = el("button", { type: "submit", class: "primary", id: "train-start" }, "Start training");
  const { node: problem, tell: complain } = ptx.problem();

  const rateField = field("Learning rate ×", rate, "1 is the recipe's; try 0.5 if the loss jumps");
  rateField.append(rates);
  const element = el("form", { class: "training-form", "aria-label": "A new run" },
    field("Learn from", data), pasted, field("Network", preset, "nano: minutes; mini: hours; small: for a GPU"),
    el("div", { class: "fields" },
      el("div", { class: "field" }, el("label", { for: "train-length" }, "Length"), el("span", { class: "pair" }, length, unit)),
      field("Batch size", batch, "sequences a step"),
      rateField, field("Seed", seed), field("Name of the run", name)),
    el("div", { class: "bar" }, cost, time), advice, problem, start);

  // ---- what can be chosen ----------------------------------------------------------------------

  function offer(found) {
    const first = !options;
    options = found;
    fill(preset, [["", Object.entries(options.presets).map(([key, p]) =>
      [key, `${key} · ${p.layers} layers, ${p.heads} heads, width ${p.width}`])]]);
    if (first) recipe();
    offerData();
    update();
  }

  function offerData() {
    fill(data, [
      ["Prepared data", options.data.map((d) => [`prepared:${d.name}`, `${d.name} · ${axes.short(d.tokens)} tokens`])],
      ["Prepare first", [
        ...(options.installed.includes(preset.value) ? [["installed:", "this machine's Python"]] : []),
        ...options.folders.map((folder) => [`folder:${folder}`, `folder ${folder}`]),
        ["text:", "text to paste or upload…"],
      ]],
    ]);
  }

  function fill(select, groups) {
    const current = JSON.stringify(groups);
    if (select.dataset.current === current) return;
    const before = select.value;
    select.dataset.current = current;
    select.replaceChildren(...groups.filter(([, items]) => items.length).flatMap(([title, items]) => {
      const nodes = items.map(([value, words]) => el("option", { value }, words));
      return title ? [el("optgroup", { label: title }, ...nodes)] : nodes;
    }));
    if ([...select.options].some((o) => o.value === before)) select.value = before;
  }

  // The preset's own numbers.
  function recipe() {
    const { steps, batch_size } = options.presets[preset.value];
    unit.value = "steps";
    length.value = steps;
    batch.value = batch_size;
    rate.value = 1;
  }

  // ---- what it costs ---------------------------------------------------------------------------

  const stepTokens = () => Number(batch.value) * options.presets[preset.value].context;
  const prepared = () => options.data.find((d) => `prepared:${d.name}` === data.value);
  const vocab = () => (prepared() ?? options.presets[preset.value]).vocab; // of the data
  const estimate = () => options.estimates[`${preset.value} ${vocab()}`];
  const speed = () => estimate()?.tokens_per_s;
  const steps = () =>
    unit.value === "steps"
      ? Number(length.value)
      : speed() ? Math.max(1, Math.round((Number(length.value) * 60 * speed()) / stepTokens())) : NaN;

  function update() {
    if (!options) return;
    pasted.hidden = data.value !== "text:";
    const chosen = options.presets[preset.value];
    const times = Number(rate.value) || 0;
    rates.textContent = [chosen.muon_lr && `matrices ${number(times * chosen.muon_lr, 5)}`, `${chosen.muon_lr ? "rest " : ""}${number(times * chosen.lr, 5)}`]
      .filter(Boolean).join(", ");
    const found = estimate();
    const tokens = steps() * stepTokens();
    const parts = [];
    if (unit.value === "minutes" && !found) {
      parts.push(UNKNOWN);
    } else if (Number.isFinite(tokens) && tokens > 0) {
      if (unit.value === "minutes") parts.push(`${number(steps())} steps`);
      parts.push(`${axes.short(tokens)} tokens`);
      if (prepared()) parts.push(`${number(tokens / prepared().tokens, 2)} epochs`);
      if (found?.tokens_per_s) {
        parts.push(`about ${axes.duration(tokens / found.tokens_per_s)} at ${number(Math.round(found.tokens_per_s))} tokens/s`);
      }
    }
    if (found) {
      parts.push(`${axes.short(found.parameters)} parameters`, `${number(found.memory_gib, 1)} GiB of memory${found.fits ? "" : ", more than is free"}`);
    }
    ptx.say(cost, parts.join(" · "));
    advice.textContent = found?.trouble ?? "";
    time.textContent = found ? "Estimate again" : "Estimate";
    start.textContent = data.value.startsWith("prepared:") ? "Start training" : "Prepare and train";
  }

  // ---- what a person does ----------------------------------------------------------------------

  element.addEventListener("input", update);
  data.addEventListener("change", update);
  preset.addEventListener("change", () => {
    recipe();
    offerData();
    update();
  });
  file.addEventListener("change", async () => {
    const chosen = file.files[0];
    if (!chosen) return;
    if (chosen.size > options.upload_bytes) {
      complain(`${chosen.name} has ${number(chosen.size)} bytes; this page takes ${number(options.upload_bytes)} at most.`);
      file.value = "";
      return;
    }
    complain(null);
    text.value = await chosen.text();
    textName.value = chosen.name.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 60) || "pasted";
  });

  let asking = false; // a disabled button would lose the focus
  async function request(what) {
    if (asking) return null;
    asking = true;
    const answer = await act(what);
    asking = false;
    complain(answer?.error ?? (answer ? null : "The page did not answer; try again."));
    return answer?.error ? null : answer;
  }

  time.addEventListener("click", () => request({ do: "estimate", preset: preset.value, vocab: vocab() }));
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [source, chosen] = [data.value.slice(0, data.value.indexOf(":")), data.value.slice(data.value.indexOf(":") + 1)];
    const many = steps();
    if (!Number.isFinite(many)) {
      complain(UNKNOWN);
      return;
    }
    const answer = await request({
      do: "start",
      data: source === "text" ? { source, name: textName.value, text: text.value } : { source, name: chosen },
      preset: preset.value,
      steps: Math.round(many),
      batch_size: Number(batch.value),
      rate: Number(rate.value),
      seed: Number(seed.value),
      name: name.value.trim(),
    });
    if (answer) name.value = "";
  });

  return {
    element,
    offer,
    busy: (yes) => (start.disabled = time.disabled = yes),
  };
};
