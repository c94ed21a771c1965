/* γ and β give the normalized values any mean and width, and a sigmoid that follows sees the result. */
"use strict";

bn.arithmetic["scale-shift"] = (x, gamma, beta, eps) => {
  const { mean, variance } = bn.moments(x);
  const normalized = x.map((value) => (value - mean) / Math.sqrt(variance + eps));
  return { mean, variance, normalized, y: normalized.map((value) => gamma * value + beta) };
};

bn.figure("scale-shift", (figure) => {
  const EPS = 1e-5;
  const EDGE = Math.log((1 + Math.sqrt(0.9)) / (1 - Math.sqrt(0.9))); // beyond it a sigmoid is saturated
  const X = [-0.3, 0.7, 1.2, 2.2, 3.7, 5.7]; // mean 2.2, variance 4
  const COLORS = ["blue", "orange", "green", "purple", "muted", "ink"].map((name) => `var(--bn-${name})`);
  const ROWS = [26, 74, 122]; // heights of x, x̂ and y
  const [TOP, BOTTOM] = [172, 262]; // of the sigmoid
  const f = bn.format;
  const sigmoid = (u) => 1 / (1 + Math.exp(-u));
  let [gamma, beta] = [1, 0];

  figure.drawing("Six examples as x, as x̂ and as y, and what a sigmoid makes of y", 302, (put, width) => {
    const at = bn.scale([-10, 10], [34, width - 12]);
    const height = bn.scale([0, 1], [BOTTOM, TOP]);
    const { normalized, y } = bn.arithmetic["scale-shift"](X, gamma, beta, EPS);
    const now = bn.moments(y);
    const std = Math.sqrt(now.variance);

    const [left, right] = [now.mean - std, now.mean + std].map(at);
    put("rect", "band", { x: left, y: ROWS[2] - 14, width: right - left, height: BOTTOM - ROWS[2] + 14, class: "bn-band" });
    ["x", "x̂", "y"].forEach((name, i) => {
      put("text", `name-${name}`, { x: 2, y: ROWS[i] + 5, class: "bn-label" }, name);
      put("line", `row-${name}`, { x1: at(-10), x2: at(10), y1: ROWS[i], y2: ROWS[i], class: "bn-gridline" });
    });

    const u = Array.from({ length: 101 }, (_, i) => -10 + i / 5);
    put("text", "one", { x: 14, y: TOP + 4, class: "bn-tick" }, "1");
    put("text", "zero", { x: 14, y: BOTTOM + 4, class: "bn-tick" }, "0");
    put("path", "tangent", { d: bn.line([[at(-2), BOTTOM], [at(2), TOP]]), class: "bn-curve", stroke: "var(--bn-muted)", "stroke-dasharray": "5 4" });
    put("path", "sigmoid", { d: bn.line(u.map((v) => [at(v), height(sigmoid(v))])), class: "bn-curve", stroke: "var(--bn-ink)" });
    put("text", "sigmoid-name", { x: at(-10), y: TOP + 14 }, "sigmoid");
    figure.axis(put, "u", BOTTOM + 12, at, [-10, -5, 0, 5, 10], null, (t) => f(t, 0));

    X.forEach((x, i) => {
      const path = [[at(x), ROWS[0]], [at(normalized[i]), ROWS[1]], [at(y[i]), ROWS[2]], [at(y[i]), height(sigmoid(y[i]))]];
      put("path", `thread-${i}`, { d: bn.line(path), fill: "none", stroke: COLORS[i], class: "bn-thread" });
      put("circle", `target-${i}`, { cx: at(x), cy: ROWS[2], r: 8.5, fill: "none", stroke: COLORS[i] });
      path.forEach(([cx, cy], k) => put("circle", `dot-${i}-${k}`, { cx, cy, r: 5, fill: COLORS[i] }));
    });

    const count = (inside) => y.filter((value) => inside(Math.abs(value.toFixed(2)))).length; // as shown
    const [straight, saturated] = [count((value) => value <= 1), count((value) => value > EDGE)];
    numbers.y = y.map((value) => f(value)).join("  ");
    numbers.mean = f(now.mean);
    numbers.std = f(std);
    numbers.straight = `${straight} of ${X.length}`;
    numbers.saturated = `${saturated} of ${X.length}`;
    numbers.off = f(Math.max(...y.map((value, i) => Math.abs(value - X[i]))));
    figure.say(`Mean of y ${f(now.mean)}, standard deviation ${f(std)}; ${straight} of 6 between minus 1 and 1, ${saturated} saturated.`);
  });

  const numbers = figure.numbers({
    y: "y",
    mean: "mean of y",
    std: "standard deviation of y",
    straight: "y between −1 and 1",
    saturated: "saturated",
    off: "largest |y − x|",
  });
  const controls = figure.row();
  const sliders = [
    figure.slider(controls, "γ", { min: 0, max: 4, step: 0.1, value: gamma }, (value) => (gamma = value)),
    figure.slider(controls, "β", { min: -3, max: 3, step: 0.1, value: beta }, (value) => (beta = value)),
  ];
  const choose = (...chosen) => {
    [gamma, beta] = chosen;
    sliders.forEach((slider, i) => slider.set(chosen[i]));
  };
  const buttons = figure.row();
  figure.button(buttons, "Undo the normalization", () => {
    const { mean, variance } = bn.moments(X);
    choose(Math.sqrt(variance + EPS), mean);
  });
  figure.button(buttons, "Start again", () => choose(1, 0));
});
