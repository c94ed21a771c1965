/* Which numbers share a mean: batch, layer, instance and group normalization on one small array. */
"use strict";

/* Normalizes x, a flat list of shape (N, C, H, W); which values share a mean, and x̂ of each. */
bn.arithmetic.axes = (x, [n, c, h, w], way, eps) => {
  const share = {
    batch: (image, channel) => `${channel}`,
    layer: (image) => `${image}`,
    instance: (image, channel) => `${image} ${channel}`,
    group: (image, channel) => `${image} ${Math.floor(channel / 2)}`,
    position: (image, channel, row, column) => `${channel} ${row} ${column}`,
    wrong: (image, channel, row) => `${row}`,
  }[way];
  const shared = x.map((_, i) => {
    const [image, channel, row] = [i / (c * h * w), (i / (h * w)) % c, (i / w) % h].map(Math.floor);
    return share(image, channel, row, i % w);
  });
  const statistics = {};
  for (const key of new Set(shared)) statistics[key] = bn.moments(x.filter((_, i) => shared[i] === key));
  const normalized = x.map((value, i) => {
    const { mean, variance } = statistics[shared[i]];
    return (value - mean) / Math.sqrt(variance + eps);
  });
  return { shared, mean: shared.map((key) => statistics[key].mean), normalized };
};

bn.figure("axes", (figure) => {
  const SHAPE = [3, 4, 3, 3];
  const [N, C, SIDE] = SHAPE;
  const P = SIDE * SIDE;
  const draw = bn.normal(7);
  const x = Array.from({ length: N * C * P }, (_, i) => (Math.floor(i / P) % C) - 1 + draw());
  const other = x.map((value, i) => (i < 2 * C * P ? value : 2 * draw() + 1)); // with another image 2
  let [way, chosen, changed] = ["batch", 13, false];

  const place = (i) => [i / (C * P), (i / P) % C, (i / SIDE) % SIDE, i % SIDE].map(Math.floor);
  const index = ([image, channel, row, column]) => ((image * C + channel) * SIDE + row) * SIDE + column;

  const cellOf = (width) => Math.min(24, Math.floor((width - 74) / (C * SIDE)));
  const heightOf = (width) => 22 + N * (SIDE * cellOf(width) + 8);
  const title = "Three images with four channels each, and nine positions in each channel";
  const svg = figure.drawing(title, heightOf, (put, width) => {
    const cell = cellOf(width);
    const pitch = cell * SIDE + 8;
    const [left, top] = [Math.max(50, (width - C * pitch) / 2), 22];
    const before = bn.arithmetic.axes(x, SHAPE, way, 1e-5);
    const after = changed ? bn.arithmetic.axes(other, SHAPE, way, 1e-5) : before;
    const moved = before.normalized.map((value, i) => Math.abs(value - after.normalized[i]) > 1e-9);
    const shares = (i) => before.shared[i] === before.shared[chosen];

    const label = (name, k, x, y, side) => put("text", `${name}-${k}`, { x, y, class: `bn-tick ${side}` }, `${name} ${k}`);
    for (let k = 0; k < C; k++) label("channel", k, left + k * pitch + 1.5 * cell, 12, "");
    for (let k = 0; k < N; k++) label("image", k, left - 6, top + k * pitch + 1.5 * cell + 4, "bn-end");
    const corner = (i) => {
      const [image, channel, row, column] = place(i);
      return [left + channel * pitch + column * cell, top + image * pitch + row * cell];
    };
    x.forEach((_, i) => {
      const [cx, cy] = corner(i);
      const size = { x: cx + 1, y: cy + 1, width: cell - 2, height: cell - 2, rx: 2 };
      put("rect", `cell-${i}`, { ...size, fill: `var(--bn-${shares(i) ? "blue" : "grid"})`, "data-lit": shares(i) });
      const fill = `var(--bn-${shares(i) ? "paper" : "orange"})`;
      if (moved[i]) put("circle", `dot-${i}`, { cx: cx + cell / 2, cy: cy + cell / 2, r: cell / 5, fill });
    });
    const [cx, cy] = corner(chosen);
    const ring = put("rect", "ring", { x: cx, y: cy, width: cell, height: cell, rx: 3, fill: "transparent" });
    ring.style.cssText = "stroke: var(--bn-ink); stroke-width: 2.5; cursor: pointer";
    const [image, channel, row, column] = place(chosen);
    const name = `image ${image}, channel ${channel}, row ${row}, column ${column}`;
    const limits = { "aria-valuemin": 0, "aria-valuemax": x.length - 1 };
    const now = { "aria-valuenow": chosen, "aria-valuetext": name };
    put("rect", "ring", { role: "slider", tabindex: 0, "aria-label": "The chosen number", ...limits, ...now });
    ring.onkeydown = (event) => {
      const [down, right] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key] || [];
      if (["Home", "End"].includes(event.key)) chosen = event.key === "End" ? x.length - 1 : 0;
      else if (down === undefined) return;
      event.preventDefault();
      if (down === undefined) return figure.update();
      const [y, z] = [image * SIDE + row + down, channel * SIDE + column + right]; // in the picture
      if (y < 0 || y >= N * SIDE || z < 0 || z >= C * SIDE) return;
      chosen = index([Math.floor(y / SIDE), Math.floor(z / SIDE), y % SIDE, z % SIDE]);
      figure.update();
    };
    svg.onpointerdown = svg.onpointermove = (event) => {
      if (!event.buttons) return;
      const box = svg.getBoundingClientRect();
      const [right, down] = [event.clientX - box.left, event.clientY - box.top];
      const hit = x.findIndex((_, i) => {
        const [a, b] = corner(i);
        return right >= a && right < a + cell && down >= b && down < b + cell;
      });
      if (hit < 0) return;
      chosen = hit;
      figure.update();
      ring.focus({ preventScroll: true });
    };

    const count = before.shared.filter((_, i) => shares(i)).length;
    const inFirst = moved.slice(0, C * P).filter(Boolean).length;
    numbers.count = `${count} values`;
    numbers.mean = bn.format(after.mean[chosen]);
    numbers.normalized = bn.format(after.normalized[chosen]);
    numbers.changed = changed ? `${inFirst} of ${C * P} outputs` : "nothing yet";
    swap.textContent = changed ? "Put image 2 back" : "Change image 2";
    figure.say(`${name}: ${count} values share its mean${changed ? `; of image 0, ${inFirst} outputs have changed` : ""}.`);
  });
  svg.style.touchAction = "pan-y";
  const numbers = figure.numbers({ count: "share a mean", mean: "μ", normalized: "x̂", changed: "changed in image 0" });
  const controls = figure.row();
  const ways = ["batch", "layer", "instance", "group"].map((one) => [one, one]);
  ways.push(["position", "each position"], ["wrong", "wrong axes"]);
  figure.choice(controls, "Normalization", ways, way, (one) => (way = one));
  const swap = figure.button(controls, "Change image 2", () => (changed = !changed));
});
