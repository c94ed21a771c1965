/* Where the inputs of a sigmoid lie, and how much of a gradient gets through. */
"use strict";

bn.arithmetic.saturation = (x) => {
  const edge = Math.log((1 + Math.sqrt(0.9)) / (1 - Math.sqrt(0.9))); // where s′ is a tenth of its top
  const s = x.map((value) => 1 / (1 + Math.exp(-value)));
  return {
    edge,
    saturated: x.filter((value) => Math.abs(value) > edge).length / x.length,
    slope: bn.moments(s.map((value) => value * (1 - value))).mean,
  };
};

bn.figure("saturation", (figure) => {
  const EPS = 1e-5;
  const random = bn.normal(3);
  const sample = Array.from({ length: 1000 }, random);
  const normalize = (x) => {
    const { mean, variance } = bn.moments(x);
    return x.map((value) => (value - mean) / Math.sqrt(variance + EPS));
  };
  const bell = normalize(sample); // so that the sliders say the mean and the spread exactly
  const { edge } = bn.arithmetic.saturation(bell);
  const BINS = 50; // five from 0 to the edge
  const [HISTOGRAM, TOP, BOTTOM] = [112, 148, 238]; // foot of the histogram; the curves
  const f = bn.format;
  let [mean, std, first] = [2, 3, "no"];

  figure.drawing("The inputs of a sigmoid, and below them the sigmoid and its derivative", 282, (put, width) => {
    const end = 5 * edge;
    const at = bn.scale([-end, end], [22, width - 8]);
    const height = bn.scale([0, 1], [BOTTOM, TOP]);
    const before = bell.map((value) => mean + std * value);
    const x = first === "yes" ? normalize(before) : before;
    const { saturated, slope } = bn.arithmetic.saturation(x);

    const count = (values) => {
      const counts = Array(BINS).fill(0);
      for (const value of values) {
        if (Math.abs(value) < end) counts[Math.floor(((value + end) * BINS) / (2 * end))] += 1;
      }
      return counts;
    };
    const counts = count(x);
    const tall = bn.scale([0, Math.max(...counts)], [HISTOGRAM, 22]);
    const left = (i) => at(-end + (2 * end * i) / BINS);

    [[-end, -edge], [edge, end]].forEach(([from, to], i) => {
      put("rect", `flat-${i}`, { x: at(from), y: 0, width: at(to) - at(from), height: BOTTOM, fill: "var(--bn-orange)", opacity: 0.13 });
    });
    put("text", "flat-text", { x: at(-end) + 4, y: 15 }, "flat");
    put("text", "flat-text-2", { x: at(end) - 4, y: 15, class: "bn-end" }, "flat");
    counts.forEach((n, i) => {
      if (!n) return;
      const color = i < BINS / 2 - 5 || i >= BINS / 2 + 5 ? "orange" : "blue";
      put("rect", `bin-${i}`, { x: left(i), y: tall(n), width: left(i + 1) - left(i) - 1, height: HISTOGRAM - tall(n), fill: `var(--bn-${color})` });
    });
    if (first === "yes") {
      const outline = count(before).flatMap((n, i) => [[left(i), Math.max(2, tall(n))], [left(i + 1), Math.max(2, tall(n))]]);
      put("path", "before", { d: bn.line(outline), fill: "none", stroke: "var(--bn-muted)" });
    }
    put("line", "foot", { x1: at(-end), x2: at(end), y1: HISTOGRAM, y2: HISTOGRAM, class: "bn-axis" });

    const grid = Array.from({ length: 101 }, (_, i) => (i / 50 - 1) * end);
    const s = (v) => 1 / (1 + Math.exp(-v));
    put("path", "sigmoid", { d: bn.line(grid.map((v) => [at(v), height(s(v))])), class: "bn-curve", stroke: "var(--bn-ink)" });
    put("path", "derivative", { d: bn.line(grid.map((v) => [at(v), height(s(v) * (1 - s(v)))])), class: "bn-curve", stroke: "var(--bn-blue)" });
    put("text", "s", { x: at(end) - 4, y: TOP + 16, class: "bn-label bn-end" }, "s(x)");
    put("text", "s-prime", { x: at(1.2), y: height(0.25), class: "bn-label", fill: "var(--bn-blue)" }, "s′(x)");
    put("text", "one", { x: 8, y: TOP + 4, class: "bn-tick" }, "1");
    put("text", "zero", { x: 8, y: BOTTOM + 4, class: "bn-tick" }, "0");
    figure.axis(put, "x", BOTTOM + 8, at, [-15, -10, -5, 0, 5, 10, 15], "input x", (t) => f(t, 0));

    numbers.saturated = `${f(100 * saturated, 1)} %`;
    numbers.slope = `${f(slope, 3)} (at best ${f(0.25, 3)})`;
    figure.say(`${f(100 * saturated, 1)} percent saturated, mean derivative ${f(slope, 3)}.`);
  });

  const numbers = figure.numbers({ saturated: "saturated, |x| > 3.64", slope: "mean of s′(x)" });
  const controls = figure.row();
  figure.slider(controls, "Mean", { min: -5, max: 5, step: 0.25, value: mean }, (value) => (mean = value));
  figure.slider(controls, "Spread", { min: 0.5, max: 6, step: 0.1, value: std, text: (v) => f(v, 1) }, (value) => (std = value));
  const options = [["no", "as they are"], ["yes", "normalized first"]];
  figure.choice(figure.row(), "The inputs reach the sigmoid", options, first, (value) => (first = value));
});
