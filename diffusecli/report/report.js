(() => {
  "use strict";
  document.documentElement.classList.add("js");

  // Tables: a button in each header sorts by data-sort; unknown values go last.
  const value = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const compare = (a, b) => (a !== "" && b !== "" && !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  const sort = (header) => {
    const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
    const turn = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => ((a === "") - (b === "")) || turn * compare(a, b));
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    table.classList.add("sorted");
    body.append(...rows.map(([, row]) => row));
  };
  document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => sort(button.parentElement)));

  // Many prompts: show those whose name, system text or request contains a text; the table of all prompts opens.
  const filter = document.getElementById("filter");
  filter?.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase(), parts = [...document.querySelectorAll("[data-find]")];
    parts.forEach((part) => { part.hidden = !part.dataset.find.toLowerCase().includes(wanted); });
    const prompts = (some) => new Set(some.map((part) => part.dataset.find)).size;
    filter.nextElementSibling.textContent = wanted ? `${prompts(parts.filter((part) => !part.hidden))} of ${prompts(parts)} prompts` : "";
    const all = document.getElementById("all")?.closest("details");
    if (all && wanted) all.open = true;
  });
})();
