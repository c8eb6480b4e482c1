"use strict";
// Filters, sorting, permalinks and exports of the tables; without it the page shows all rows. What is shown is in the address.
const tables = [...document.querySelectorAll("table[id]")];
const filters = [...document.querySelectorAll("[data-filter]")];
const rowsOf = (table) => [...table.tBodies[0].rows];
const state = () => new URLSearchParams(location.hash.slice(1));

function write(changes) {
  const next = state();
  for (const [name, value] of Object.entries(changes)) value ? next.set(name, value) : next.delete(name);
  history.replaceState(null, "", "#" + next.toString());
  show();
}

function matches(row, now) {
  for (const filter of filters) {
    const name = filter.dataset.filter, wanted = now.get(name) || "";
    if (!wanted) continue;
    if (name === "q") {
      const text = row.textContent.toLowerCase();
      if (!wanted.toLowerCase().split(/\s+/).every((word) => text.includes(word))) return false;
    } else if (row.hasAttribute("data-" + name) && row.getAttribute("data-" + name) !== wanted) return false;
  }
  return true;
}

// numbers by value, words by alphabet; what has no value comes last either way
function compare(a, b, column, sign) {
  const [x, y] = [a, b].map((row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim());
  if (x === "" || y === "") return (x === "") - (y === "");
  const [p, q] = [Number(x), Number(y)];
  return sign * (Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q);
}

function sort(table, now) {
  const [column, direction] = (now.get("sort-" + table.id) || "").split(".");
  [...table.tHead.rows[0].cells].forEach((cell, i) => {
    if (column !== "" && i === Number(column)) cell.setAttribute("aria-sort", direction === "d" ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
  const rows = rowsOf(table), sign = direction === "d" ? -1 : 1;
  const known = /^\d+$/.test(column) && Number(column) < table.tHead.rows[0].cells.length;
  rows.sort((a, b) => (known && compare(a, b, Number(column), sign)) || a.dataset.place - b.dataset.place);
  table.tBodies[0].append(...rows);
}

function show() {
  const now = state();
  for (const filter of filters) filter.value = now.get(filter.dataset.filter) || "";
  for (const table of tables) {
    let shown = 0;
    for (const row of rowsOf(table)) {
      row.hidden = !matches(row, now);
      row.classList.toggle("here", row.id !== "" && row.id === now.get("row"));
      shown += row.hidden ? 0 : 1;
    }
    sort(table, now);
    document.querySelector(`[data-count="${table.id}"]`).textContent = `${shown} of ${rowsOf(table).length} rows`;
  }
}

// the columns of an export: a cell may hold several values
function grid(table) {
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((cell) => (cell.dataset.names || cell.textContent.trim()).split("|"));
  const lines = rowsOf(table).filter((row) => !row.hidden).map((row) =>
    [...row.cells].flatMap((cell, i) => (cell.dataset.x === undefined ? [cell.textContent.trim()] : cell.dataset.x.split("|", names[i].length))));
  return [names.flat(), ...lines];
}

// a spreadsheet must not take a text for a formula
const guarded = (text) => (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? "'" + text : text);
const csv = (lines) => lines.map((line) => line.map((text) => `"${guarded(text).replaceAll('"', '""')}"`).join(",")).join("\r\n") + "\r\n";
const TEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", "–": "--", "≤": "$\\leq$", "β": "$\\beta$", "<": "$<$", ">": "$>$", "|": "$|$" };
const tex = (text) => text.replace(/\s+/g, " ").replace(/[\\~^−–≤β<>|&%$#_{}]/g, (sign) => TEX[sign] || "\\" + sign);

function latex(table) {
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  const lines = rowsOf(table).filter((row) => !row.hidden).map((row) => [...row.cells].map((cell) => cell.dataset.t ?? cell.textContent.trim()));
  const body = lines.map((line) => line.map(tex).join(" & ") + " \\\\");
  return ["% needs \\usepackage{booktabs}", `\\begin{tabular}{${"l".repeat(heads.length)}}`, "\\toprule",
    heads.map(tex).join(" & ") + " \\\\", "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

for (const filter of filters) filter.addEventListener("input", () => write({ [filter.dataset.filter]: filter.value }));
document.addEventListener("click", (event) => {
  const button = event.target.closest("button, a.anchor");
  if (!button) return;
  const { table: id, action, column } = button.dataset;
  const table = document.getElementById(id);
  if (action === "csv") save(`${id}.csv`, csv(grid(table)));
  if (action === "latex") save(`${id}.tex`, latex(table));
  if (action === "clear") { history.replaceState(null, "", "#"); show(); }
  if (action === "sort") write({ ["sort-" + id]: `${column}.${state().get("sort-" + id) === column + ".a" ? "d" : "a"}` });
  if (action === "row") { event.preventDefault(); write({ row: button.closest("tr").id }); }
});
addEventListener("hashchange", show);
show();
document.querySelector("tr.here")?.scrollIntoView({ block: "center" });
