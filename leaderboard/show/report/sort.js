"use strict";
(() => {
  const all = (selector, root) => [...root.querySelectorAll(selector)];

  // Sorting: numbers by value, names by letter, empty cells always last.
  const collator = new Intl.Collator("en", { numeric: true });
  const sort = (head) => {
    const table = head.closest("table");
    const column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    all("thead th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      const order = Number(a) - Number(b) || collator.compare(a, b); // NaN: they are names
      return down ? -order : order;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("thead button");
    if (button) sort(button.closest("th"));
  });
})();
