// Pictures: what is under the pointer, or the next shape by the arrow keys, has a tooltip; a slider sets the score threshold.
for (const drawing of document.querySelectorAll('.picture[tabindex]')) {
  let at = null;
  const leave = () => {
    if (at) at.classList.remove('at');
    at = null;
    tip.hide();
  };
  const show = (shape) => {
    if (at) at.classList.remove('at');
    at = shape;
    at.classList.add('at');
    tip.show(at.dataset.tip.split('\n'), () => shape.getBoundingClientRect());
  };
  drawing.addEventListener('pointerover', (event) => {
    const shape = event.target.closest('[data-tip]');
    if (shape) show(shape); else leave();
  });
  drawing.addEventListener('pointerleave', leave);
  drawing.addEventListener('focusout', leave);
  drawing.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const shapes = [...drawing.querySelectorAll('[data-tip]:not(.off)')];
    if (!step || !shapes.length) return;
    event.preventDefault();
    const place = shapes.indexOf(at) + step;
    show(shapes[place < 0 ? shapes.length - 1 : place % shapes.length]);
  });
}

for (const pictures of document.querySelectorAll('.pictures')) {
  const slider = pictures.querySelector('input');
  if (!slider) continue;
  slider.addEventListener('input', () => {
    const threshold = Number(slider.value) / 100, text = `score ≥ ${threshold.toFixed(2)}`;
    pictures.querySelector('output').textContent = text;
    slider.setAttribute('aria-valuetext', text);
    for (const shape of pictures.querySelectorAll('.panel .shape')) {
      const { shownUpTo, shownAbove } = shape.dataset;
      const above = shownUpTo !== undefined && shownUpTo < threshold;
      const below = shownAbove !== undefined && shownAbove >= threshold;
      shape.classList.toggle('off', above || below);
    }
    for (const panel of pictures.querySelectorAll('.panel')) {
      const count = panel.querySelector('.count'), drawing = panel.querySelector('svg');
      if (!count) continue;
      const of = (kind) => drawing.querySelectorAll(`.${kind}:not(.off)`).length;
      const total = of('hit') + of('missed');
      drawing.classList.toggle('crowded', of('hit') + of('false') > 8);
      count.textContent = `${total ? `${of('hit')} of ${total} found` : 'nothing to find'}, ${of('false')} false`;
      const label = drawing.getAttribute('aria-label');
      drawing.setAttribute('aria-label', label.slice(0, label.lastIndexOf(': ') + 2) + count.textContent);
    }
  });
}
