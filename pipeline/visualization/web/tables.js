'use strict';
// A click on the heading of a column sorts the table by it. Empty values are last.

function compareCells(a, b, numeric) {
  return numeric ? a - b : a.localeCompare(b, undefined, {numeric: true});
}

function sortRows(body, column, ascending) {
  const valueOf = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const rows = [...body.rows].sort((one, other) => {
    const a = valueOf(one), b = valueOf(other);
    if (a === '' || b === '') return Number(a === '') - Number(b === '');
    return compareCells(a, b, column > 0) * (ascending ? 1 : -1);
  });
  body.append(...rows);
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => {
    const current = head.getAttribute('aria-sort'), ascending = current === 'descending' || (column === 0 && !current);
    for (const other of heads) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
    sortRows(table.tBodies[0], column, ascending);
  }));
}

document.querySelectorAll('table.sortable').forEach(makeSortable);
