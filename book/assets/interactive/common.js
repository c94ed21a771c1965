/* What the interactive figures share: a drawing as wide as its place, controls with names, numbers
   that are heard. Each figure is a script that calls bn.figure. */
"use strict";

const bn = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  let count = 0; // for ids

  function element(tag, attributes = {}, parent = null, text = null) {
    const svg = ["svg", "g", "line", "path", "circle", "rect", "text", "tspan"].includes(tag);
    const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    set(made, attributes, text);
    if (parent) parent.append(made);
    return made;
  }

  function set(node, attributes, text = null) {
    for (const [name, value] of Object.entries(attributes)) {
      if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
    }
    if (text !== null && node.textContent !== String(text)) node.textContent = text;
  }

  /* A number as text, with a real minus sign. */
  function format(value, digits = 2) {
    const text = value.toFixed(digits);
    return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
  }

  /* From numbers to pixels; .inverse goes back. */
  function scale([from, to], [left, right], log = false) {
    const f = log ? Math.log : (x) => x;
    const slope = (right - left) / (f(to) - f(from));
    const map = (x) => left + (f(x) - f(from)) * slope;
    map.inverse = (pixel) => {
      const x = f(from) + (pixel - left) / slope;
      return log ? Math.exp(x) : x;
    };
    return map;
  }

  /* The d of a path through points [[x, y], ...] in pixels. */
  function line(points) {
    return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");
  }

  /* Mean and biased variance. */
  function moments(x) {
    const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const mean = average(x);
    return { mean, variance: average(x.map((value) => (value - mean) ** 2)) };
  }

  /* A seeded source of standard normal numbers: a figure looks the same for everyone. */
  function normal(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0; // mulberry32
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  class Figure {
    constructor(root) {
      this.root = root;
      this.data = JSON.parse(root.querySelector("script")?.textContent || "null");
      this.drawings = [];
      this.body = element("div", { class: "bn-body" });
      this.status = element("p", { class: "bn-status", role: "status" }); // heard, not seen
      root.querySelector(".bn-still").replaceWith(this.body, this.status);
    }

    /* draw(put, width, height) says what is there; put(tag, key, attributes, text) makes the element
       of that key or changes it, and what is no longer put goes away; so a dragged one keeps its
       focus. Pixels are those of the screen: text stays legible. */
    drawing(label, height, draw) {
      const svg = element("svg", { role: "group", "aria-label": label, class: "bn-drawing" }, this.body);
      this.drawings.push({ svg, height, draw, made: new Map() });
      return svg;
    }

    /* A place for controls or numbers. */
    row(className = "bn-controls") {
      return element("div", { class: className }, this.body);
    }

    /* input(value) is called when it moves; text(value) is what is seen and heard. */
    slider(row, label, { min, max, step, value, text = (x) => format(x) }, input) {
      const id = `bn-control-${++count}`;
      const box = element("div", { class: "bn-slider" }, row);
      element("label", { for: id }, box, label);
      const range = element("input", { type: "range", id, min, max, step, value }, box);
      const shown = element("span", { "aria-hidden": "true" }, box);
      const show = () => {
        shown.textContent = text(Number(range.value));
        range.setAttribute("aria-valuetext", shown.textContent);
      };
      range.addEventListener("input", () => {
        show();
        input(Number(range.value));
        this.update();
      });
      show();
      return {
        set(x) {
          range.value = x;
          show();
        },
      };
    }

    /* One of several: options are [[value, label], ...]. */
    choice(row, label, options, value, input) {
      const name = `bn-control-${++count}`;
      const box = element("div", { class: "bn-choice", role: "radiogroup", "aria-labelledby": name }, row);
      element("span", { id: name }, box, label);
      for (const [one, text] of options) {
        const holder = element("label", {}, box);
        const radio = element("input", { type: "radio", name, value: one }, holder);
        radio.checked = one === value;
        holder.append(text);
        radio.addEventListener("change", () => {
          input(one);
          this.update();
        });
      }
    }

    button(row, label, press) {
      const made = element("button", { type: "button", class: "bn-button" }, row, label);
      made.addEventListener("click", () => {
        press();
        this.update();
      });
      return made;
    }

    /* Numbers below the drawing; set them by name: numbers.mean = "2.00". */
    numbers(labels) {
      const list = element("dl", { class: "bn-numbers" }, this.body);
      const outputs = {};
      for (const [name, label] of Object.entries(labels)) {
        const pair = element("div", {}, list);
        element("dt", {}, pair, label);
        outputs[name] = element("dd", { "data-name": name }, pair);
      }
      return new Proxy(outputs, {
        set(target, name, text) {
          set(target[name], {}, text);
          return true;
        },
      });
    }

    /* A drawn element becomes a handle, for the pointer and the arrow keys. axis is "x" or "y";
       move(value) gets the new value, pixel.inverse tells which value a pixel is. */
    handle(node, label, axis, { min, max, step, value, text = (x) => format(x) }, pixel, move) {
      set(node, {
        role: "slider",
        tabindex: 0,
        class: "bn-handle",
        "aria-label": label,
        "aria-orientation": axis === "x" ? "horizontal" : "vertical",
        "aria-valuemin": min,
        "aria-valuemax": max,
        "aria-valuenow": Number(value.toFixed(6)),
        "aria-valuetext": text(value),
      });
      // A finger must not scroll here; shapes have no touch-action.
      if (!node.onkeydown) node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
      const go = (x) => {
        move(Math.min(max, Math.max(min, Math.round(x / step) * step)));
        this.update();
      };
      node.onkeydown = (event) => {
        const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
        if (event.key in by) go(value + by[event.key] * step);
        else if (event.key === "Home") go(min);
        else if (event.key === "End") go(max);
        else return;
        event.preventDefault();
      };
      node.onpointerdown = (event) => {
        node.setPointerCapture(event.pointerId);
        if (event.pointerType !== "touch") node.focus();
        event.preventDefault();
      };
      node.onpointermove = (event) => {
        if (!node.hasPointerCapture(event.pointerId)) return;
        const box = node.ownerSVGElement.getBoundingClientRect();
        go(pixel.inverse(axis === "x" ? event.clientX - box.left : event.clientY - box.top));
      };
    }

    /* A horizontal axis at height y: ticks are numbers, at the pixels that `pixel` gives. */
    axis(put, key, y, pixel, ticks, label, text = String) {
      const ends = ticks.map(pixel);
      const right = Math.max(...ends);
      put("line", `${key}-axis`, { x1: Math.min(...ends), x2: right, y1: y, y2: y, class: "bn-axis" });
      for (const tick of ticks) {
        const x = pixel(tick);
        put("line", `${key}-tick-${tick}`, { x1: x, x2: x, y1: y, y2: y + 4, class: "bn-axis" });
        put("text", `${key}-text-${tick}`, { x, y: y + 17, class: "bn-tick" }, text(tick));
      }
      if (label) put("text", `${key}-label`, { x: right, y: y + 33, class: "bn-label bn-end" }, label);
    }

    /* Said to a screen reader once the reader has paused. */
    say(text) {
      clearTimeout(this.pause);
      this.pause = setTimeout(() => set(this.status, {}, text), 500);
    }

    update() {
      for (const { svg, height, draw, made } of this.drawings) {
        const width = Math.max(280, Math.floor(svg.parentElement.clientWidth));
        const tall = typeof height === "function" ? height(width) : height;
        set(svg, { viewBox: `0 0 ${width} ${tall}`, width, height: tall });
        const seen = new Set();
        const put = (tag, key, attributes, text = null) => {
          if (!made.has(key)) made.set(key, element(tag, {}, svg));
          seen.add(key);
          set(made.get(key), attributes, text);
          return made.get(key);
        };
        draw.call(this, put, width, tall);
        for (const [key, node] of made) {
          if (!seen.has(key)) {
            node.remove();
            made.delete(key);
          }
        }
      }
    }
  }

  return {
    element,
    format,
    scale,
    line,
    moments,
    normal,
    arithmetic: {}, // what each figure computes, by its name, for the tests

    /* build(figure) makes the parts of every figure of that name on the page. */
    figure(name, build) {
      for (const root of document.querySelectorAll(`[data-interactive="${name}"]`)) {
        const figure = new Figure(root);
        build(figure);
        figure.update();
        new ResizeObserver(() => figure.update()).observe(figure.body);
        root.classList.add("bn-ready");
      }
    },
  };
})();
