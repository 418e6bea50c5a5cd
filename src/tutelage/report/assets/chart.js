// Line charts: the values at an epoch, under the pointer or with the arrow keys.
for (const figure of document.querySelectorAll('figure.chart')) {
  const source = figure.querySelector('script');
  if (!source) continue;
  const data = JSON.parse(source.textContent);
  const plot = figure.querySelector('.plot'), drawing = figure.querySelector('svg'), guide = figure.querySelector('.guide');
  const [low, high, left, right, width] = data.axis;
  const epochs = [...new Set(data.series.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  const tables = data.series.map((line) => new Map(line.points.map((point) => [point[0], point])));
  let at = epochs.length - 1;

  const number = (value) => String(Number(value.toPrecision(4))).replace('-', '−');
  const read = (index) => {
    at = Math.min(Math.max(index, 0), epochs.length - 1);
    const epoch = epochs[at];
    const lines = [`${data.x} ${epoch}`];
    data.series.forEach((line, k) => {
      const point = tables[k].get(epoch);
      if (!point) return;
      const band = point.length > 2 ? ` (${number(point[2])} … ${number(point[3])})` : '';
      lines.push(`${line.name} ${number(point[1])}${band}`);
    });
    const x = left + (epoch - low) / (high - low) * (right - left);
    guide.setAttribute('transform', `translate(${x} 0)`);
    guide.setAttribute('visibility', 'visible');
    tip.show(lines, () => {
      const box = drawing.getBoundingClientRect();
      const place = box.left + x / width * box.width;
      return { left: place, right: place, top: box.top, bottom: box.bottom };
    });
  };
  const leave = () => {
    guide.setAttribute('visibility', 'hidden');
    tip.hide();
  };

  plot.addEventListener('pointermove', (event) => {
    const box = drawing.getBoundingClientRect();
    const x = low + ((event.clientX - box.left) / box.width * width - left) / (right - left) * (high - low);
    read(epochs.reduce((best, epoch, i) => Math.abs(epoch - x) < Math.abs(epochs[best] - x) ? i : best, 0));
  });
  plot.addEventListener('pointerleave', leave);
  plot.addEventListener('focus', () => { if (plot.matches(':focus-visible')) read(at); });
  plot.addEventListener('blur', leave);
  plot.addEventListener('keydown', (event) => {
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: epochs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    read(next);
  });
}
