/* Weights in front of a BatchNorm, with decay: length, turn and effective rate go to their line. */
"use strict";

/* Expected squares of a random walk whose gradients are perpendicular to w, independent of one
   another, and of length 1/‖w‖: A = ‖w‖², B = w · v, C = ‖v‖², for v ← μv + g + λw, w ← w − ηv. */
bn.arithmetic.equilibrium = (lr, decay, momentum, start, steps) => {
  let [A, B, C] = [start * start, 0, 0];
  const [length, turn, rate] = [[start], [], [lr / A / (1 - momentum)]];
  for (let t = 0; t < steps; t++) {
    C = momentum * momentum * C + 2 * momentum * decay * B + decay * decay * A + 1 / A;
    B = momentum * B + decay * A;
    const along = Math.sqrt(A) - (lr * B) / Math.sqrt(A);
    const across = lr * Math.sqrt(Math.max(0, C - (B * B) / A));
    turn.push((Math.atan2(across, along) * 180) / Math.PI);
    A += lr * lr * C - 2 * lr * B;
    B -= lr * C;
    length.push(Math.sqrt(A));
    rate.push(lr / A / (1 - momentum));
  }
  const product = (lr * decay) / (1 - momentum);
  return {
    length,
    turn,
    rate,
    lengthEnd: (lr / (2 * decay * (1 - momentum))) ** 0.25,
    turnEnd: (Math.sqrt((2 * lr * decay) / (1 + momentum)) * 180) / Math.PI,
    rateEnd: Math.sqrt(2 * product),
    relaxation: 1 / (4 * product),
  };
};

bn.figure("equilibrium", (figure) => {
  const STEPS = 2000;
  const VALUES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];
  const DECAYS = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05];
  const MOMENTA = [0, 0.5, 0.9, 0.95];
  const STARTS = [0.5, 1, 2, 4, 8];
  let [lr, decay, momentum, start] = [0.1, 0.01, 0, 4];
  const PANELS = [
    { name: "length", title: "length ‖w‖", range: [0.3, 20], ticks: [0.3, 1, 3, 10] },
    { name: "turn", title: "turn of a step (degrees)", range: [0.01, 60], ticks: [0.01, 0.1, 1, 10] },
    { name: "rate", title: "effective rate η/((1 − μ)‖w‖²)", range: [0.0001, 3], ticks: [0.001, 0.01, 0.1, 1] },
  ];
  const short = (value) => String(Number(value.toPrecision(3)));

  figure.drawing("Length, turn and effective rate over 2,000 steps, each with its line", 424, (put, width) => {
    const found = bn.arithmetic.equilibrium(lr, decay, momentum, start, STEPS);
    const x = bn.scale([0, STEPS], [42, width - 20]);
    PANELS.forEach(({ name, title, range, ticks }, i) => {
      const [top, bottom] = [24 + 126 * i, 116 + 126 * i];
      const y = bn.scale(range, [bottom, top], true);
      const inside = (value) => y(Math.min(range[1], Math.max(range[0], value)));
      put("text", `${name}-title`, { x: 42, y: top - 9, class: "bn-label" }, title);
      for (const tick of ticks) {
        put("line", `${name}-${tick}`, { x1: x(0), x2: x(STEPS), y1: y(tick), y2: y(tick), class: "bn-gridline" });
        put("text", `${name}-y-${tick}`, { x: 36, y: y(tick) + 4, class: "bn-tick bn-end" }, tick);
      }
      const end = found[`${name}End`];
      const line = { x1: x(0), x2: x(STEPS), y1: inside(end), y2: inside(end), stroke: "var(--bn-orange)" };
      put("line", `${name}-end`, { ...line, "stroke-width": 2, "stroke-dasharray": "6 4" });
      const shown = found[name].map((value, t) => [x(t), inside(value)]);
      const points = shown.filter((_, t) => t < 60 || t % 10 === 0 || t === STEPS);
      put("path", name, { d: bn.line(points), class: "bn-curve", stroke: "var(--bn-blue)" });
      const last = found[name][found[name].length - 1];
      numbers[name] = `${short(last)}, line ${short(end)}`;
    });
    figure.axis(put, "t", 376, x, [0, 500, 1000, 1500, 2000], "steps");
    numbers.relaxation = `${Math.round(found.relaxation).toLocaleString("en")} steps`;
    figure.say(`After 2,000 steps: length ${numbers.length}; turn ${numbers.turn} degrees; effective rate ${numbers.rate}.`);
  });

  const numbers = figure.numbers({
    length: "length at the end",
    turn: "turn, degrees",
    rate: "effective rate",
    relaxation: "time of relaxation",
  });
  function slider(row, label, values, value, input) {
    const text = (i) => String(values[i]);
    const limits = { min: 0, max: values.length - 1, step: 1, value: values.indexOf(value), text };
    figure.slider(row, label, limits, (i) => input(values[i]));
  }
  const controls = figure.row();
  slider(controls, "Rate η", VALUES, lr, (value) => (lr = value));
  slider(controls, "Decay λ", DECAYS, decay, (value) => (decay = value));
  const more = figure.row();
  slider(more, "First length", STARTS, start, (value) => (start = value));
  figure.choice(more, "Momentum μ", MOMENTA.map((value) => [value, String(value)]), momentum, (value) => (momentum = value));
});
