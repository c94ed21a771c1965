/* Formulas and signatures that are wider than the page scroll in a box of their own. Such a box can
   be reached by keyboard; the theme does the same for code and tables. */
"use strict";

window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const reachable = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  document.querySelectorAll('mjx-container[display="true"], dt.sig').forEach((box) => reachable.observe(box));
});
