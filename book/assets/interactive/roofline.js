/* The roofline: what a training step of BatchNorm takes at least, by its bytes and its arithmetic. */
"use strict";

/* A step of so many passes over an array of so many values of `size` bytes each: 12 operations a value. */
bn.arithmetic.roofline = (passes, size, values, bandwidth, peak) => {
  const [moved, operations] = [passes * size * values, 12 * values];
  return { moved, intensity: operations / moved, bytes: moved / bandwidth, arithmetic: operations / peak };
};

bn.figure("roofline", (figure) => {
  const WAYS = [
    [48, "separate operations, 48 passes"],
    [8, "8 passes"],
    [5, "5 passes"],
  ];
  const H200 = { bandwidth: 4.8, peak: 67 }; // trillion bytes and operations a second
  const LEFTMOST = 0.02;
  let [passes, size, images, machine] = [48, 4, 256, { ...H200 }];
  const count = (n) => bn.arithmetic.roofline(n, size, images * 256 * 56 * 56, machine.bandwidth * 1e12, machine.peak * 1e12);
  const short = (value) => String(Number(value.toPrecision(2)));

  /* One end of the roof, moved up and down in steps of a tenth of an octave. */
  function end(put, name, label, [low, high], x, y, unit, height) {
    const value = machine[name];
    const dot = put("circle", name, { cx: x, cy: height(value), r: 8, fill: "var(--bn-ink)" });
    const limits = {
      min: Math.log2(low),
      max: Math.log2(high),
      step: 0.1,
      value: Math.log2(value),
      text: (v) => `${short(2 ** v)} trillion ${unit} a second`,
    };
    const pixel = { inverse: (p) => Math.log2(y.inverse(p) / (height.times ?? 1)) };
    figure.handle(dot, label, "y", limits, pixel, (v) => (machine[name] = Number(short(2 ** v))));
  }

  figure.drawing("The roofline: operations a second that are possible, by operations for each byte", 286, (put, width) => {
    const [left, right, bottom] = [44, width - 22, 240];
    const x = bn.scale([LEFTMOST, 2500], [left, right], true);
    const y = bn.scale([0.008, 150], [bottom, 30], true);
    const { bandwidth, peak } = machine;
    const possible = (intensity) => Math.min(peak, bandwidth * intensity);
    put("text", "title", { x: 2, y: 14, class: "bn-label" }, "trillion operations a second");
    for (const tick of [0.1, 1, 10, 100]) {
      put("line", `grid-${tick}`, { x1: left, x2: right, y1: y(tick), y2: y(tick), class: "bn-gridline" });
      put("text", `y-${tick}`, { x: left - 14, y: y(tick) + 4, class: "bn-tick bn-end" }, tick);
    }
    figure.axis(put, "x", bottom, x, [0.1, 1, 10, 100, 1000], "operations for each byte");
    put("line", "floor", { x1: left, x2: right, y1: bottom, y2: bottom, class: "bn-axis" });

    const ridge = peak / bandwidth;
    const roof = [LEFTMOST, ridge, 2500].map((intensity) => [x(intensity), y(possible(intensity))]);
    put("path", "roof", { d: bn.line(roof), class: "bn-curve", stroke: "var(--bn-ink)" });
    const [rx, ry] = roof[1];
    put("line", "ridge", { x1: rx, x2: rx, y1: ry, y2: bottom, class: "bn-axis", "stroke-dasharray": "3 4" });
    put("text", "bytes-side", { x: rx - 8, y: bottom - 8, class: "bn-end" }, "bytes decide");
    if (right - rx > 120) put("text", "arithmetic-side", { x: rx + 8, y: bottom - 8 }, "arithmetic decides");

    const product = (2 * 4096) / (3 * size);
    put("circle", "product", { cx: x(product), cy: y(possible(product)), r: 5, fill: "var(--bn-purple)" });
    put("text", "product-text", { x: right - 14, y: y(possible(product)) - 12, class: "bn-end" }, "matrix product");
    for (const [n] of WAYS) {
      const { intensity } = count(n);
      const place = { cx: x(intensity), cy: y(possible(intensity)) };
      const chosen = n === passes;
      put("circle", `way-${n}`, { ...place, r: chosen ? 7 : 4, fill: chosen ? "var(--bn-blue)" : "var(--bn-muted)" });
      if (chosen) put("text", "way", { x: place.cx + 10, y: place.cy + 20, class: "bn-label" }, `${n} passes`);
    }
    const slope = Object.assign((value) => y(value * LEFTMOST), { times: LEFTMOST });
    end(put, "bandwidth", "Bandwidth", [1, 16], left, y, "bytes", slope);
    end(put, "peak", "Peak of the arithmetic", [2, 128], right, y, "operations", y);
  });

  figure.drawing("How long the bytes and the arithmetic take, at least", 84, (put, width) => {
    const now = count(passes);
    const most = Math.max(count(48).bytes, now.arithmetic);
    const length = bn.scale([0, most], [0, width - 4]);
    const ms = (seconds) => `${bn.format(1000 * seconds, 3)} ms`;
    put("text", "bytes", { x: 2, y: 14 }, `the bytes take ${ms(now.bytes)}; a block is a pass`);
    for (let i = 0; i < passes; i++) {
      const [from, to] = [i, i + 1].map((k) => length((now.bytes * k) / passes));
      put("rect", `pass-${i}`, { x: 2 + from, y: 20, width: Math.max(0.5, to - from - 1), height: 14, fill: "var(--bn-blue)" });
    }
    put("text", "arithmetic", { x: 2, y: 58 }, `the arithmetic takes ${ms(now.arithmetic)}`);
    put("rect", "work", { x: 2, y: 64, width: length(now.arithmetic), height: 14, fill: "var(--bn-orange)" });

    const bytes = now.bytes >= now.arithmetic;
    const bound = ms(Math.max(now.bytes, now.arithmetic));
    numbers.moved = `${bn.format(now.moved / 1e9)} GB`;
    numbers.intensity = String(Number(now.intensity.toPrecision(3)));
    numbers.bound = `${bound}: the ${bytes ? "bytes decide" : "arithmetic decides"}`;
    numbers.machine = `${machine.bandwidth} trillion bytes, ${machine.peak} trillion operations a second`;
    figure.say(`At best ${numbers.bound.textContent}.`);
  });

  const numbers = figure.numbers({
    moved: "bytes moved",
    intensity: "operations for each byte",
    bound: "at best",
    machine: "machine",
  });
  figure.choice(figure.row(), "Written as", WAYS, passes, (n) => (passes = n));
  const controls = figure.row();
  const formats = [[4, "float32"], [2, "bfloat16"]];
  figure.choice(controls, "x is stored in", formats, size, (n) => (size = n));
  const range = { min: 32, max: 512, step: 32, value: images, text: String };
  figure.slider(controls, "Images", range, (n) => (images = n));
  figure.button(controls, "Back to the H200", () => (machine = { ...H200 }));
});
