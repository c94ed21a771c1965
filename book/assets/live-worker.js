/* Python for the live cells of a page: Pyodide in a worker, so that the page never stands still.

   It takes {sources, index, all}: the code of the page's live cells, which of them to run, and
   whether all above it are to run first; else only those run first that it needs and that have
   not run yet as they stand. It answers with messages that have a `type`: "ready" or "failed", and for each
   order "loading" (Matplotlib), "start", "output" and "end" of a cell, and "done". */

import { loadPyodide } from "./live/pyodide/pyodide.mjs";

const live = new URL("live/", import.meta.url);
const archive = fetch(new URL("bnlib.zip", live)).then((answer) => answer.arrayBuffer());
const ran = new Map(); // the cells whose names are there, with the code that ran, and when
const starting = start();
let turn = starting;

const fail = (error) => postMessage({ type: "failed", text: error.message });

starting.then(() => postMessage({ type: "ready" }), fail);

onmessage = ({ data }) => {
  turn = turn.then((python) => obey(python, data));
  turn.catch(fail); // such as when there is no memory left for Python itself
};

async function start() {
  const indexURL = new URL("pyodide/", live).href;
  const env = { HOME: "/home/pyodide", BNLIB_DATA: "embedded", MPLBACKEND: "module://bnlive.backend" };
  const stdin = () => null; // nobody types: input() finds the end of the file
  const pyodide = await loadPyodide({ indexURL, env, stdin, packages: ["numpy"] });
  if (!pyodide.loadedPackages.numpy) throw new Error("NumPy could not be loaded");
  pyodide.unpackArchive(await archive, "zip", { extractDir: "/lib/python3.12/site-packages" });
  const { needed } = pyodide.pyimport("bnlive.plan");
  const { run } = pyodide.pyimport("bnlive.run");
  return { pyodide, needed, run };
}

async function obey(python, { sources, index, all }) {
  const order = all ? [...sources.keys()].slice(0, index + 1) : plan(python, sources, index);
  const code = order.map((cell) => sources[cell]).join("\n");
  if (/matplotlib|figures/.test(code) && !python.pyodide.loadedPackages.matplotlib) {
    postMessage({ type: "loading", index });
    await python.pyodide.loadPackage("matplotlib", { messageCallback: () => {} });
  }
  let failed = null;
  for (const cell of order) {
    postMessage({ type: "start", index: cell });
    const send = (kind, text) => postMessage({ type: "output", index: cell, kind, text });
    const began = performance.now();
    const ok = python.run(sources[cell], `cell ${cell + 1}`, send);
    postMessage({ type: "end", index: cell, ok, time: performance.now() - began });
    if (!ok) {
      failed = cell;
      break;
    }
    ran.set(cell, { source: sources[cell], time: performance.now() });
  }
  postMessage({ type: "done", index, above: order.length - 1, failed });
  return python;
}

function plan({ pyodide, needed }, sources, index) {
  const found = needed(pyodide.toPy(sources), index);
  const order = found.toJs();
  found.destroy();
  // Up to date are those that ran as they stand, each after those before it.
  let last = 0;
  const old = order.findIndex((cell) => {
    const { source, time } = ran.get(cell) ?? {};
    const fresh = source === sources[cell] && time > last;
    last = time;
    return cell === index || !fresh;
  });
  return order.slice(old);
}
