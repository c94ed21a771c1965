/* The table of frameworks: words and a trap choose the rows. Without this it is a plain table. */
"use strict";

for (const table of document.querySelectorAll("table.bn-frameworks")) {
  const rows = [...table.tBodies[0].rows];
  const traps = [...new Set(rows.flatMap((row) => row.dataset.traps.split("|")))].filter(Boolean);

  const form = document.createElement("form");
  form.className = "bn-filter";
  form.setAttribute("role", "search");
  form.setAttribute("aria-label", "Choose rows of the table");
  form.innerHTML = `
    <label>Find <input type="search" placeholder="a name or a word"></label>
    <label>differs from torch in <select><option value="">anything or nothing</option></select></label>
    <output aria-live="polite"></output>`;
  const [word, trap, shown] = form.querySelectorAll("input, select, output");
  trap.append(...traps.map((name) => new Option(name)));

  const choose = () => {
    const wanted = word.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      const fits = row.textContent.toLowerCase().includes(wanted);
      row.hidden = !fits || (trap.value !== "" && !row.dataset.traps.split("|").includes(trap.value));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${rows.length} rows`;
  };
  form.addEventListener("input", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
  choose();

  const box = document.createElement("div");
  box.className = "bn-frameworks-box";
  table.before(form, box);
  box.append(table);
  box.tabIndex = 0; // it scrolls, down or aside, on every screen
}
