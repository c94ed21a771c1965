/* What the theme leaves to be done for those who use the keyboard.

   Formulas and signatures that are wider than the page scroll in a box of their own. Such a box can
   be reached by keyboard; the theme does the same for code and tables. */
"use strict";

// The theme takes the focus away from this button, and its name says nothing of the choice.
for (const button of document.querySelectorAll(".theme-switch-button")) {
  const name = () =>
    button.setAttribute("aria-label", `Color mode: ${document.documentElement.dataset.mode}`);
  button.addEventListener("click", () =>
    setTimeout(() => {
      name();
      button.focus();
    })
  );
  name();
}

// The drawer of a narrow page closes when it has led somewhere.
const drawer = document.querySelector("#pst-secondary-sidebar-modal");
drawer?.addEventListener("click", ({ target }) => {
  if (target.closest('a[href^="#"]')) drawer.close();
});

window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const boxes = document.querySelectorAll('mjx-container[display="true"], span.math, dt.sig');
  const measure = (box) => {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0; // both are rounded
    else box.removeAttribute("tabindex");
  };
  const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => measure(target)));
  boxes.forEach((box) => resized.observe(box));
  // Until its font is there, a formula is wider than its box.
  document.fonts.addEventListener("loadingdone", () => boxes.forEach(measure));
});
