/* Python for the live cells of a page: Pyodide in a worker, so that the page never stands still.

   It takes {sources, index, all}: the code of the page's live cells, which of them to run, and
   whether all above it are to run first, from the beginning; else only those run first that it
   needs and whose results are not there as the code stands. It answers with messages that have a
   `type`: "loading" with how much has come, "ready" or "failed", and for each order "start",
   "output" and "end" of a cell, and "done" or "refused". Its name is how to ask for files: as
   fetch's option `cache` says it. */

const live = new URL("live/", import.meta.url);
const fetched = new Map(); // contents by address, until Pyodide asks for them
const fetchFromServer = globalThis.fetch;
const starting = start();
let turn = starting;

const fail = (error) => postMessage({ type: "failed", text: error.message });

starting.then(() => postMessage({ type: "ready" }), fail);

onmessage = ({ data }) => {
  turn = turn.then((python) => obey(python, data));
  turn.catch(fail); // such as when there is no memory left for Python itself
};

async function start() {
  const sizes = await (await ask("files.json")).json();
  await download("Python", sizes.python);
  const { loadPyodide } = await import("./live/pyodide/pyodide.js");
  globalThis.fetch = fetchWhatCame;
  const indexURL = new URL("pyodide/", live).href;
  const env = { HOME: "/home/pyodide", BNLIB_DATA: "embedded", MPLBACKEND: "module://bnlive.backend" };
  const stdin = () => null; // nobody types: input() finds the end of the file
  const loaded = [broken(), loadPyodide({ indexURL, env, stdin, packages: ["numpy"] })];
  const pyodide = await Promise.race(loaded);
  if (!pyodide.loadedPackages.numpy) throw new Error("NumPy cannot be unpacked");
  const archive = await (await fetch(new URL("bnlib.zip", live))).arrayBuffer();
  pyodide.unpackArchive(archive, "zip", { extractDir: "/lib/python3.12/site-packages" });
  fetched.clear(); // of the scripts, which are imported
  return { pyodide, sizes, page: pyodide.pyimport("bnlive.run") };
}

async function obey(python, { sources, index, all }) {
  const { page, pyodide } = python;
  const code = pyodide.toPy(sources);
  const planned = page.prepare(code, index, all);
  const order = planned.toJs();
  let failed = null;
  try {
    const drawn = order.some((cell) => /matplotlib|figures/.test(sources[cell]));
    if (drawn && !pyodide.loadedPackages.matplotlib) await loadMatplotlib(python);
  } catch (error) {
    const text = `Matplotlib could not be loaded: ${error.message}`;
    postMessage({ type: "refused", index, text });
    return python;
  }
  for (const cell of order) {
    postMessage({ type: "start", index: cell, source: sources[cell] });
    const send = (kind, text) => postMessage({ type: "output", index: cell, kind, text });
    const began = performance.now();
    const ok = page.run(code, cell, send);
    postMessage({ type: "end", index: cell, ok, time: performance.now() - began });
    if (!ok) {
      failed = cell;
      break;
    }
  }
  postMessage({ type: "done", index, above: order.length - 1, failed });
  for (const proxy of [planned, code]) proxy.destroy();
  return python;
}

async function loadMatplotlib({ pyodide, sizes }) {
  await download("Matplotlib", sizes.matplotlib);
  await pyodide.loadPackage("matplotlib", { messageCallback: () => {} });
  if (!pyodide.loadedPackages.matplotlib) throw new Error("it cannot be unpacked");
}

/** Ask the server for a file. */
async function ask(name) {
  const answer = await fetchFromServer(new URL(name, live), { cache: self.name }).catch(() => {
    throw new Error(`the network does not bring ${name}`);
  });
  if (!answer.ok) throw new Error(`the server answers ${answer.status} for ${name}`);
  return answer;
}

/** Fetch files, {name: bytes}, and say how far it is; one that is not whole is an error. */
async function download(what, sizes) {
  const total = Object.values(sizes).reduce((sum, size) => sum + size);
  let received = 0;
  const tell = () => postMessage({ type: "loading", what, received, total });
  tell();
  const one = async ([name, size]) => {
    const reader = (await ask(name)).body.getReader();
    const chunks = [];
    let length = 0;
    for (;;) {
      const { done, value } = await reader.read().catch(() => ({ done: true }));
      if (done) break;
      chunks.push(value);
      length += value.length;
      received += value.length;
      tell();
    }
    if (length !== size) throw new Error(`${name} has ${length} of ${size} bytes`);
    fetched.set(new URL(name, live).href, new Blob(chunks, { type: typeOf(name) }));
  };
  await Promise.all(Object.entries(sizes).map(one));
}

/** Whatever the server says of a file: WebAssembly is only taken as such. */
function typeOf(name) {
  return name.endsWith(".wasm") ? "application/wasm" : "application/octet-stream";
}

/** In the place of fetch, for Pyodide: each file that came, once. */
async function fetchWhatCame(address, options) {
  const content = fetched.get(String(address));
  fetched.delete(String(address));
  return content ? new Response(content) : fetchFromServer(address, options);
}

/** Fails when WebAssembly does; Pyodide itself would wait for ever. */
function broken() {
  const { instantiateStreaming } = WebAssembly;
  return new Promise((_, reject) => {
    WebAssembly.instantiateStreaming = (...given) => {
      const made = instantiateStreaming(...given);
      made.catch(reject);
      return made;
    };
  });
}
