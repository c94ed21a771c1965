/* Examples on three ranks: what each of them sends, and what they make of it together. */
"use strict";

bn.arithmetic.merge = (parts) => {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const counts = parts.map((part) => part.length);
  const means = parts.map((part) => sum(part) / (part.length || 1)); // 0 for an empty part
  const m2s = parts.map((part, r) => sum(part.map((x) => (x - means[r]) ** 2)));
  const n = sum(counts);
  const mean = sum(counts.map((count, r) => count * means[r])) / n;
  const between = counts.map((count, r) => count * (means[r] - mean) ** 2);
  const within = sum(m2s);
  const m2 = within + sum(between);

  const whole = bn.moments(parts.flat()); // as one machine would see them
  const equal = { mean: sum(means) / parts.length }; // every rank with the same weight
  const squares = parts.map((part) => sum(part.map((x) => x * x)) / part.length);
  equal.variance = sum(squares) / parts.length - equal.mean ** 2;
  return { counts, means, m2s, n, mean, within, between, m2, variance: m2 / n, whole, equal };
};

bn.figure("merge", (figure) => {
  const COLORS = ["blue", "green", "purple"].map((name) => `var(--bn-${name})`);
  const SUB = ["₀", "₁", "₂"];
  const START = [[1, 0], [2, 0], [3, 0], [2, 1], [6.5, 2], [7.5, 2], [8.5, 2], [9.5, 2]]; // x and rank
  const HEIGHTS = [34, 84, 134]; // of the lines of the ranks
  let examples = START.map(([x, rank]) => ({ x, rank }));
  let marked = 3;
  const f = bn.format;

  figure.drawing("Eight examples on three ranks, and all of them together", 278, (put, width) => {
    const x = bn.scale([0, 10], [64, width - 14]);
    const parts = COLORS.map((_, r) => examples.filter(({ rank }) => rank === r).map((one) => one.x));
    const { counts, means, m2s, n, mean, within, between, m2, variance, whole, equal } = bn.arithmetic.merge(parts);

    HEIGHTS.forEach((y, r) => {
      put("text", `rank-${r}`, { x: 2, y: y + 5, class: "bn-label" }, `rank ${r}`);
      put("line", `line-${r}`, { x1: x(0), x2: x(10), y1: y, y2: y, class: "bn-gridline" });
      if (!counts[r]) return;
      put("line", `mean-${r}`, { x1: x(means[r]), x2: x(means[r]), y1: y - 14, y2: y + 14, stroke: COLORS[r], "stroke-width": 2 });
      put("text", `mean-text-${r}`, { x: x(means[r]), y: y - 18, class: "bn-tick" }, `μ${SUB[r]}`);
    });

    const y = 196; // of the whole
    const [left, right] = [mean - variance ** 0.5, mean + variance ** 0.5].map((v) => x(Math.min(10, Math.max(0, v))));
    put("text", "whole", { x: 2, y: y + 5, class: "bn-label" }, "all");
    put("rect", "band", { x: left, y: y - 14, width: right - left, height: 18, class: "bn-band" });
    figure.axis(put, "x", y, x, [0, 2, 4, 6, 8, 10], null);
    examples.forEach((one, i) => put("circle", `small-${i}`, { cx: x(one.x), cy: y, r: 4, fill: COLORS[one.rank] }));
    put("line", "mean", { x1: x(mean), x2: x(mean), y1: y - 18, y2: y + 4, stroke: "var(--bn-ink)", "stroke-width": 2 });
    put("text", "mean-text", { x: x(mean), y: y - 22, class: "bn-middle" }, "μ");
    if (Number.isFinite(equal.variance)) {
      const at = x(equal.mean);
      put("line", "equal", { x1: at, x2: at, y1: y - 18, y2: y + 4, stroke: "var(--bn-orange)", "stroke-width": 2, "stroke-dasharray": "4 3" });
    }

    // M as a bar: what scatters within the parts, then how the parts scatter.
    const length = bn.scale([0, 200], [0, x(10) - x(0)]); // 200: four examples at either end
    let at = x(0);
    [...m2s, ...between].forEach((value, i) => {
      put("rect", `part-${i}`, { x: at, y: 258, width: length(value), height: 16, fill: COLORS[i % 3], opacity: i < 3 ? 1 : 0.4 });
      at += length(value);
    });
    put("text", "m", { x: 2, y: 271, class: "bn-label" }, "M");
    put("text", "m-text", { x: 2, y: 248 }, `${f(within)} within the ranks + ${f(m2 - within)} between them`);

    const ring = examples[marked];
    put("circle", "ring", { cx: x(ring.x), cy: HEIGHTS[ring.rank], r: 12, fill: "none", stroke: "var(--bn-ink)" });
    examples.forEach((one, i) => {
      const dot = put("circle", `dot-${i}`, { cx: x(one.x), cy: HEIGHTS[one.rank], r: 8, fill: COLORS[one.rank] });
      const limits = { min: 0, max: 10, step: 0.5, value: one.x, text: (v) => f(v, 1) };
      figure.handle(dot, `Example ${i + 1} on rank ${one.rank}`, "x", limits, x, (v) => (one.x = v));
      dot.onfocus = () => {
        marked = i;
        figure.update();
      };
      const along = dot.onpointermove;
      dot.onpointermove = (event) => {
        if (!dot.hasPointerCapture(event.pointerId)) return;
        const height = event.clientY - dot.ownerSVGElement.getBoundingClientRect().top;
        one.rank = height < 59 ? 0 : height < 109 ? 1 : 2; // dragged up or down to another rank
        along(event);
      };
    });
    radios[ring.rank].checked = true;

    counts.forEach((count, r) => {
      sent[`rank${r}`] = `n${SUB[r]} = ${count}   μ${SUB[r]} = ${f(means[r])}   M${SUB[r]} = ${f(m2s[r])}`;
    });
    merged.n = `${counts.join(" + ")} = ${n}`;
    merged.mean = `(${counts.map((count, r) => `${count} · ${f(means[r])}`).join(" + ")}) / ${n} = ${f(mean)}`;
    merged.m2 = `${m2s.map((one, r) => `(${f(one)} + ${f(between[r])})`).join(" + ")} = ${f(m2)}`;
    merged.variance = `${f(m2)} / ${n} = ${f(variance)}`;
    others.whole = `μ = ${f(whole.mean)}   σ² = ${f(whole.variance)}`;
    others.equal = counts.includes(0) ? "a rank without examples has no mean" : `μ = ${f(equal.mean)}   σ² = ${f(equal.variance)}`;
    figure.say(`Merged: mean ${f(mean)}, variance ${f(variance)}. Equal weights: ${others.equal.textContent}.`);
  });

  const sent = figure.numbers({ rank0: "rank 0", rank1: "rank 1", rank2: "rank 2" });
  const merged = figure.numbers({ n: "n", mean: "μ", m2: "M", variance: "σ²" });
  const others = figure.numbers({ whole: "one machine", equal: "equal weights" });
  const controls = figure.row();
  const ranks = [0, 1, 2].map((r) => [r, `rank ${r}`]);
  figure.choice(controls, "The marked example is on", ranks, examples[marked].rank, (r) => (examples[marked].rank = r));
  const radios = controls.querySelectorAll("input");
  figure.button(controls, "Start again", () => (examples = START.map(([x, rank]) => ({ x, rank }))));
});
