/* Which values share their statistics in each norm, and which changes its output does not show. */
"use strict";

/* h = W x + b and a norm of it, both flat lists of shape (N, C, P); weight (C, I), bias (C),
   examples (N, I, P). `shared` tells the sets: h with the same entry share their statistics. */
bn.arithmetic.family = ([weight, bias, examples], norm, eps) => {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const [h, shared] = [[], []];
  const of = {
    batch: (n, c) => c,
    ghost: (n, c) => `${Math.floor(n / 2)} ${c}`,
    layer: (n) => n,
    position: (n, c, p) => `${n} ${p}`,
    group: (n, c) => `${n} ${Math.floor(c / 2)}`,
    instance: (n, c) => `${n} ${c}`,
    RMS: (n) => n,
  }[norm];
  examples.forEach((example, n) =>
    weight.forEach((row, c) =>
      example[0].forEach((_, p) => {
        h.push(bias[c] + sum(row.map((w, i) => w * example[i][p])));
        shared.push(of ? of(n, c, p) : h.length); // tanh and none: each by itself
      }),
    ),
  );
  if (norm === "none") return { h, shared, y: h };
  if (norm === "tanh") return { h, shared, y: h.map((value) => Math.tanh(0.5 * value)) };
  return { h, shared, y: bn.normalize(h, shared, eps, norm !== "RMS").normalized };
};

bn.figure("family", (figure) => {
  const [N, C, P, INPUTS] = [4, 6, 3, 7];
  const draw = bn.normal(3);
  const list = (length, make) => Array.from({ length }, (_, i) => make(i));
  const weight = list(C, () => list(INPUTS, draw));
  const bias = list(C, () => 0);
  const examples = list(N, () => list(INPUTS, () => list(P, () => 0.5 + draw())));
  const triple = (values) => values.map((value) => (Array.isArray(value) ? triple(value) : 3 * value));
  const at = (k, change) => (value, i) => (i === k ? change(value) : value);
  const more = (value) => value + 5;
  const changes = {
    "all W × 3": [triple(weight), bias, examples],
    "one W × 3": [weight.map(at(2, triple)), bias, examples],
    "one b + 5": [weight, bias.map(at(2, more)), examples],
    "all b + 5": [weight, bias.map(more), examples],
    "example 0 × 3": [weight, bias, examples.map(at(0, triple))],
    "example 3 × 3": [weight, bias, examples.map(at(3, triple))],
  };
  let [norm, change] = ["batch", "one W × 3"];

  const above = Object.fromEntries(list(N, (n) => [n * C * P, `example ${n}`]));
  const beside = Object.fromEntries(list(C, (c) => [c * P, `channel ${c}`]));
  const title = "Four examples with six channels each, and three positions in each channel";
  bn.cells(figure, title, [1, N, C, P], { above, beside }, 7, (chosen) => {
    const before = bn.arithmetic.family([weight, bias, examples], norm, 1e-12);
    const after = bn.arithmetic.family(changes[change], norm, 1e-12);
    const moved = (key) => before[key].map((value, i) => Math.abs(value - after[key][i]) > 1e-6);
    const [ring, dot, lit] = [moved("h"), moved("y"), before.shared.map((key) => key === before.shared[chosen])];
    const [example, channel] = [Math.floor(chosen / (C * P)), Math.floor(chosen / P) % C];
    const name = `example ${example}, channel ${channel}, position ${chosen % P}`;
    const count = (marks) => marks.filter(Boolean).length;
    const sharing = count(lit) > 1 ? `${count(lit)} values share its statistics` : "it has no statistics";
    const outputs = count(dot.slice(0, C * P));
    const arrow = (key) => `${bn.format(before[key][chosen])} → ${bn.format(after[key][chosen])}`;
    numbers.count = count(lit) > 1 ? `${count(lit)} values` : "none";
    numbers.h = arrow("h");
    numbers.y = arrow("y");
    numbers.changed = `${outputs} of ${C * P} outputs`;
    figure.say(`${name}: ${sharing}. ${change}: ${count(ring)} h move, and ${outputs} of the ${C * P} outputs of example 0.`);
    return { name, lit, ring, dot };
  });
  const numbers = figure.numbers({ h: "h", y: "y", count: "share statistics", changed: "moved in example 0" });
  const norms = ["batch", "layer", "group", "instance", "RMS", "tanh", "none"].map((one) => [one, one]);
  norms.splice(1, 0, ["ghost", "ghost batch"]);
  norms.splice(3, 0, ["position", "each position"]);
  figure.choice(figure.row(), "Norm", norms, norm, (one) => (norm = one));
  const names = Object.keys(changes).map((one) => [one, one]);
  figure.choice(figure.row(), "Change", names, change, (one) => (change = one));
});
