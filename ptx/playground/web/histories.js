// What is known of the runs: columns of figures that grow, thinned where a chart has no room for them,
// and the texts that a run wrote.
ptx.histories = () => {
  const KEPT = 8000; // points of a curve; up to twice as many before they are thinned
  const WATCHED = ["bpb", "val_bpb", "grad_norm", "tokens_per_s"];
  const known = new Map(); // key -> {epoch, train, val, read, settings, latest, texts}

  // More of a run, as the server sends it; returns whether anything of it is new.
  function add(key, part) {
    let history = known.get(key);
    const fresh = !history || history.epoch !== part.epoch;
    if (fresh) {
      history = { epoch: part.epoch, train: {}, val: {}, texts: [], settings: part.settings ?? {} };
      known.set(key, history);
    }
    for (const curve of ["train", "val"]) history[curve] = extended(history[curve], part[curve]);
    history.read = part.read;
    history.latest = part.latest;
    history.texts = [...history.texts, ...part.texts].slice(-8);
    return fresh || part.train.step.length > 0 || part.val.step.length > 0 || part.texts.length > 0;
  }

  function extended(columns, more) {
    const last = columns.step?.at(-1) ?? -Infinity;
    const start = more.step.findIndex((step) => step > last); // two answers may overlap
    for (const [name, values] of Object.entries(more)) {
      columns[name] ??= [];
      if (start >= 0) for (let i = start; i < values.length; i += 1) columns[name].push(values[i]);
    }
    return columns.step.length > 2 * KEPT ? thinned(columns) : columns;
  }

  // About KEPT points, spread evenly over the steps, with the extremes of every figure.
  function thinned(columns) {
    const { step } = columns;
    const watched = WATCHED.filter((name) => columns[name]).map((name) => columns[name]);
    const parts = Math.floor(KEPT / (2 * watched.length));
    const size = (step.at(-1) - step[0]) / parts;
    const kept = new Set([0, step.length - 1]);
    for (let start = 0; start < step.length;) {
      const part = Math.floor((step[start] - step[0]) / size);
      let end = start + 1;
      while (end < step.length && Math.floor((step[end] - step[0]) / size) === part) end += 1;
      for (const y of watched) {
        let least = start;
        let greatest = start;
        for (let i = start; i < end; i += 1) {
          if (y[i] !== null && y[i] < y[least]) least = i;
          if (y[i] !== null && y[i] > y[greatest]) greatest = i;
        }
        kept.add(least).add(greatest);
      }
      start = end;
    }
    const order = [...kept].sort((a, b) => a - b);
    return Object.fromEntries(Object.entries(columns).map(([name, y]) => [name, order.map((i) => y[i])]));
  }

  return { add, get: (key) => known.get(key), has: (key) => known.has(key) };
};
