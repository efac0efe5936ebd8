(() => {
  "use strict";
  document.documentElement.classList.add("js");

  // Draw visible charts first and the others when idle, so that all are drawn before the page is printed.
  const look = JSON.parse(document.getElementById("look").textContent);
  if (innerWidth < 640) look.axis.labelLimit = look.legend.labelLimit = 120;
  const places = [...document.querySelectorAll(".chart")];
  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  };
  const side = (entries, room) => (entries.reduce((a, b) => a + b) <= room ? entries.length : Math.max(1, Math.floor(room / Math.max(...entries))));
  const draw = (place) => {
    place.dataset.drawn = "yes";
    const spec = JSON.parse(place.parentElement.querySelector("script").textContent);
    const columns = side(place.dataset.legend.split(",").map((length) => 6.4 * length + 34), place.clientWidth - 150);
    const config = { ...look, legend: { ...look.legend, columns } };
    return vegaEmbed(place, spec, { ...options, config }).then(() => { place.style.minHeight = 0; }).catch((error) => {
      place.textContent = "This chart could not be drawn. Its numbers are below.";
      console.error(error);
    });
  };
  const waiting = () => places.find((place) => !place.dataset.drawn);
  const inTime = window.requestIdleCallback || ((work) => setTimeout(work, 1));
  const rest = () => {
    const next = waiting();
    if (next) draw(next).then(() => inTime(rest, { timeout: 200 }));
    else document.documentElement.dataset.charts = "drawn";
  };
  const sight = new IntersectionObserver((seen) => seen.forEach(({ isIntersecting, target }) => {
    if (isIntersecting && !target.dataset.drawn) draw(target);
  }), { rootMargin: "300px" });
  places.forEach((place) => sight.observe(place));
  inTime(rest, { timeout: 200 });

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
})();
