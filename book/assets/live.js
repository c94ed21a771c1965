/* Live code: the cells tagged `live` can be changed and run, by Python in the page.

   Nothing is loaded before the reader asks. Python (live-worker.js) has one namespace for the
   page. To stop it, its worker is ended; in the next one no cell has run yet. Changed code is kept
   over a reload, by the text of the book that it replaces; outputs are not. */

(() => {
  "use strict";

  if (!location.protocol.startsWith("http")) return; // a file cannot start a worker

  const here = document.currentScript.src;
  const KEY = `live ${location.pathname}`;
  const cells = [...document.querySelectorAll(".cell.tag_live")].map((node, index) => {
    const pre = node.querySelector(".cell_input pre");
    const book = pre.textContent.replace(/\n$/, "");
    const output = node.querySelector(".cell_output");
    const highlighted = [...pre.childNodes];
    return { node, pre, output, index, name: `cell ${index + 1}`, book, text: book, highlighted };
  });
  let editorModule = null;
  let worker = null;
  let ready = false;

  // --- The buttons under a cell ------------------------------------------------------------

  function addBar(cell) {
    const bar = document.createElement("div");
    bar.className = "bn-live";
    const button = (label, action) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = label;
      made.setAttribute("aria-label", `${label}, ${cell.name}`);
      made.addEventListener("click", () => action(cell));
      return made;
    };
    cell.run = button("Run", (it) => run(it, false));
    cell.stop = button("Stop", stop);
    cell.edit = button("Edit", edit);
    cell.runAll = button("Run all above", (it) => run(it, true));
    cell.reset = button("Reset", reset);
    cell.status = document.createElement("span");
    cell.status.setAttribute("role", "status");
    const number = document.createElement("span");
    number.textContent = cell.name;
    number.setAttribute("aria-hidden", "true"); // it is part of each button's name
    bar.append(cell.run, cell.stop, cell.edit, cell.runAll, cell.reset, cell.status, number);
    cell.pre.addEventListener("click", () => {
      if (getSelection().isCollapsed) edit(cell); // who selects wants to copy
    });
    cell.pre.closest(".cell_input").append(bar);
  }

  /** Show the buttons that make sense now; one that goes hands its focus to Run. */
  function update(cell) {
    const changed = cell.text !== cell.book;
    const shown = [
      [cell.stop, cell.busy],
      [cell.edit, !cell.editor],
      [cell.runAll, !cell.busy && cell.index > 0 && (cell.stored || cell.editor || changed)],
      [cell.reset, !cell.busy && (cell.stored || changed)],
    ];
    for (const [button, show] of shown) {
      const focused = button === document.activeElement;
      button.hidden = !show;
      if (focused && !show) cell.run.focus();
    }
    cell.run.setAttribute("aria-disabled", Boolean(cell.busy));
  }

  function say(cell, text) {
    cell.status.textContent = text;
  }

  // --- Changing the code -------------------------------------------------------------------

  async function edit(cell) {
    worker ??= startPython(); // who edits will run
    try {
      editorModule ??= import(new URL("live/editor.js", here));
      const { createEditor } = await editorModule;
      cell.editor ??= createEditor({
        place: cell.pre,
        text: cell.text,
        label: `Code of ${cell.name}`,
        run: () => run(cell, false),
        change: (text) => change(cell, text),
      });
      cell.pre.hidden = true; // still there for the button that copies
    } catch {
      editorModule = null;
      say(cell, "The editor could not be loaded");
      return;
    }
    update(cell);
    say(cell, "Shift+Enter runs, Tab leaves");
    cell.editor.focus();
  }

  function setText(cell, text) {
    cell.text = text;
    cell.pre.replaceChildren(...(text === cell.book ? cell.highlighted : [text]));
  }

  function change(cell, text) {
    setText(cell, text);
    const changed = cells.filter((one) => one.text !== one.book);
    const edits = Object.fromEntries(changed.map((one) => [one.book, one.text]));
    try {
      localStorage.setItem(KEY, JSON.stringify(edits));
    } catch {
      // A reader may deny storage; then the changes last as long as the page.
    }
    if (cell.text !== cell.book) say(cell, "Changed, not run yet");
    update(cell);
  }

  function restore() {
    let edits = {};
    try {
      edits = JSON.parse(localStorage.getItem(KEY)) ?? {};
    } catch {
      return;
    }
    for (const cell of cells.filter((one) => one.book in edits)) {
      setText(cell, edits[cell.book]);
      say(cell, "With your changes, not run yet");
    }
  }

  function reset(cell) {
    cell.editor?.replace(cell.book);
    if (cell.stored) cell.output.replaceChildren(...cell.stored);
    cell.stored = null;
    cell.output?.classList.remove("bn-live-old");
    verdict(cell, true);
    say(cell, "As in the book");
    change(cell, cell.book);
  }

  // --- Running it --------------------------------------------------------------------------

  function run(cell, all) {
    if (cell.busy) return;
    worker ??= startPython();
    cell.busy = true;
    say(cell, ready ? "Running …" : "Starting Python …");
    worker.postMessage({ sources: cells.map((one) => one.text), index: cell.index, all });
    update(cell);
  }

  function startPython() {
    const started = new Worker(new URL("live-worker.js", here), { type: "module" });
    started.onmessage = ({ data }) => answers[data.type](cells[data.index], data);
    started.onerror = () => answers.failed(null, { text: "its files could not be loaded" });
    return started;
  }

  function end() {
    worker.terminate();
    worker = null;
    ready = false;
  }

  /** End the worker, and start another at once: the next run need not wait for it. */
  function stop() {
    const current = cells.find((cell) => cell.running);
    if (current) show(current, "error", "KeyboardInterrupt\n");
    end();
    for (const cell of cells.filter((one) => one.busy || one.running)) {
      cell.busy = cell.running = false;
      say(cell, "Stopped; cells above will run again when they are needed");
      update(cell);
    }
    worker = startPython();
  }

  const answers = {
    ready() {
      ready = true;
      for (const cell of cells.filter((one) => one.busy)) say(cell, "Running …");
    },
    failed(_, { text }) {
      end();
      for (const cell of cells.filter((one) => one.busy || one.running)) {
        cell.busy = cell.running = false;
        say(cell, `Python could not run: ${text}`);
        update(cell);
      }
    },
    loading(cell) {
      say(cell, "Loading Matplotlib …");
    },
    start(cell) {
      cell.running = cell.fresh = true;
      say(cell, "Running …");
    },
    output(cell, { kind, text }) {
      show(cell, kind, text);
    },
    end(cell, { ok, time }) {
      if (cell.fresh) clear(cell);
      cell.running = false;
      verdict(cell, ok);
      const took = time < 1000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(1)} s`;
      say(cell, ok ? `Ran in ${took}` : "Ended with an error");
      update(cell);
    },
    done(cell, { above, failed }) {
      cell.busy = false;
      if (failed !== null && failed !== cell.index) {
        say(cell, `Not run: ${cells[failed].name} ended with an error`);
        cell.output?.classList.add("bn-live-old");
      } else if (above) {
        const others = above === 1 ? "1 cell" : `${above} cells`;
        say(cell, `${cell.status.textContent}, after ${others} above`);
      }
      update(cell);
    },
  };

  // --- What comes out ----------------------------------------------------------------------

  /** Make room for the output of a run; the book's own is kept for Reset. */
  function clear(cell) {
    if (!cell.output) {
      cell.output = document.createElement("div");
      cell.output.className = "cell_output docutils container";
      cell.status.closest(".cell_input").after(cell.output);
    }
    cell.stored ??= [...cell.output.childNodes];
    cell.output.setAttribute("aria-live", "polite");
    cell.output.classList.remove("bn-live-old");
    cell.output.replaceChildren();
    cell.fresh = false;
  }

  /** The tick of a claim is that of the book until its assertion runs here. */
  function verdict(cell, holds) {
    const claim = cell.node.querySelector(".bn-claim");
    if (!claim) return;
    claim.classList.toggle("bn-failed", !holds);
    const line = claim.firstElementChild.firstChild;
    line.data = line.data.replace(/^[✓✗]/, holds ? "✓" : "✗");
  }

  function show(cell, kind, text) {
    if (cell.fresh) clear(cell);
    if (kind === "figure") {
      showFigure(cell, text);
      return;
    }
    let block = cell.output.lastElementChild;
    if (!block?.classList.contains(`bn-live-${kind}`)) {
      block = document.createElement("div");
      block.className = `output ${kind === "result" ? "text_plain" : "stream"} bn-live-${kind}`;
      block.innerHTML = '<div class="highlight"><pre></pre></div>';
      cell.output.append(block);
    }
    block.querySelector("pre").append(text);
    if (kind !== "error") return;
    for (const box of [cell.node.closest("details"), cell.node.querySelector("details")]) {
      box?.setAttribute("open", "");
    }
  }

  /** Show a figure as the book shows its own, with the caption. */
  function showFigure(cell, html) {
    const frames = cell.stored.filter((node) => node.querySelector?.("svg[aria-label]"));
    const frame = frames[cell.output.querySelectorAll(".bn-figure").length];
    const made = document.createElement("div");
    made.innerHTML = html;
    const figure = made.firstElementChild;
    const svg = figure.querySelector("svg");
    if (cell.text === cell.book && frame) {
      svg.setAttribute("aria-label", frame.querySelector("svg").getAttribute("aria-label"));
    } else {
      svg.setAttribute("aria-label", `A figure drawn by the changed code of ${cell.name}`);
    }
    if (frame && !frame.matches(".bn-figure")) {
      made.replaceChildren(frame.cloneNode(true));
      made.querySelector(".bn-figure").replaceWith(figure);
    }
    cell.output.append(made.firstElementChild);
    if (figure.scrollWidth > figure.clientWidth) figure.tabIndex = 0; // scrolls by key, too
  }

  for (const cell of cells) addBar(cell);
  restore();
  for (const cell of cells) update(cell);
})();
