// Tables are sorted by a click on a header; what has no number comes last, in either direction.
for (const table of document.querySelectorAll('table.sortable')) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.querySelector('button').addEventListener('click', () => {
    const down = header.getAttribute('aria-sort') === 'ascending';
    for (const other of headers) other.removeAttribute('aria-sort');
    header.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], down ? -1 : 1)));
  }));
}

function compare(a, b, direction) {
  const x = sortKey(a), y = sortKey(b);
  if (x === null || y === null) return (x === null) - (y === null);
  const order = typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y), 'en', { numeric: true });
  return direction * order;
}

function sortKey(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return text === '–' ? null : text;
}
