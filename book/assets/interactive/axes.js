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
  return { shared, ...bn.normalize(x, shared, eps) };
};

bn.figure("axes", (figure) => {
  const SHAPE = [3, 4, 3, 3];
  const [N, C, SIDE] = SHAPE;
  const P = SIDE * SIDE;
  const draw = bn.normal(7);
  const x = Array.from({ length: N * C * P }, (_, i) => (Math.floor(i / P) % C) - 1 + draw());
  const other = x.map((value, i) => (i < 2 * C * P ? value : 2 * draw() + 1)); // with another image 2
  let [way, changed] = ["batch", false];

  const above = Object.fromEntries([0, 1, 2, 3].map((k) => [k * P, `channel ${k}`]));
  const beside = Object.fromEntries([0, 1, 2].map((k) => [k * C * P + SIDE, `image ${k}`]));
  const title = "Three images with four channels each, and nine positions in each channel";
  bn.cells(figure, title, SHAPE, { above, beside }, 13, (chosen) => {
    const before = bn.arithmetic.axes(x, SHAPE, way, 1e-5);
    const after = changed ? bn.arithmetic.axes(other, SHAPE, way, 1e-5) : before;
    const dot = before.normalized.map((value, i) => Math.abs(value - after.normalized[i]) > 1e-9);
    const lit = before.shared.map((key) => key === before.shared[chosen]);
    const [image, channel, row] = [chosen / (C * P), (chosen / P) % C, (chosen / SIDE) % SIDE].map(Math.floor);
    const name = `image ${image}, channel ${channel}, row ${row}, column ${chosen % SIDE}`;
    const count = lit.filter(Boolean).length;
    const inFirst = dot.slice(0, C * P).filter(Boolean).length;
    numbers.count = `${count} values`;
    numbers.mean = bn.format(after.mean[chosen]);
    numbers.normalized = bn.format(after.normalized[chosen]);
    numbers.changed = changed ? `${inFirst} of ${C * P} outputs` : "nothing yet";
    swap.textContent = changed ? "Put image 2 back" : "Change image 2";
    figure.say(`${name}: ${count} values share its mean${changed ? `; of image 0, ${inFirst} outputs have changed` : ""}.`);
    return { name, lit, ring: [], dot };
  });
  const numbers = figure.numbers({ count: "share a mean", mean: "μ", normalized: "x̂", changed: "changed in image 0" });
  const controls = figure.row();
  const ways = ["batch", "layer", "instance", "group"].map((one) => [one, one]);
  ways.push(["position", "each position"], ["wrong", "wrong axes"]);
  figure.choice(controls, "Normalization", ways, way, (one) => (way = one));
  const swap = figure.button(controls, "Change image 2", () => (changed = !changed));
});
