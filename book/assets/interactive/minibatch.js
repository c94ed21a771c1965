/* Drag the examples of a mini-batch: mean and spread follow, and every normalized value with them. */
"use strict";

bn.arithmetic.minibatch = (x, eps) => {
  const { mean, variance } = bn.moments(x);
  return { mean, variance, normalized: x.map((value) => (value - mean) / Math.sqrt(variance + eps)) };
};

bn.figure("minibatch", (figure) => {
  const EPS = 1e-5;
  const COLORS = ["blue", "orange", "green", "purple", "muted", "ink"];
  const START = [-3, -1, 1.5, 2, 5.5, 7];
  const numbersOf = (values) => values.map((value) => bn.format(value)).join("  ");
  let x = [...START];

  figure.drawing("Six examples of one feature, before and after the normalization", 206, (put, width) => {
    const wide = bn.scale([-10, 10], [30, width - 14]); // of x
    const narrow = bn.scale([-3, 3], [30, width - 14]); // of x̂
    const { mean, variance, normalized } = bn.arithmetic.minibatch(x, EPS);
    const std = Math.sqrt(variance);
    const [above, below] = [46, 166]; // heights of the two lines

    const [left, right] = [Math.max(-10, mean - std), Math.min(10, mean + std)].map(wide);
    put("rect", "band", { x: left, y: above - 18, width: right - left, height: 22, class: "bn-band" });
    put("rect", "unit", { x: narrow(-1), y: below - 14, width: narrow(1) - narrow(-1), height: 18, class: "bn-band" });
    put("line", "mean", { x1: wide(mean), x2: wide(mean), y1: above - 24, y2: above + 4, class: "bn-mean" });
    put("line", "zero", { x1: narrow(0), x2: narrow(0), y1: below - 18, y2: below + 4, class: "bn-mean" });
    put("text", "mean-text", { x: wide(mean), y: above - 29, class: "bn-tick" }, "μ");

    put("text", "x", { x: 2, y: above + 5, class: "bn-label" }, "x");
    put("text", "x-hat", { x: 2, y: below + 5, class: "bn-label" }, "x̂");
    figure.axis(put, "wide", above, wide, [-10, -5, 0, 5, 10], null, (t) => bn.format(t, 0));
    figure.axis(put, "narrow", below, narrow, [-3, -2, -1, 0, 1, 2, 3], null, (t) => bn.format(t, 0));
    x.forEach((value, i) => {
      const color = `var(--bn-${COLORS[i]})`;
      const [from, to] = [wide(value), narrow(normalized[i])];
      put("line", `thread-${i}`, { x1: from, x2: to, y1: above + 24, y2: below - 9, stroke: color, class: "bn-thread" });
      put("circle", `after-${i}`, { cx: to, cy: below, r: 6, fill: color });
    });
    x.forEach((value, i) => {
      const dot = put("circle", `before-${i}`, { cx: wide(value), cy: above, r: 8, fill: `var(--bn-${COLORS[i]})` });
      const limits = { min: -10, max: 10, step: 0.5, value, text: (v) => bn.format(v, 1) };
      figure.handle(dot, `x of example ${i + 1}`, "x", limits, wide, (v) => (x[i] = v));
    });

    numbers.mean = bn.format(mean);
    numbers.std = bn.format(std);
    numbers.normalized = numbersOf(normalized);
    figure.say(`Mean ${bn.format(mean)}, standard deviation ${bn.format(std)}, normalized ${numbersOf(normalized)}.`);
  });

  const numbers = figure.numbers({ mean: "μ", std: "σ", normalized: "x̂" });
  const controls = figure.row();
  // As far as there is room: one that is held back alone would change x̂.
  figure.button(controls, "Move all to the right", () => {
    const step = Math.min(1, 10 - Math.max(...x));
    x = x.map((value) => value + step);
  });
  figure.button(controls, "Spread", () => {
    const factor = Math.min(1.25, 10 / Math.max(...x.map(Math.abs)));
    x = x.map((value) => factor * value);
  });
  figure.button(controls, "Start again", () => (x = [...START]));
});
