// The exact distribution of the next token after the knobs, over the full vocabulary: what
// ptx/sampling.py computes on the server, so that a knob moves the bars without asking it.
//
// The order is repetition penalty, dead tokens, temperature, top-k, top-p, min-p. Steps are rounded
// to fp32 where the server's are, because ties decide what is kept.
ptx.sampler = (() => {
  const f32 = Math.fround;
  const GREEDY = 1e-30; // temperature below which fp32 cannot tell it from 0
  // What can remove a token; `cut` holds 0, or 1 + the index here.
  const KNOBS = ["prompt", "python", "temperature", "top_k", "top_p", "min_p"];
  const [PROMPT, PYTHON, TEMPERATURE, TOP_K, TOP_P, MIN_P] = KNOBS.map((_, i) => i + 1);

  function entropy(probs) {
    let nats = 0;
    for (const p of probs) if (p > 0) nats -= p * Math.log(p);
    return nats / Math.LN2;
  }

  function largest(values) {
    let most = -Infinity;
    for (const value of values) if (value > most) most = value;
    return most;
  }

  function softmax(logits) {
    const most = largest(logits);
    const probs = new Float64Array(logits.length);
    let total = 0;
    for (let i = 0; i < probs.length; i += 1) total += probs[i] = Math.exp(logits[i] - most);
    for (let i = 0; i < probs.length; i += 1) probs[i] /= total;
    return probs;
  }

  function penalized(logits, penalty, ids) {
    const changed = logits.slice();
    for (const id of new Set(ids)) {
      const l = logits[id];
      changed[id] = l < 0 ? l * f32(penalty) : l / f32(penalty);
    }
    return changed;
  }

  // One choice of a token: the model's logits (V), a Float32Array, and the ids of the text before.
  // `raw` and `entropy` (bits) are before the knobs; `after(knobs)` is the same after them. dead: ids
  // with which the text could not become Python.
  function choice(logits, ids, dead = []) {
    const raw = softmax(logits);
    const whole = { raw, entropy: entropy(raw), rank, after };
    let prepared = null; // for the last {penalty, python}, with {logits, ascending}

    // 1 for the token that the model finds likeliest.
    function rank(token) {
      let before = 0;
      for (const l of logits) if (l > logits[token]) before += 1;
      return before + 1;
    }

    function prepare({ repetition_penalty: penalty, python }) {
      if (prepared?.penalty !== penalty || prepared.python !== python) {
        const changed = penalty === 1 ? logits.slice() : penalized(logits, penalty, ids);
        if (python) for (const id of dead) changed[id] = -Infinity;
        prepared = { penalty, python, logits: changed, ascending: changed.slice().sort() };
      }
      return prepared;
    }

    // Why a token may not come however likely it is.
    const ruledOut = (id) => (logits[id] === -Infinity ? PROMPT : PYTHON);

    // {final: probabilities (V), cut: (V) see KNOBS, left: tokens that may come,
    //  entropy: bits, removed: {knob: the probability before the knobs that it removed}}
    function after(knobs) {
      const found = knobs.temperature < GREEDY ? greedy(knobs) : sampled(knobs);
      const removed = {};
      let left = 0;
      found.cut.forEach((code, i) => {
        if (code) removed[KNOBS[code - 1]] = (removed[KNOBS[code - 1]] ?? 0) + raw[i];
        else left += 1;
      });
      return { ...found, left, removed, entropy: entropy(found.final) };
    }

    function greedy(knobs) {
      const changed = prepare(knobs).logits;
      const best = changed.indexOf(largest(changed));
      const final = new Float64Array(changed.length);
      final[best] = 1;
      const cut = Uint8Array.from(changed, (l, i) => (l === -Infinity ? ruledOut(i) : TEMPERATURE));
      cut[best] = 0;
      return { final, cut };
    }

    function sampled(knobs) {
      const { logits: changed, ascending } = prepare(knobs);
      const n = changed.length;
      const most = ascending[n - 1];
      const temperature = f32(knobs.temperature);
      const scale = (logit) => f32(f32(logit - most) / temperature);
      const scaled = Float32Array.from(changed, scale);

      // What each knob keeps is what is not below a threshold; equal tokens share their fate.
      const { top_k, top_p, min_p } = knobs;
      const kth = top_k > 0 && top_k < n ? scale(ascending[n - top_k]) : -Infinity;
      const pth = top_p < 1 ? leastOfTopP(ascending, scale, kth, top_p) : kth;
      const total = sumOfExp(scaled, Math.max(kth, pth));
      const least = f32(f32(min_p) * f32(1 / total));

      const final = new Float64Array(n);
      const cut = new Uint8Array(n);
      let sum = 0;
      for (let i = 0; i < n; i += 1) {
        const l = scaled[i];
        if (changed[i] === -Infinity) cut[i] = ruledOut(i);
        else if (l === -Infinity) cut[i] = TEMPERATURE;
        else if (l < kth) cut[i] = TOP_K;
        else if (l < pth) cut[i] = TOP_P;
        else {
          const weight = Math.exp(l);
          if (min_p > 0 && f32(weight / total) < least) cut[i] = MIN_P;
          else sum += final[i] = weight;
        }
      }
      for (let i = 0; i < n; i += 1) final[i] /= sum;
      return { final, cut };
    }

    return whole;
  }

  function sumOfExp(scaled, from) {
    let total = 0;
    for (const l of scaled) if (l >= from) total += Math.exp(l);
    return total;
  }

  // The smallest scaled logit that is needed to reach `top_p`: a token goes if it and all that are
  // less likely sum to 1 - top_p or less; the likeliest stays.
  function leastOfTopP(ascending, scale, kth, top_p) {
    const n = ascending.length;
    let total = 0;
    for (let i = n - 1; i >= 0; i -= 1) {
      const l = scale(ascending[i]);
      if (l < kth || l === -Infinity) break;
      total += Math.exp(l);
    }
    let rest = 1; // the probability of this token and all that are less likely
    let least = 0;
    for (let i = n - 1; i >= 0; i -= 1) {
      const l = scale(ascending[i]);
      if (i < n - 1 && rest <= 1 - top_p) break;
      if (l < kth) break;
      least = l;
      rest -= f32(Math.exp(l) / total);
    }
    return least;
  }

  return { KNOBS, choice };
})();
