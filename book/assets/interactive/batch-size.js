/* The statistics of many mini-batches: how far they scatter around those of the population. */
"use strict";

bn.arithmetic["batch-size"] = (seed, m) => {
  const random = bn.normal(1000 * seed + m);
  const batches = Array.from({ length: 200 }, () => Array.from({ length: m }, random)); // mean 0, variance 1
  const found = batches.map(bn.moments);
  const error = (values, truth) => Math.sqrt(bn.moments(values.map((value) => (value - truth) ** 2)).mean);
  const of = {
    mean: { values: found.map((one) => one.mean), truth: 0, expected: 1 / Math.sqrt(m) },
    variance: { values: found.map((one) => one.variance), truth: 1, expected: Math.sqrt(2 / m) }, // κ = 3
  };
  for (const one of Object.values(of)) one.error = error(one.values, one.truth);
  return { batches, ...of };
};

bn.figure("batch-size", (figure) => {
  const [TOP, BOTTOM] = [16, 116]; // of the mini-batches, one above the other
  const SIZES = [2, 4, 8, 16, 32, 64, 128, 256, 512];
  const AXIS = {
    mean: { ticks: [-2, -1, 0, 1, 2], label: "mean μ of a mini-batch" },
    variance: { ticks: [0, 1, 2, 3, 4], label: "variance σ² of a mini-batch" },
  };
  let [seed, m, what] = [1, 16, "mean"];
  let seen = new Map(); // by m, for the curve below; those drawn so far

  const draw = () => {
    if (!seen.has(m)) seen.set(m, bn.arithmetic["batch-size"](seed, m));
    return seen.get(m)[what];
  };

  figure.drawing("A dot for each of 200 mini-batches, on a line that runs from left to right", 156, (put, width) => {
    const { ticks, label } = AXIS[what];
    const [low, high] = [ticks[0], ticks[4]];
    const at = bn.scale([low, high], [14, width - 14]);
    const inside = (value) => at(Math.min(high, Math.max(low, value)));
    const { values, truth, expected, error } = draw();
    const [left, right] = [truth - expected, truth + expected].map(inside);
    put("rect", "band", { x: left, y: TOP - 12, width: right - left, height: BOTTOM - TOP + 18, class: "bn-band" });
    put("line", "truth", { x1: at(truth), x2: at(truth), y1: TOP - 12, y2: BOTTOM + 6, class: "bn-mean" });
    values.forEach((value, i) => {
      const y = TOP + ((BOTTOM - TOP) * i) / (values.length - 1);
      put("circle", `batch-${i}`, { cx: inside(value), cy: y, r: 2.5, fill: "var(--bn-ink)", opacity: 0.7 });
    });
    figure.axis(put, what, BOTTOM + 6, at, ticks, label, (t) => bn.format(t, 0));

    numbers.error = bn.format(error, 3);
    numbers.expected = `${what === "mean" ? "1/√m" : "√((κ − 1)/m)"} = ${bn.format(expected, 3)}`;
    figure.say(`${m} examples: typical error of the ${what} ${bn.format(error, 3)}, expected ${bn.format(expected, 3)}.`);
  });

  figure.drawing("Typical error and batch size, on logarithmic axes", 172, (put, width) => {
    const at = bn.scale([2, 512], [44, width - 14], true);
    const height = bn.scale([0.03, 1.2], [130, 12], true);
    for (const tick of [0.05, 0.1, 0.2, 0.5, 1]) {
      put("line", `grid-${tick}`, { x1: at(2), x2: at(512), y1: height(tick), y2: height(tick), class: "bn-gridline" });
      put("text", `tick-${tick}`, { x: 20, y: height(tick) + 4, class: "bn-tick" }, String(tick));
    }
    const expected = (size) => Math.sqrt((what === "mean" ? 1 : 2) / size);
    put("path", "law", { d: bn.line([2, 512].map((size) => [at(size), height(expected(size))])), class: "bn-curve", stroke: "var(--bn-blue)", "stroke-dasharray": "6 4" });
    for (const [size, found] of seen) {
      const now = size === m;
      put("circle", `size-${size}`, { cx: at(size), cy: height(found[what].error), r: now ? 7 : 4, fill: `var(--bn-${now ? "orange" : "ink"})` });
    }
    figure.axis(put, "m", 136, at, SIZES, "batch size m");
  });

  const numbers = figure.numbers({ error: "typical error of these 200", expected: "expected" });
  const controls = figure.row();
  const text = (k) => `m = ${2 ** k}`;
  figure.slider(controls, "Batch size", { min: 1, max: 9, step: 1, value: 4, text }, (k) => (m = 2 ** k));
  figure.button(controls, "Draw again", () => {
    seed += 1;
    seen = new Map();
  });
  const options = [["mean", "mean μ"], ["variance", "variance σ²"]];
  figure.choice(figure.row(), "Each dot is the", options, what, (value) => (what = value));
});
