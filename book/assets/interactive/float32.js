/* Where the digits go: a variance in float32, near zero and far from it, by four ways. */
"use strict";

/* The float32 numbers nearest to mean + std · z, and their variance: the exact one, and that of
   four ways. Each operation of the first three is rounded to float32, in the order of NumPy. */
bn.arithmetic.float32 = (z, mean, std) => {
  const f = Math.fround;
  const x = z.map((value) => f(mean + std * value));
  const m = x.length;
  const average = (values) => f(values.reduce((sum, value) => f(sum + value)) / m);
  const square = (value) => f(value * value);
  const onePass = (values) => f(average(values.map(square)) - square(average(values)));
  const center = average(x);
  const { variance } = bn.moments(x.map((value) => value - x[0])); // differences are exact in float64
  return {
    x,
    exact: variance,
    one: onePass(x),
    two: average(x.map((value) => square(f(value - center)))),
    shifted: onePass(x.map((value) => f(value - x[0]))),
    bnlib: bn.moments(x).variance, // few values are computed in float64
  };
};

/* The distance of a float32 number to the next one. */
bn.arithmetic.spacing = (value) => 2 ** (Math.floor(Math.log2(Math.abs(value))) - 23);

bn.figure("float32", (figure) => {
  const Z = [-1.58, 0.67, -0.47, 1.31, -0.9, 0.04, 0.99, -0.32, 0.35, -1.27, 1.78, -0.6];
  const FACTORS = [-4, -3, -2, -1, 0, 1, 2, 3, 4].map((k) => 1.25 ** (k / 4));
  const WAYS = [
    ["one", "one pass", "orange"],
    ["two", "two passes", "purple"],
    ["shifted", "shifted", "green"],
    ["bnlib", "bnlib", "blue"],
  ];
  let [mean, std] = [100, 1];

  const exponent = (v) => Math.floor(Math.log10(v) + 1e-9);
  const superscript = (k) => [...String(k)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] || "⁻").join("");
  const plain = (v) => {
    if (v === 0) return "0";
    const k = exponent(Math.abs(v));
    if (k < -3 || k > 8) return `${bn.format(v / 10 ** k, 1)} · 10${superscript(k)}`;
    return k > 2 ? Math.round(v).toLocaleString("en-US").replace("-", "−") : bn.format(v, 2 - k);
  };
  // Channels with other means, as in the chapter: where digits are few, one may be lucky.
  const channels = () => FACTORS.map((factor) => bn.arithmetic.float32(Z, factor * mean, std));
  const digits = (v, exact) => (v === exact ? 7 : exact ? Math.min(7, Math.max(0, -Math.log10(Math.abs(v / exact - 1)))) : 0);

  figure.drawing("The float32 numbers near the mean, and the values that are rounded to them", 104, (put, width) => {
    const { x } = bn.arithmetic.float32(Z, mean, std);
    const pixel = bn.scale([mean - 3 * std, mean + 3 * std], [14, width - 14]);
    const gap = bn.arithmetic.spacing(Math.fround(mean));
    const [above, below] = [26, 72];
    const apart = (gap / std) * ((width - 28) / 6); // pixels
    put("text", "wanted", { x: 2, y: 12, class: "bn-label" }, "values before rounding");
    const stored = apart < 2.5 ? "float32 numbers, too close together to draw" : "float32 numbers";
    put("text", "stored", { x: 2, y: below + 26, class: "bn-label" }, stored);
    put("line", "real", { x1: 14, x2: width - 14, y1: above, y2: above, class: "bn-axis" });
    if (apart < 2.5) {
      put("rect", "comb", { x: 14, y: below - 6, width: width - 28, height: 12, fill: "var(--bn-muted)", opacity: 0.35 });
    } else {
      for (let v = Math.fround(mean - 3 * std); v <= mean + 3 * std; v += bn.arithmetic.spacing(v)) {
        const at = pixel(v);
        put("line", `tick-${v}`, { x1: at, x2: at, y1: below - 8, y2: below + 8, class: "bn-axis" });
      }
    }
    Z.forEach((z, i) => {
      const [from, to] = [pixel(mean + std * z), pixel(x[i])];
      put("line", `thread-${i}`, { x1: from, x2: to, y1: above, y2: below, stroke: "var(--bn-blue)", class: "bn-thread" });
      put("circle", `value-${i}`, { cx: from, cy: above, r: 4, fill: "var(--bn-paper)", stroke: "var(--bn-blue)" });
      put("circle", `stored-${i}`, { cx: to, cy: below, r: 4, fill: "var(--bn-blue)" });
    });
    numbers.gap = plain(gap);
  });

  figure.drawing("Correct digits of the variance, the median of nine channels", 4 * 42 + 44, (put, width) => {
    const found = channels();
    const median = (key) => found.map((one) => digits(one[key], one.exact)).sort((a, b) => a - b)[4];
    const say = (right) => (right === 7 ? "7 or more" : bn.format(right, 1));
    const pixel = bn.scale([0, 7], [5, width - 14]);
    WAYS.forEach(([key, name, color], i) => {
      const y = 16 + 42 * i;
      const right = median(key);
      const negative = found.filter((one) => one[key] < 0).length;
      put("text", `${key}-name`, { x: 5, y, class: "bn-label" }, name);
      const shown = say(right) + (negative ? `, negative in ${negative} of 9` : "");
      put("text", `${key}-value`, { x: width - 14, y, class: "bn-end", "data-name": key }, shown);
      put("rect", `${key}-place`, { x: 5, y: y + 6, width: width - 19, height: 12, rx: 2, fill: "var(--bn-grid)" });
      put("rect", `${key}-bar`, { x: 5, y: y + 6, width: pixel(right) - 5, height: 12, rx: 2, fill: `var(--bn-${color})` });
    });
    figure.axis(put, "digits", 4 * 42 + 4, pixel, [0, 1, 2, 3, 4, 5, 6, 7], "correct digits");
    numbers.ratio = plain(mean / std);
    figure.say(`Correct digits: one pass ${say(median("one"))}, two passes ${say(median("two"))}.`);
  });

  const numbers = figure.numbers({ ratio: "μ/σ", gap: "distance to the next number" });
  const controls = figure.row();
  const log = (min, max) => ({ min, max, step: 0.1, text: (k) => plain(10 ** k) });
  figure.slider(controls, "Mean μ", { ...log(0, 8), value: 2 }, (k) => (mean = 10 ** k));
  figure.slider(controls, "Std σ", { ...log(0, 2), value: 0 }, (k) => (std = 10 ** k));
});
