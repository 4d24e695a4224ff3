// Sorting and filtering. Without this file every page is complete, only in one order.
"use strict";
document.documentElement.classList.add("js");

function valueOf(row, column, kind) {
  const text = row.cells[column].dataset.value;
  if (text === undefined || text === "") return null;
  return kind === "number" ? Number(text) : text;
}

function columnOf(head) {
  // Every heading that sorts stands over one column, in the order of the columns.
  const heads = [...head.closest("thead").querySelectorAll("th[data-sort]")];
  return heads.indexOf(head);
}

function sortBy(head) {
  const table = head.closest("table");
  const column = columnOf(head);
  const kind = head.dataset.sort;
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row, place) => ({ row, place, value: valueOf(row, column, kind) }));
  rows.sort((a, b) => {
    // What has no value stays last in both directions.
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.place - b.place;
    const order = kind === "number" ? a.value - b.value : a.value.localeCompare(b.value, "en", { numeric: true });
    return sign * order || a.place - b.place;
  });
  body.append(...rows.map((own) => own.row));
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
}

function makeSortable(table) {
  for (const head of table.tHead.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sorter";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(head));
    head.append(button);
  }
}

function makeFilterable(form) {
  const table = document.getElementById(form.dataset.for);
  const count = form.querySelector("output");
  const checked = (name) => [...form.querySelectorAll(`input[name=${name}]`)].filter((box) => box.checked).map((box) => box.value);
  const apply = () => {
    const wanted = form.elements.namedItem("text").value.trim().toLowerCase();
    const states = checked("state");
    const verdicts = checked("verdict");
    const hasVerdicts = form.querySelector("input[name=verdict]") !== null;
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const own = row.dataset.verdicts.split(" ").filter(Boolean);
      const fits = !hasVerdicts || (own.length ? own.every((verdict) => verdicts.includes(verdict)) : verdicts.includes("none"));
      row.hidden = !(fits && states.includes(row.dataset.state) && row.textContent.toLowerCase().includes(wanted));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${table.tBodies[0].rows.length}`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
  form.hidden = false;
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
  document.querySelectorAll("form[data-for]").forEach(makeFilterable);
});
