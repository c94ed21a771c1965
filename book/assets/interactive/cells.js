/* What figures on sets of numbers share: normalization over any sets, and a drawing of blocks of
   cells of which one is chosen. */
"use strict";

/* Normalizes the list x: values with the same entry in `shared` share their statistics. Without
   `centered` the mean is not subtracted. Returns the mean of each one's set, and x̂. */
bn.normalize = (x, shared, eps, centered = true) => {
  const sets = {};
  for (const key of new Set(shared)) sets[key] = bn.moments(x.filter((_, i) => shared[i] === key));
  const normalized = x.map((value, i) => {
    const { mean, variance } = sets[shared[i]];
    return centered ? (value - mean) / Math.sqrt(variance + eps) : value / Math.sqrt(variance + mean ** 2 + eps);
  });
  return { mean: shared.map((key) => sets[key].mean), normalized };
};

/* Draws rows × columns blocks of high × wide cells, numbered block after block. A reader chooses one
   by keyboard, pointer or finger. look(chosen) returns the name of that cell, and three lists: which
   cells are `lit`, have a `ring`, have a `dot`. `above` and `beside` are words, by the cell at which
   they stand. */
bn.cells = (figure, title, [rows, columns, high, wide], { above, beside }, chosen, look) => {
  const spots = Array.from({ length: rows * columns * high * wide }, (_, i) => {
    const block = Math.floor(i / (high * wide));
    const [row, column] = [Math.floor(block / columns), block % columns];
    return [row * high + (Math.floor(i / wide) % high), column * wide + (i % wide)]; // down, right
  });
  const [left, top, gap] = [58, 22, 8];
  const cellOf = (width) => Math.min(24, Math.floor((width - left - gap * (columns - 1)) / (columns * wide)));
  const heightOf = (width) => top + rows * (high * cellOf(width) + gap);
  const svg = figure.drawing(title, heightOf, (put, width) => {
    const cell = cellOf(width);
    const start = Math.max(left, (width - columns * (wide * cell + gap)) / 2);
    const corners = spots.map(([down, right]) => [
      start + right * cell + gap * Math.floor(right / wide),
      top + down * cell + gap * Math.floor(down / high),
    ]);
    const { name, lit, ring, dot } = look(chosen);
    for (const [i, text] of Object.entries(above)) {
      put("text", `above-${i}`, { x: corners[i][0] + (wide * cell) / 2, y: 12, class: "bn-tick" }, text);
    }
    for (const [i, text] of Object.entries(beside)) {
      put("text", `beside-${i}`, { x: start - 6, y: corners[i][1] + cell / 2 + 4, class: "bn-tick bn-end" }, text);
    }
    corners.forEach(([x, y], i) => {
      const box = { x: x + 1, y: y + 1, width: cell - 2, height: cell - 2, rx: 2 };
      put("rect", `cell-${i}`, { ...box, fill: `var(--bn-${lit[i] ? "blue" : "grid"})`, "data-lit": lit[i] });
      const color = `var(--bn-${lit[i] ? "paper" : "orange"})`;
      const middle = { cx: x + cell / 2, cy: y + cell / 2 };
      if (ring[i]) put("circle", `ring-${i}`, { ...middle, r: cell / 3, fill: "none", stroke: color, "stroke-width": 1.5 });
      if (dot[i]) put("circle", `dot-${i}`, { ...middle, r: cell / 5, fill: color });
    });
    const [x, y] = corners[chosen];
    const box = { x, y, width: cell, height: cell, rx: 3, fill: "transparent" };
    const value = { "aria-valuemin": 0, "aria-valuemax": spots.length - 1, "aria-valuenow": chosen, "aria-valuetext": name };
    const frame = put("rect", "frame", { ...box, role: "slider", tabindex: 0, "aria-label": "The chosen number", ...value });
    frame.style.cssText = "stroke: var(--bn-ink); stroke-width: 2.5; cursor: pointer";
    const choose = (i) => {
      if (i < 0) return;
      chosen = i;
      figure.update();
      frame.focus({ preventScroll: true });
    };
    frame.onkeydown = (event) => {
      const [down, right] = spots[chosen];
      const to = {
        ArrowLeft: [down, right - 1],
        ArrowRight: [down, right + 1],
        ArrowUp: [down - 1, right],
        ArrowDown: [down + 1, right],
        Home: spots[0],
        End: spots.at(-1),
      }[event.key];
      if (!to) return;
      event.preventDefault();
      choose(spots.findIndex((spot) => spot[0] === to[0] && spot[1] === to[1]));
    };
    svg.onpointerdown = svg.onpointermove = (event) => {
      if (!event.buttons) return;
      const box = svg.getBoundingClientRect();
      const inside = (z, from) => z >= from && z < from + cell;
      choose(corners.findIndex(([x, y]) => inside(event.clientX - box.left, x) && inside(event.clientY - box.top, y)));
    };
  });
  svg.style.touchAction = "pan-y";
};
