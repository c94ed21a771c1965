/* The recorded sweep over learning rates: how each run ended, and how it came there. */
"use strict";

/* Of one value for each of an odd number of seeds: the median and the range, and how many are low. */
bn.arithmetic.rates = (ends) => {
  const sorted = [...ends].sort((a, b) => a - b);
  return {
    median: sorted[(sorted.length - 1) / 2],
    least: sorted[0],
    most: sorted[sorted.length - 1],
    low: sorted.filter((value) => value < 500).length,
  };
};

bn.figure("rates", (figure) => {
  const ARMS = [
    { name: "without", color: "var(--bn-orange)", shift: -4 },
    { name: "with", color: "var(--bn-blue)", shift: 4 },
  ];
  const nets = [...new Set(figure.data.map((sweep) => sweep.net))];
  let [net, depth, at, shown] = ["ReLU MLP", 6, 5, "both"]; // at: which of the rates
  const find = () => figure.data.find((sweep) => sweep.net === net && sweep.depth === depth);
  const percent = (thousandths) => bn.format(thousandths / 10, 1);
  const ends = (runs) => runs.map((run) => run[run.length - 1]);

  function grid(put, key, title, left, right, top, bottom) {
    put("text", `${key}-title`, { x: left - 28, y: top - 14, class: "bn-label" }, title);
    const y = bn.scale([0, 1000], [bottom, top]);
    for (const tick of [0, 500, 1000]) {
      put("line", `${key}-${tick}`, { x1: left, x2: right, y1: y(tick), y2: y(tick), class: "bn-gridline" });
      put("text", `${key}-y-${tick}`, { x: left - 6, y: y(tick) + 4, class: "bn-tick bn-end" }, tick / 10);
    }
    return y;
  }

  figure.drawing("Test accuracy of the recorded runs, in percent", (width) => (width < 560 ? 500 : 268), (put, width) => {
    const sweep = find();
    const arms = ARMS.map((arm, i) => ({ ...arm, runs: sweep.runs[i], lost: sweep.lost[i] }));
    const beside = width >= 560;
    const edge = beside ? width / 2 - 14 : width - 12;
    arms.forEach(({ name, color }, i) => {
      const x = 6 + 148 * i;
      put("line", `key-${i}`, { x1: x, x2: x + 16, y1: 9, y2: 9, stroke: color, "stroke-width": 3 });
      put("text", `key-text-${i}`, { x: x + 22, y: 14 }, `${name} BatchNorm`);
    });
    const visible = arms.filter(({ name }) => shown === "both" || shown === name);

    // Left: how the runs of each rate ended.
    const bottom = 212;
    const y = grid(put, "ends", "Test accuracy at the end (%)", 34, edge, 60, bottom);
    const x = bn.scale([0, sweep.rates.length - 1], [46, edge - 12]);
    const rate = (i) => String(sweep.rates[i]);
    figure.axis(put, "rates", bottom, x, [0, 2, 4, 6, 8], "learning rate", rate);
    put("line", "chosen", { x1: x(at), x2: x(at), y1: 60, y2: bottom, class: "bn-axis" });
    for (const { name, color, shift, runs, lost } of visible) {
      const all = runs.map((seeds) => bn.arithmetic.rates(ends(seeds)));
      const points = all.map(({ median }, i) => [x(i) + shift, y(median)]);
      put("path", `medians-${name}`, { d: bn.line(points), class: "bn-curve", stroke: color, opacity: 0.5 });
      all.forEach(({ least, most }, i) => {
        const [px, py] = points[i];
        const range = { x1: px, x2: px, y1: y(least), y2: y(most), stroke: color, "stroke-width": 3 };
        put("line", `range-${name}-${i}`, range);
        const gone = lost[i].filter((step) => step).length > 2;
        put("circle", `end-${name}-${i}`, { cx: px, cy: py, r: 4, fill: gone ? "var(--bn-paper)" : color, stroke: color, "stroke-width": 2 });
      });
    }
    const limits = { min: 0, max: sweep.rates.length - 1, step: 1, value: at, text: rate };
    const dot = put("circle", "handle", { cx: x(at), cy: bottom, r: 8, fill: "var(--bn-ink)" });
    figure.handle(dot, "Learning rate", "x", limits, x, (i) => (at = i));

    // Right: what happened at the chosen rate, for each seed.
    const [left, top] = beside ? [edge + 58, 60] : [34, 302];
    const right = width - 20;
    const last = sweep.steps[sweep.steps.length - 1];
    const step = bn.scale([0, last], [left, right]);
    const floor = top + 152;
    const height = grid(put, "curves", `The five seeds at the rate ${rate(at)} (%)`, left, right, top, floor);
    figure.axis(put, "steps", floor, step, [0, last / 2, last], "training steps", (t) => t.toLocaleString("en"));
    for (const { name, color, runs, lost } of visible) {
      runs[at].forEach((run, seed) => {
        const end = lost[at][seed];
        const points = run.map((value, i) => [step(end && i === run.length - 1 ? end : sweep.steps[i]), height(value)]);
        put("path", `run-${name}-${seed}`, { d: bn.line(points), class: "bn-curve", stroke: color, opacity: 0.75 });
      });
      const gone = lost[at].filter((one) => one);
      const place = { x: step(Math.max(0, ...gone)) + 5, y: height(200), fill: color, class: "bn-label" };
      if (gone.length) put("text", `lost-${name}`, place, `${gone.length}∞`);
    }

    const heard = arms.map(({ name, runs, lost }) => {
      const { median, least, most, low } = bn.arithmetic.rates(ends(runs[at]));
      const gone = lost[at].filter((one) => one);
      const range = `${percent(median)} % (${percent(least)} to ${percent(most)})`;
      const overflow = gone.length ? `; ${gone.length} of 5 overflow, in step ${spread(gone)}` : "";
      const stuck = low > gone.length ? `; ${low - gone.length} of 5 end below 50 %` : "";
      numbers[name] = range + overflow + stuck;
      return `${percent(median)} percent ${name} BatchNorm`;
    });
    figure.say(`Rate ${rate(at)}: ${heard.join(", ")}.`);
  });

  function spread(steps) {
    const [first, last] = [Math.min(...steps), Math.max(...steps)];
    return first === last ? `${first}` : `${first} to ${last}`;
  }

  const numbers = figure.numbers({ without: "without BN", with: "with BN" });
  const controls = figure.row();
  figure.choice(controls, "Network", nets.map((one) => [one, one]), net, (one) => {
    net = one;
    if (!find()) {
      depth = 6; // the deepest that every network has
      depths[1].checked = true;
    }
    depths[2].disabled = !figure.data.some((sweep) => sweep.net === net && sweep.depth === 12);
  });
  const deep = figure.row();
  figure.choice(deep, "Depth", [3, 6, 12].map((one) => [one, one]), depth, (one) => (depth = one));
  const depths = deep.querySelectorAll("input");
  figure.choice(deep, "Show", ["both", "without", "with"].map((one) => [one, one]), shown, (one) => (shown = one));
});
