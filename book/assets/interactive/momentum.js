/* A mean that is followed from batch to batch: little noise, or little lag. */
"use strict";

bn.arithmetic.momentum = (path, m, alpha) => {
  const T = 300;
  const random = bn.normal(5);
  const follow = (values) => {
    let average = 0; // before the first batch
    return values.map((value, i) => (average += (alpha ?? 1 / (i + 1)) * (value - average)));
  };
  const population = Array.from({ length: T }, (_, i) => {
    if (path === "stays") return 2;
    return path === "drifts" ? 1 + (2 * i) / (T - 1) : i < T / 2 ? 1 : 3;
  });
  const means = population.map((mean) => mean + random() / Math.sqrt(m)); // examples with variance 1
  const followed = follow(means);
  const steady = follow(population); // what it would be without noise
  const typical = (a, b) => Math.sqrt(bn.moments(a.map((value, i) => (value - b[i]) ** 2).slice(T / 2)).mean);
  return {
    population,
    means,
    followed,
    lag: typical(steady, population),
    noise: typical(followed, steady),
    error: typical(followed, population),
  };
};

bn.figure("momentum", (figure) => {
  const ALPHAS = [0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1];
  const [TOP, BOTTOM] = [24, 224];
  const f = bn.format;
  let [path, m, alpha, kind] = ["jumps", 16, 0.1, "moving"];

  figure.drawing("The true mean, the means of 300 mini-batches, and the average that follows", 264, (put, width) => {
    const at = bn.scale([0, 300], [30, width - 16]);
    const height = bn.scale([-0.6, 4.6], [BOTTOM, TOP]);
    const chosen = kind === "moving" ? alpha : null;
    const { population, means, followed, lag, noise, error } = bn.arithmetic.momentum(path, m, chosen);
    for (const tick of [0, 1, 2, 3, 4]) {
      put("line", `grid-${tick}`, { x1: at(0), x2: at(300), y1: height(tick), y2: height(tick), class: "bn-gridline" });
      put("text", `tick-${tick}`, { x: 14, y: height(tick) + 4, class: "bn-tick" }, tick);
    }
    put("text", "batch", { x: at(0), y: 13, fill: "var(--bn-muted)" }, "● batches");
    put("text", "truth", { x: at(0) + 82, y: 13, class: "bn-label" }, "true mean");
    put("text", "average", { x: at(0) + 164, y: 13, class: "bn-label", fill: "var(--bn-blue)" }, "average");
    means.forEach((mean, i) => put("circle", `batch-${i}`, { cx: at(i + 1), cy: height(mean), r: 2, fill: "var(--bn-muted)", opacity: 0.55 }));
    const points = (values) => values.map((value, i) => [at(i + 1), height(value)]);
    put("path", "population", { d: bn.line(points(population)), class: "bn-curve", stroke: "var(--bn-ink)" });
    put("path", "followed", { d: bn.line([[at(0), height(0)], ...points(followed)]), class: "bn-curve", stroke: "var(--bn-blue)" });
    figure.axis(put, "t", BOTTOM + 2, at, [0, 50, 100, 150, 200, 250, 300], "batches");

    numbers.lag = f(lag, 3);
    numbers.noise = f(noise, 3);
    numbers.error = f(error, 3);
    figure.say(`In the second half: lag ${f(lag, 3)}, noise ${f(noise, 3)}, error ${f(error, 3)}.`);
  });

  const numbers = figure.numbers({
    lag: "lag",
    noise: "noise",
    error: "error, both together",
  });
  const controls = figure.row();
  const text = (i) => String(ALPHAS[i]);
  figure.slider(controls, "α", { min: 0, max: ALPHAS.length - 1, step: 1, value: 4, text }, (i) => (alpha = ALPHAS[i]));
  const range = controls.querySelector("input");
  figure.choice(controls, "Average", [["moving", "moving"], ["cumulative", "cumulative"]], kind, (value) => {
    kind = value;
    range.disabled = kind === "cumulative"; // it has no α
  });
  const more = figure.row();
  const paths = ["stays", "drifts", "jumps"].map((name) => [name, name]);
  figure.choice(more, "True mean", paths, path, (value) => (path = value));
  figure.choice(more, "Batch size m", [4, 16, 60].map((size) => [size, String(size)]), m, (value) => (m = value));
});
