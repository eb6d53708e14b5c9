// What charts count by: round numbers for their axes, places in columns of numbers that grow.

// The least index whose value is at least `wanted`, in an array that grows.
ptx.lowerBound = (x, wanted) => {
  let low = 0;
  let high = x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
};

ptx.nearest = (x, wanted) => {
  const i = Math.min(ptx.lowerBound(x, wanted), x.length - 1);
  return i > 0 && wanted - x[i - 1] < x[i] - wanted ? i - 1 : i;
};

// Round numbers between two values, about `count` of them.
ptx.ticks = (low, high, count, steps = [1, 2, 5, 10]) => {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * steps.find((m) => m * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)));
};

// What a curve can be drawn over.
ptx.axes = (() => {
  const { number } = ptx;
  // In the unit of the largest beside it.
  const short = (value, largest = value) =>
    !value ? "0"
      : largest >= 1e9 ? `${number(value / 1e9, 2)}B`
        : largest >= 1e6 ? `${number(value / 1e6, 2)}M`
          : largest >= 1e4 ? `${number(value / 1e3, 1)}k` : number(value, 1);
  function plain(low, high, count) {
    const ticks = ptx.ticks(low, high, count).filter(Number.isInteger);
    return { ticks, text: (value) => short(value, ticks.at(-1)) };
  }
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  function time(low, high, count) {
    const [size, name] = UNITS.find(([seconds]) => high - low > 2 * seconds) ?? UNITS[3];
    return {
      ticks: ptx.ticks(low / size, high / size, count).map((v) => v * size),
      text: (value) => `${number(value / size, 2)} ${name}`,
    };
  }
  function duration(seconds) {
    const [d, h, m, s] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60].map(Math.floor);
    return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
  }
  return {
    duration,
    short,
    step: { name: "steps", ticks: plain, text: (value) => `step ${number(value)}` },
    tokens: { name: "tokens", ticks: plain, text: (value) => `${short(value)} tokens` },
    elapsed: { name: "time", ticks: time, text: duration },
  };
})();
