// Heat maps: a cell tells all that is known about it on hover and on focus; arrow keys move; a slider changes the map.
const LEVELS = 50;

for (const figure of document.querySelectorAll('figure.map')) {
  const data = JSON.parse(figure.querySelector('script').textContent);
  const body = figure.querySelector('tbody');
  const slider = figure.querySelector('input');
  let shown = data.maps.length - 1;
  let pointed = null;

  // Differences have a sign, and colors on a scale of their own.
  const number = (value, digits) => {
    const text = written(value, digits);
    if (data.scale === null || value === null) return text;
    return Number(value.toFixed(digits)) > 0 ? `+${text}` : text.replace(/^−(?=[0.]*$)/, '');
  };
  const color = (value) => {
    if (value === null) return 'none';
    const share = data.scale === null ? value : (value / data.scale + 1) / 2;
    return `${data.scale === null ? 'h' : 'd'}${Math.floor(Math.min(Math.max(share, 0), 1) * LEVELS + 0.5)}`;
  };

  const tell = (cell) => {
    const i = cell.parentNode.sectionRowIndex, j = cell.cellIndex - 1;
    const lines = [`${data.sides[0]} ${data.rows[i]} × ${data.sides[1]} ${data.columns[j]}`];
    const value = data.maps[shown][i][j];
    lines.push(value === null ? 'no value: the features of one layer are constant' : `${data.measure} ${number(value, 4)}`);
    if (data.maps.length > 1) lines.push(data.titles[shown]);
    if (shown > 0 && data.scale === null) lines.push(`${data.titles[0]}: ${written(data.maps[0][i][j], 4)}`);
    if (data.reference) lines.push(`${data.reference[0]}: ${written(data.reference[1][i][j], 4)}`);
    if (data.low && data.high && data.low[i][j] !== null && data.high[i][j] !== null) {
      lines.push(`${data.interval} ${written(data.low[i][j], 4)} … ${written(data.high[i][j], 4)}`);
    }
    if (data.p_value && data.p_value[i][j] !== null) {
      const least = data.p_floor !== null && data.p_value[i][j] <= data.p_floor * 1.000001 ? '≤ ' : '';
      lines.push(`p-value ${least}${written(data.p_value[i][j], 4)}`);
    }
    if (data.verdict && data.verdict[i][j] !== null) lines.push(`verdict: ${data.verdict[i][j]}`);
    if (data.reason && data.reason[i][j] !== null) lines.push(data.reason[i][j]);
    return lines;
  };

  const show = (cell) => tip.show(tell(cell), () => cell.getBoundingClientRect());
  const focused = () => body.contains(document.activeElement) ? document.activeElement : null;
  const settle = () => {
    const cell = pointed || focused();
    if (cell) show(cell); else tip.hide();
  };

  body.addEventListener('pointerover', (event) => { pointed = event.target.closest('td'); settle(); });
  body.addEventListener('pointerleave', () => { pointed = null; settle(); });
  body.addEventListener('focusin', (event) => { pointed = null; stop(event.target); show(event.target); });
  body.addEventListener('focusout', () => tip.hide());
  body.addEventListener('keydown', (event) => {
    const cell = event.target;
    const i = cell.parentNode.sectionRowIndex, j = cell.cellIndex;
    const last = data.columns.length;
    const [down, right] = {
      ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1], Home: [i, 1], End: [i, last],
    }[event.key] || [];
    if (down === undefined) return;
    event.preventDefault();
    if (down >= 0 && down < data.rows.length && right >= 1 && right <= last) body.rows[down].cells[right].focus();
  });

  // Tab stops at one cell of a map, the one that was visited last.
  let stopped = null;
  const stop = (cell) => {
    if (stopped) stopped.tabIndex = -1;
    stopped = cell;
    cell.tabIndex = 0;
  };
  stop(body.rows[0].cells[1]);

  if (slider) {
    const paint = () => {
      shown = Number(slider.value);
      data.maps[shown].forEach((row, i) => row.forEach((value, j) => {
        const cell = body.rows[i].cells[j + 1];
        cell.className = color(value);
        cell.firstChild.textContent = number(value, 2);
      }));
      figure.querySelector('output').textContent = data.titles[shown];
      slider.setAttribute('aria-valuetext', data.titles[shown]);
    };
    slider.addEventListener('input', paint);
  }
}
