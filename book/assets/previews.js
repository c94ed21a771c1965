// Hover previews: a link to an equation, a figure, a theorem, an algorithm or a reference shows
// what it leads to, under the mouse or with the keyboard's focus. Escape puts it away.

(() => {
  "use strict";

  const LINKS = "a.internal[href*='#']:not(.headerlink)";
  const TARGETS = "div.math, figure, div.proof, div.citation";
  const UNWANTED = ".headerlink, .bn-source, .bn-claim, .copybtn, .backrefs, script";

  const article = document.querySelector(".bd-article");
  if (!article) return;

  const box = document.createElement("div");
  box.id = "bn-preview";
  box.className = "bn-preview";
  box.setAttribute("role", "tooltip");
  box.hidden = true;
  article.append(box);

  const pages = new Map(); // address without fragment → the document, fetched once
  let link = null; // whose preview is shown, or being made
  let timer = 0;

  const here = location.href.split("#")[0];

  function page(address) {
    if (!pages.has(address)) {
      pages.set(address, fetch(address)
        .then((answer) => (answer.ok ? answer.text() : ""))
        .then((html) => new DOMParser().parseFromString(html, "text/html"))
        .catch(() => null)); // there is no network now
    }
    return pages.get(address);
  }

  // What a link leads to, as an element of its own; null where there is nothing to show.
  async function copyOf(a) {
    const [address, id] = a.href.split("#");
    const same = address === here;
    if (!same && location.protocol === "file:") return null; // nothing can be fetched
    const source = same ? document : await page(address);
    const found = source?.getElementById(decodeURIComponent(id));
    if (!found?.matches(TARGETS)) return null;
    const copy = found.cloneNode(true);
    copy.querySelectorAll(UNWANTED).forEach((one) => one.remove());
    // A drawing uses its own ids: those of this page are here already, those of another are not.
    const ids = same ? "[id]" : "[id]:not(svg *)";
    copy.removeAttribute("id");
    copy.querySelectorAll(ids).forEach((one) => one.removeAttribute("id"));
    copy.querySelectorAll("[tabindex]").forEach((one) => one.removeAttribute("tabindex"));
    for (const name of ["href", "src"]) {
      for (const one of copy.querySelectorAll(`a[${name}], img[${name}]`)) {
        one.setAttribute(name, new URL(one.getAttribute(name), address).href);
      }
    }
    copy.querySelectorAll("a").forEach((one) => one.setAttribute("tabindex", "-1"));
    return copy;
  }

  async function show(a) {
    link = a;
    const copy = await copyOf(a);
    if (link !== a || !copy) return;
    const maths = window.MathJax;
    maths?.typesetClear?.([box]);
    box.replaceChildren(copy);
    box.style.visibility = "hidden";
    box.hidden = false;
    if (copy.matches(".math") || copy.querySelector(".math")) {
      if (!maths?.typesetPromise) return hide();
      await maths.typesetPromise([box]);
      if (link !== a) return;
    }
    place(a);
    box.style.visibility = "";
    a.setAttribute("aria-describedby", box.id);
    a.removeAttribute("title"); // of a reference: it would be shown twice
  }

  // Below the link, or above it where there is more room; never beyond the article's sides.
  function place(a) {
    const around = box.offsetParent.getBoundingClientRect();
    const lines = [...a.getClientRects()];
    const last = lines[lines.length - 1];
    const left = Math.min(last.left - around.left, around.width - box.offsetWidth);
    const below = last.bottom + box.offsetHeight < innerHeight || lines[0].top < innerHeight / 2;
    const top = below ? last.bottom : lines[0].top - box.offsetHeight;
    box.style.left = `${Math.max(0, left)}px`;
    box.style.top = `${top - around.top}px`;
  }

  function hide() {
    clearTimeout(timer);
    link?.removeAttribute("aria-describedby");
    link = null;
    box.hidden = true;
  }

  function later(action, delay) {
    clearTimeout(timer);
    timer = setTimeout(action, delay);
  }

  const linkOf = (event) => {
    const a = event.target.closest(LINKS);
    return a && !box.contains(a) ? a : null;
  };

  article.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const a = linkOf(event);
    if (box.contains(event.target) || (a && a === link)) {
      clearTimeout(timer);
    } else if (a) {
      later(() => { hide(); show(a); }, 120);
    }
  });

  // There is time to move into the preview.
  article.addEventListener("pointerout", (event) => {
    if (linkOf(event) || box.contains(event.target)) later(leave, 250);
  });

  function leave() {
    if (link !== document.activeElement || !link.matches(":focus-visible")) hide();
  }

  article.addEventListener("focusin", (event) => {
    const a = linkOf(event);
    if (a?.matches(":focus-visible")) { hide(); show(a); }
  });

  article.addEventListener("focusout", (event) => {
    if (event.target === link && !box.matches(":hover")) hide();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
})();
