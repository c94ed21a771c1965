/* The graph of BatchNorm, walked forward and then backward, one operation at a time. */
"use strict";

/* Values v, derivatives d, the two parts of some, what the sums add up: lists of m numbers, or of one. */
bn.arithmetic.graph = (x, dy, gamma, beta, eps) => {
  const each = (f, ...lists) => x.map((_, i) => f(...lists.map((list) => list[i % list.length])));
  const [plus, times] = [(a, b) => a + b, (a, b) => a * b];
  const sum = (list) => [list.reduce(plus, 0)];
  const [v, d, parts, terms] = [{ x, gamma: [gamma], beta: [beta] }, { y: dy }, {}, {}];
  v.mean = [sum(x)[0] / x.length];
  v.centered = each((a, b) => a - b, x, v.mean);
  v.squared = v.centered.map((a) => a ** 2);
  v.var = [sum(v.squared)[0] / x.length];
  v.std = [Math.sqrt(v.var[0] + eps)];
  v.inv_std = [1 / v.std[0]];
  v.x_hat = each(times, v.centered, v.inv_std);
  v.scaled = each(times, v.gamma, v.x_hat);
  v.y = each(plus, v.scaled, v.beta);

  d.scaled = terms.beta = dy;
  terms.gamma = each(times, d.scaled, v.x_hat);
  d.x_hat = each(times, d.scaled, v.gamma);
  terms.inv_std = each(times, d.x_hat, v.centered);
  for (const name of ["beta", "gamma", "inv_std"]) d[name] = sum(terms[name]);
  d.std = [-d.inv_std[0] / v.std[0] ** 2];
  d.var = [d.std[0] / (2 * v.std[0])];
  d.squared = x.map(() => d.var[0] / x.length);
  parts.centered = [each(times, d.x_hat, v.inv_std), each((a, b) => 2 * a * b, v.centered, d.squared)];
  d.centered = each(plus, ...parts.centered);
  terms.mean = d.centered.map((a) => -a);
  d.mean = sum(terms.mean);
  parts.x = [d.centered, x.map(() => d.mean[0] / x.length)];
  d.x = each(plus, ...parts.x);
  return { v, d, parts, terms };
};

bn.figure("graph", (figure) => {
  // Column and row, or row and column on a narrow screen.
  const PLACES = {
    x: [0, 0], mean: [0, 1], centered: [1, 0], squared: [1, 1], var: [2, 1], std: [3, 1],
    inv_std: [4, 1], x_hat: [4, 0], gamma: [5, 1], scaled: [5, 0], beta: [6, 1], y: [6, 0],
  };
  // What is computed, from what, how; then the step back: name, rules, reason.
  const STEPS = [
    ["mean", ["x"], "Σ x / m", "the mean", "dx = first part + dmean / m",
      "The second arrow that leaves x: an equal share for each example, which is added."],
    ["centered", ["x", "mean"], "x − mean", "the centering", "dx = dcentered, a first part\ndmean = −Σ dcentered",
      "The mean is broadcast, with a minus sign: it gets minus the sum."],
    ["squared", ["centered"], "centered²", "the square", "dcentered = first part + 2 · centered · dsquared",
      "The second arrow that leaves centered. The two parts add up."],
    ["var", ["squared"], "Σ squared / m", "the variance", "dsquared = dvar / m",
      "What is summed forward is broadcast backward: each square gets a share."],
    ["std", ["var"], "√(var + ε)", "the standard deviation", "dvar = dstd / (2 · std)",
      "The derivative of a root is 1 over twice the root."],
    ["inv_std", ["std"], "1 / std", "1 / std", "dstd = −dinv_std / std²", "The derivative of 1 / std is −1 / std²."],
    ["x_hat", ["centered", "inv_std"], "centered · inv_std", "the division",
      "dcentered = dx_hat · inv_std, a first part\ndinv_std = Σ dx_hat · centered",
      "A product. inv_std is broadcast, so it gets the sum."],
    ["scaled", ["x_hat", "gamma"], "gamma · x_hat", "the scale", "dx_hat = dscaled · gamma\ndgamma = Σ dscaled · x_hat",
      "The derivative of a product by one factor is the other factor."],
    ["y", ["scaled", "beta"], "scaled + beta", "the shift", "dscaled = dy\ndbeta = Σ dy",
      "A sum passes the gradient on. beta is one number for all examples: it gets the sum."],
  ];
  const [TURN, LAST] = [10, 19]; // at the turn dy comes in
  const uses = (name) => (name === "y" ? [9] : STEPS.flatMap(([, from], i) => (from.includes(name) ? i : [])));
  const given = { x: [1, 2, 6], dy: [0.5, -0.5, 1.5] };
  const paper = matchMedia("print");
  paper.onchange = () => figure.update();
  let step = 0;

  const short = (value) => bn.format(value, Math.max(0, 3 - Math.abs(value).toFixed(0).length));
  const long = (list) => list.map((v) => bn.format(v, 3)).join(",  ");
  const add = (list) => long(list).replaceAll(",  ", " + ").replaceAll("+ −", "− ");

  figure.drawing("The graph with its numbers", (w) => (w < 620 ? 518 : 192), (put, width) => {
    const { v, d, parts, terms } = bn.arithmetic.graph(given.x, given.dy, 1.5, 0.5, 1e-5);
    const now = paper.matches ? LAST : step;
    const back = now > TURN;
    const [result, from, formula, title, rules, why] = STEPS[back ? LAST - now : now < TURN ? now - 1 : -1] || [null, []];
    const known = (name) => !STEPS.slice(now).some(([to]) => to === name);
    const reached = (name) => now >= LAST - Math.max(...uses(name));
    const partly = (name) => now < LAST - Math.min(...uses(name));
    const derivative = (name) => (partly(name) ? parts[name][0] : d[name]);
    const second = back && from.find((name) => uses(name)[1] && !partly(name));

    const wide = width >= 620;
    const box = wide ? Math.min(84, width / 7 - 14) : 114;
    const tall = (name) => 23 + 15 * v[name].length;
    const middle = ([column, row]) =>
      wide
        ? [(column + 0.5) * (width / 7), row ? 155 : 37]
        : [width / 2 + (row - 0.5) * Math.min(width - box - 4, 190), [36, 120, 189, 243, 312, 396, 480][column]];
    STEPS.forEach(([to, froms], i) => {
      for (const one of froms) {
        const [[ax, ay], [bx, by]] = [middle(PLACES[one]), middle(PLACES[to])];
        const [dx, dy] = [bx - ax, by - ay];
        const inside = (name) => Math.min((box / 2 + 2) / Math.abs(dx), (tall(name) / 2 + 2) / Math.abs(dy));
        const ends = [inside(one), 1 - inside(to)].map((t) => [ax + dx * t, ay + dy * t]);
        const returned = now >= LAST - i;
        const [tail, head] = returned ? ends.reverse() : ends;
        const angle = Math.atan2(head[1] - tail[1], head[0] - tail[0]);
        const barb = (turn) => [head[0] - 7 * Math.cos(angle + turn), head[1] - 7 * Math.sin(angle + turn)];
        const stroke = `var(--bn-${returned ? "purple" : now > i ? "blue" : "muted"})`;
        const line = bn.line([tail, head, barb(0.5), head, barb(-0.5)]);
        put("path", `${one}-${to}`, { d: line, fill: "none", stroke, "stroke-width": to === result || one === second ? 3 : 1.3 });
      }
    });

    for (const name of Object.keys(PLACES)) {
      const [left, top] = [-box, -tall(name)].map((size, i) => middle(PLACES[name])[i] + size / 2);
      const active = (second ? [second] : back ? from : [result]).includes(name);
      const fill = `color-mix(in srgb, var(--bn-${back ? "purple" : "blue"}) ${active ? 15 : 0}%, var(--bn-paper))`;
      const stroke = `var(--bn-${parts[name] ? "orange" : "blue"})`;
      const size = { x: left, y: top, width: box, height: tall(name), rx: 5 };
      put("rect", `${name}-box`, { ...size, fill, stroke, "stroke-width": active ? 3 : 1.3 });
      put("text", name, { x: left + 5, y: top + 15, class: "bn-label" }, name);
      const column = (key, numbers, look) =>
        numbers.forEach((value, i) => put("text", `${key}-${i}`, { y: top + 30 + 15 * i, "data-name": key, ...look }, short(value)));
      if (known(name)) column(name, v[name], { x: left + box / 2 - 1, class: "bn-end", "font-size": 12 });
      if (!reached(name)) continue;
      const look = { x: left + box - 5, fill: "var(--bn-purple)", class: "bn-end", "font-size": 12 };
      column(`d${name}`, derivative(name), look);
      put("text", `d-${name}`, { y: top + 15, ...look }, "d");
    }

    const found = (name) => `d${name} = ${terms[name] ? `${add(terms[name])} = ` : ""}${long(derivative(name))}`;
    const sum = (value, i) => `example ${i + 1}: ${add(parts[second].map((part) => part[i]))} = ${long([value])}`;
    let told = ["Three examples of one feature", "x, gamma and beta are given", "", `x = ${long(given.x)}`];
    if (now) told = [`Forward ${now} of 9`, `${result} = ${formula}`, "", result && `${result} = ${long(v[result])}`];
    if (now === TURN) told = ["Now backward", "dy is given", "The derivative of the loss with respect to y.", `dy = ${long(given.dy)}`];
    if (back) told = [`Backward ${now - TURN} of 9: ${title}`, rules, why, (second ? d[second].map(sum) : from.map(found)).join("\n")];
    told.forEach((text, i) => (lines[i].textContent = text));
    next.textContent = now === LAST ? "Start again" : "Next";
    slider.set(step);
    figure.say(`${told[0]}: ${told[3].replaceAll("\n", "; ")}.`);
  }).setAttribute("role", "img");

  const words = figure.row("bn-words");
  const lines = [1, 2, 3, 4].map(() => bn.element("div", {}, words));
  const controls = figure.row();
  figure.button(controls, "Back", () => (step = Math.max(0, step - 1)));
  const next = figure.button(controls, "Next", () => (step = (step + 1) % (LAST + 1)));
  const text = (s) => (s < TURN ? `forward ${s}` : `backward ${s - TURN}`);
  const slider = figure.slider(controls, "Step", { min: 0, max: LAST, step: 1, value: 0, text }, (s) => (step = s));

  figure.drawing("x and dy of the examples", 112, (put, width) => {
    [["x", -4, 8, 0.5, [-4, -2, 0, 2, 4, 6, 8]], ["dy", -2, 2, 0.25, [-2, -1, 0, 1, 2]]].forEach(([name, min, max, step, ticks], row) => {
      const [pixel, y] = [bn.scale([min, max], [40, width - 14]), 20 + 58 * row];
      put("text", name, { x: 2, y: y + 5, class: "bn-label" }, name);
      figure.axis(put, name, y, pixel, ticks, null, (t) => bn.format(t, 0));
      given[name].forEach((value, i) => {
        const x = pixel(value);
        const dot = put("circle", `${name}-${i}`, { cx: x, cy: y, r: 9, fill: `var(--bn-${row ? "purple" : "blue"})` });
        figure.handle(dot, `${name} of example ${i + 1}`, "x", { min, max, step, value }, pixel, (v) => (given[name][i] = v));
        const look = { x, y: y + 4, fill: "var(--bn-paper)", "pointer-events": "none", class: "bn-middle" };
        put("text", `${name}-${i}-text`, look, i + 1);
      });
    });
  });
});
