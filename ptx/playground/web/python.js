// The few lines of Python that compute what is on the screen.
ptx.python = (() => {
  // A string as Python writes it; JSON's escapes are Python's, but for characters of two halves.
  const string = (text) => JSON.stringify(text).replace(/[\u{7f}-\u{10ffff}]/gu, (char) => {
    const code = char.codePointAt(0).toString(16);
    return code.length > 4 ? `\\U${code.padStart(8, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
  const pair = (name) => `(${name.replace(".", ", ")})`;

  function numbers(list) {
    const lines = [];
    for (let i = 0; i < list.length; i += 14) lines.push(`    ${list.slice(i, i + 14).join(", ")},`);
    return `[\n${lines.join("\n")}\n]`;
  }

  function sampling({ temperature, top_k, top_p, min_p, repetition_penalty, python }) {
    const kept = python ? ", python=True" : "";
    return `ptx.Sampling(temperature=${temperature}, top_k=${top_k}, top_p=${top_p}, min_p=${min_p}, repetition_penalty=${repetition_penalty}${kept})`;
  }

  // origin: the knobs that wrote the text from what was typed, null if a person had a hand in it.
  function text({ ids }, written, origin) {
    const again = origin && [
      "# how it was written: the same seed writes the same text",
      `text = ptx.generate(model, tokenizer, ${string(written)}, ${sampling(origin)}, ptx.Limits(${origin.length}), seed=${origin.seed})`,
      "for step in text:",
      '    print(step.text, end="")',
      "",
    ];
    return [...(again ?? []), "# its tokens, the start of every text first", `ids = ${numbers(ids)}`, "print(tokenizer.text(ids))"];
  }

  function cursor({ ids, tokens, cursor: at, muted, pinned, look, knobs }) {
    const start = ptx.store.visibleFrom(at);
    const mute = muted.length ? `, lens.Mute(heads=(${muted.map((name) => `${pair(name)}, `).join("").trimEnd()}))` : "";
    const token = at < ids.length ? `ids[${at}]` : "None";
    const against = look?.at === at && look.parts ? look.parts.against.id : null;
    const healed = look?.at === at && look.healed;
    return [
      "# the cursor: what the model saw, and what could have come",
      ...(healed ? [
        "# The page weighed every way to cut the open end of the prompt into tokens; this takes the",
        "# tokens before the cursor as they are, so that its numbers differ from the bars there.",
      ] : []),
      ...(knobs.python && tokens[at]?.dead ? [
        "# The page's bars leave out what Python's parser refused here; this does not.",
      ] : []),
      `sampling = ${sampling(knobs)}`,
      `seen = lens.trace(model, ids[${start}:${at}]${mute})`,
      `choice = ptx.Choice(seen.logits[-1], sampling, ids[:${at}])`,
      "for option in choice.top(12):",
      "    print(repr(tokenizer.text([option.token])), option.raw, option.final, option.cut_by)",
      'print("entropy", choice.entropy, "tail", choice.tail_mass)',
      "",
      "# where the pinned heads looked",
      `for layer, head in [${pinned.map(pair).join(", ")}]:`,
      "    print(layer, head, seen.attention[layer, head, -1])",
      "",
      "# what each layer would have said, and who lifted the token over another",
      `found = lens.logit_lens(model, seen, token=${token})`,
      "print(found.rank, found.prob)",
      `parts = lens.attribution(model, seen, found.token, against=${against ?? "None"})`,
      "print(parts.heads, parts.mlps, parts.total)",
    ];
  }

  return (state, written, origin) => {
    const onHub = state.model.key.startsWith("hub:");
    const path = string(state.about.path);
    const load = `model, tokenizer, info = ptx.load_model(${onHub ? `hub_model(${path})` : path})`;
    const imports = ["import ptx", "from ptx import lens", ...(onHub ? ["from ptx.hub import hub_model"] : [])];
    const lines = [...imports, "", load, "", ...text(state, written, origin)];
    if (state.cursor !== null) lines.push("", ...cursor(state));
    return `${lines.join("\n")}\n`;
  };
})();
