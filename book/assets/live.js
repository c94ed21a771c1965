/* Live code: the cells tagged `live` can be changed and run, by Python in the page.

   Nothing is loaded before the reader asks: Edit loads the editor, Run loads Python
   (live-worker.js), which has one namespace for the page. To stop it, its worker is ended; in the
   next one no cell has run yet. Changed code is kept over a reload, by the text of the book that it
   replaces; outputs are not. An output of other code than the cell shows is marked as old. */

(() => {
  "use strict";

  const HINT = "Shift+Enter runs, Escape closes, Tab leaves";
  const here = document.currentScript.src;
  const cells = [...document.querySelectorAll(".cell.tag_live")].map((node, index) => {
    const pre = node.querySelector(".cell_input pre");
    const book = pre.textContent.replace(/\n$/, "");
    const output = node.querySelector(".cell_output");
    const highlighted = [...pre.childNodes];
    const code = { book, text: book, shown: book, fresh: null }; // shown: the output's code
    const name = `cell ${index + 1}`;
    return { node, pre, output, index, name, highlighted, holds: true, unmet: false, ...code };
  });
  const editorAddress = new URL("live/editor.js", here);
  let editorModule = null;
  let worker = null;
  let ready = false;
  let cache = "no-cache"; // each file is asked for, and sent when it has changed

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
    cell.close = button("Close", close);
    cell.runAll = button("Run all above", (it) => run(it, true));
    cell.reset = button("Reset", reset);
    cell.status = document.createElement("span");
    cell.status.setAttribute("role", "status");
    cell.progress = document.createElement("progress");
    cell.progress.setAttribute("aria-label", `Download for ${cell.name}`);
    cell.progress.hidden = true;
    const number = document.createElement("span");
    number.textContent = cell.name;
    number.setAttribute("aria-hidden", "true"); // it is part of each button's name
    bar.append(cell.run, cell.stop, cell.edit, cell.close, cell.runAll, cell.reset);
    bar.append(cell.progress, cell.status, number);
    cell.pre.addEventListener("click", () => {
      // Who selects wants to copy, and who taps perhaps to scroll.
      if (getSelection().isCollapsed && matchMedia("(pointer: fine)").matches) edit(cell);
    });
    cell.pre.closest(".cell_input").append(bar);
  }

  /** Show the buttons that make sense now; one that goes hands its focus to Run. Mark what is old. */
  function update(cell) {
    const changed = cell.text !== cell.book;
    const shown = [
      [cell.stop, cell.busy],
      [cell.edit, !cell.editor],
      [cell.close, cell.editor],
      [cell.runAll, !cell.busy && cell.index > 0 && (cell.stored || cell.editor || changed)],
      [cell.reset, !cell.busy && (cell.stored || changed)],
    ];
    for (const [button, show] of shown) {
      const focused = button === document.activeElement;
      button.hidden = !show;
      if (focused && !show) cell.run.focus();
    }
    cell.run.setAttribute("aria-disabled", Boolean(cell.busy));
    if (!cell.busy) cell.progress.hidden = true;
    mark(cell);
  }

  /** Whether the output belongs to the code; a claim is open, "?", until its code has run. */
  function mark(cell) {
    const old = cell.unmet || cell.shown !== cell.text;
    cell.output?.classList.toggle("bn-live-old", old);
    const claim = cell.node.querySelector(".bn-claim");
    if (!claim) return;
    claim.classList.toggle("bn-open", old);
    claim.classList.toggle("bn-failed", !old && !cell.holds);
    const line = claim.firstElementChild.firstChild;
    line.data = line.data.replace(/^[✓✗?]/, old ? "?" : cell.holds ? "✓" : "✗");
  }

  function say(cell, text) {
    if (cell.status.textContent !== text) cell.status.textContent = text;
  }

  // --- Changing the code -------------------------------------------------------------------

  async function edit(cell) {
    try {
      editorModule ??= import(editorAddress);
      const { createEditor } = await editorModule;
      cell.editor ??= createEditor({
        place: cell.pre,
        text: cell.text,
        label: `Code of ${cell.name}`,
        run: () => run(cell, false),
        close: () => close(cell),
        change: (text) => change(cell, text),
      });
      cell.pre.hidden = true; // still there for the button that copies
    } catch {
      editorModule = null;
      editorAddress.search += "again"; // a browser imports an address that failed no second time
      say(cell, "The editor could not be loaded. Edit tries again.");
      return;
    }
    update(cell);
    say(cell, HINT);
    cell.editor.focus();
  }

  function close(cell) {
    cell.editor.remove();
    cell.editor = null;
    cell.pre.hidden = false;
    if (cell.status.textContent === HINT) say(cell, "");
    update(cell);
    cell.edit.focus();
  }

  function setText(cell, text) {
    cell.text = text;
    cell.pre.replaceChildren(...(text === cell.book ? cell.highlighted : [text]));
  }

  function change(cell, text) {
    setText(cell, text);
    try {
      // An item for each cell: another tab may change other cells of the page.
      if (text === cell.book) localStorage.removeItem(key(cell));
      else localStorage.setItem(key(cell), text);
    } catch {
      // A reader may deny storage; then the changes last as long as the page.
    }
    if (cell.text !== cell.book) say(cell, "Changed, not run yet");
    update(cell);
  }

  function key(cell) {
    return `live ${location.pathname} ${cell.book}`;
  }

  function restore(cell) {
    let text = null;
    try {
      text = localStorage.getItem(key(cell));
    } catch {
      // denied
    }
    if (text === null) return;
    setText(cell, text);
    say(cell, "With your changes, not run yet");
  }

  function reset(cell) {
    cell.editor?.replace(cell.book);
    if (cell.stored) cell.output.replaceChildren(...cell.stored);
    Object.assign(cell, { stored: null, shown: cell.book, holds: true, unmet: false });
    say(cell, "As in the book");
    change(cell, cell.book);
  }

  // --- Running it --------------------------------------------------------------------------

  function run(cell, all) {
    if (cell.busy) {
      cell.again = cell.text !== cell.asked;
      if (cell.again) say(cell, "Changed, runs again after this run");
      return;
    }
    worker ??= startPython();
    Object.assign(cell, { busy: true, again: false, asked: cell.text });
    say(cell, ready ? "Running …" : "Starting Python …");
    worker.postMessage({ sources: cells.map((one) => one.text), index: cell.index, all });
    update(cell);
  }

  function startPython() {
    const options = { type: "module", name: cache };
    const started = new Worker(new URL("live-worker.js", here), options);
    const answer = (data) => {
      if (started === worker) answers[data.type](cells[data.index], data);
    };
    started.onmessage = ({ data }) => answer(data);
    started.onerror = () => answer({ type: "failed", text: "live-worker.js does not run" });
    return started;
  }

  /** End the worker with all that waits for it; what runs ends with an error. */
  function halt(text, error) {
    worker.terminate();
    worker = null;
    ready = false;
    for (const cell of cells.filter((one) => one.busy || one.running)) {
      if (cell.running) {
        show(cell, "error", `${error}\n`);
        cell.holds = false;
      }
      cell.busy = cell.running = false;
      say(cell, text);
      update(cell);
    }
  }

  function stop() {
    const again = ready ? "; cells above will run again when they are needed" : "";
    halt(`Stopped${again}`, "KeyboardInterrupt");
  }

  const answers = {
    ready() {
      ready = true;
      cache = "no-cache";
      for (const cell of cells.filter((one) => one.busy)) say(cell, "Running …");
    },
    failed(_, { text }) {
      if (!ready) cache = "reload"; // what came may have been another file
      const error = `Python ${ready ? "broke down" : "could not be loaded"}: ${text}`;
      halt(`${error.replace(/\.$/, "")}. Run tries again.`, error);
    },
    loading(_, { what, received, total }) {
      for (const cell of cells.filter((one) => one.busy)) {
        const [size, whole] = [Math.ceil(total / 1e6), received === total];
        say(cell, whole ? `Starting ${what} …` : `Downloading ${what}, ${size} MB …`);
        cell.progress.hidden = whole;
        cell.progress.max = total;
        cell.progress.value = received;
      }
    },
    refused(cell, { text }) {
      cell.busy = false;
      say(cell, `Not run: ${text}. Run tries again.`);
      update(cell);
    },
    start(cell, { source }) {
      cell.running = true;
      cell.fresh = source;
      say(cell, "Running …");
    },
    output(cell, { kind, text }) {
      show(cell, kind, text);
    },
    end(cell, { ok, time }) {
      if (cell.fresh !== null) clear(cell);
      cell.running = false;
      cell.holds = ok;
      const took = time < 1000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(1)} s`;
      say(cell, ok ? `Ran in ${took}` : "Ended with an error");
      update(cell);
    },
    done(cell, { above, failed }) {
      cell.busy = false;
      if (failed !== null && failed !== cell.index) {
        say(cell, `Not run: ${cells[failed].name} ended with an error`);
        cell.unmet = true;
      } else if (above) {
        const others = above === 1 ? "1 cell" : `${above} cells`;
        say(cell, `${cell.status.textContent}, after ${others} above`);
      }
      update(cell);
      if (cell.again) run(cell, false);
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
    cell.output.replaceChildren();
    Object.assign(cell, { shown: cell.fresh, fresh: null, unmet: false });
    mark(cell);
  }

  function show(cell, kind, text) {
    if (cell.fresh !== null) clear(cell);
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
    const pre = block.querySelector("pre");
    pre.textContent = written(pre.textContent + text);
    if (kind !== "error") return;
    for (const box of [cell.node.closest("details"), cell.node.querySelector("details")]) {
      box?.setAttribute("open", "");
    }
  }

  /** What a terminal shows of a text: after a carriage return, a line is written over. */
  function written(text) {
    return text.replace(/\r+\n/g, "\n").replace(/[^\n]*\r[^\n]+/g, (line) => {
      const over = line.split("\r").reduce((before, after) => after + before.slice(after.length));
      return line.endsWith("\r") ? `${over}\r` : over;
    });
  }

  /** Show a figure as the book shows its own, with the caption. */
  function showFigure(cell, html) {
    const frames = cell.stored.filter((node) => node.querySelector?.("svg[aria-label]"));
    const frame = frames[cell.output.querySelectorAll(".bn-figure").length];
    const made = document.createElement("div");
    made.innerHTML = html;
    const figure = made.firstElementChild;
    const svg = figure.querySelector("svg");
    if (cell.shown === cell.book && frame) {
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

  if (location.protocol === "file:") {
    const place = cells.find((cell) => !cell.pre.closest("details"))?.pre.closest(".cell_input");
    const text = "Opened from a file, code cannot run. <code>make serve</code> shows pages where it can.";
    place?.insertAdjacentHTML("beforeend", `<p class="bn-live">${text}</p>`);
    return; // a file cannot start a worker
  }
  for (const cell of cells) {
    addBar(cell);
    restore(cell);
    update(cell);
  }
})();
