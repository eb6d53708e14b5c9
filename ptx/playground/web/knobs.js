// Resolves, once the limits of the knobs are known, to what makes knobs from elsewhere fit them.
let fitted;
ptx.fitKnobs = new Promise((resolve) => (fitted = resolve));

// The knobs of sampling, each with what it does in plain words. They change the store at once.
ptx.knobs = ({ element, props }) => {
  const { el, store } = ptx;
  const { length, seed } = props.value;
  // [key, name, help, lowest, highest of the slider, step, highest of all]
  const KNOBS = [
    ["temperature", "Temperature", "Low is safe, high is wild; 0 always takes the likeliest token.", 0, 2, 0.05, 100],
    ["top_k", "Top-k", "Only so many of the likeliest tokens; 0 allows all.", 0, 200, 1, 1e6],
    ["top_p", "Top-p", "Only the likeliest tokens that together have this probability; 1 allows all.", 0.05, 1, 0.01, 1],
    ["min_p", "Min-p", "Only tokens at least this share as likely as the likeliest; 0 allows all.", 0, 1, 0.01, 1],
    ["repetition_penalty", "Repetition", "Above 1, tokens that the text has already become less likely; 1 is off.", 0.5, 2, 0.05, 100],
    ["length", "Length", "Stop after this many new tokens.", 1, length, 1, length],
    ["seed", "Seed", "The same seed writes the same text.", 0, null, 1, seed],
  ];
  const usual = store.state.knobs;
  store.set({ knobs: { ...usual, length: Math.min(length, usual.length) } });
  const defaults = { ...store.state.knobs };
  const shown = {}; // key: [inputs]
  const PYTHON = ["Only Python", "Draws again where Python's parser would give up."];

  const LEAST = { top_p: 0.001, repetition_penalty: 0.05 }; // the slider's lowest is more than that
  const least = (key, low) => LEAST[key] ?? low;
  const within = ([key, , , low, , step, most], value) =>
    Math.min(most, Math.max(least(key, low), step === 1 ? Math.round(value) : value));

  // What is no number stays as it is here.
  fitted((found) => ({
    ...Object.fromEntries(KNOBS.map((one) =>
      [one[0], Number.isFinite(found?.[one[0]]) ? within(one, found[one[0]]) : store.state.knobs[one[0]]])),
    python: found?.python === true,
  }));

  function change(key, value) {
    store.set({ knobs: { ...store.state.knobs, [key]: value } });
  }

  function knob(one) {
    const [key, name, help, low, high, step, most] = one;
    const id = key.replaceAll("_", "-");
    const number = el("input", {
      type: "number", min: least(key, low), max: most, step: "any",
      "aria-label": name, "aria-describedby": `${id}-help`, inputmode: "decimal",
    });
    const range = high === null ? null : el("input", {
      type: "range", min: low, max: high, step, "aria-label": `${name}, slider`, "aria-describedby": `${id}-help`,
    });
    const whole = step === 1;
    number.addEventListener("input", () => {
      const value = number.valueAsNumber;
      if (number.value !== "" && number.validity.valid) change(key, whole ? Math.round(value) : value);
    });
    // what cannot be is put right when the field is left
    number.addEventListener("change", () => {
      const value = number.valueAsNumber;
      if (Number.isFinite(value)) change(key, within(one, value));
      number.value = store.state.knobs[key];
    });
    range?.addEventListener("input", () => change(key, range.valueAsNumber));
    shown[key] = [number, range].filter(Boolean);
    return el("div", { class: "knob", id },
      el("label", {}, el("span", {}, name), number),
      range ?? again(),
      el("p", { id: `${id}-help` }, help));
  }

  function again() {
    return ptx.button("New seed", () => change("seed", Math.floor(Math.random() * 1e6)), { id: "new-seed" });
  }

  const only = el("input", { type: "checkbox", "aria-describedby": "python-help" });
  only.addEventListener("change", () => change("python", only.checked));

  const reset = ptx.button("Reset", () => store.set({ knobs: { ...defaults } }));
  element.replaceChildren(
    el("section", { class: "panel knobs-panel", "aria-label": "Knobs" },
      el("div", { class: "bar" }, el("h2", {}, "Knobs"),
        el("span", { class: "hint" }, "how the next token is drawn"), reset),
      el("div", { class: "knobs" }, ...KNOBS.map(knob),
        el("div", { class: "knob", id: "python" },
          el("label", {}, el("span", {}, PYTHON[0]), only),
          el("p", { id: "python-help" }, PYTHON[1])))),
  );

  function update({ knobs }) {
    only.checked = knobs.python;
    for (const [key, inputs] of Object.entries(shown)) {
      for (const input of inputs) {
        // nobody's typing is interrupted
        if (input.valueAsNumber !== knobs[key] && !(input.type === "number" && input === document.activeElement)) input.value = knobs[key];
      }
    }
  }
  store.on(["knobs"], update);
  update(store.state);
};
