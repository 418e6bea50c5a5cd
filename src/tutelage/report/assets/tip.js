// One tooltip for the whole page: lines of text beside what is pointed at or focused. Escape hides it.
const tip = {
  box: document.getElementById('tip'),
  at: null,
  show(lines, rect) {
    this.box.replaceChildren(...lines.map((line) => {
      const row = document.createElement('div');
      row.textContent = line;
      return row;
    }));
    this.at = rect;
    this.box.hidden = false;
    this.place();
  },
  place() {
    if (this.box.hidden) return;
    const { left, right, top, bottom } = this.at();
    const width = this.box.offsetWidth, height = this.box.offsetHeight, gap = 8;
    const x = Math.min(Math.max((left + right - width) / 2, gap), document.documentElement.clientWidth - width - gap);
    const above = top - height - gap;
    this.box.style.left = `${Math.max(x, gap)}px`;
    this.box.style.top = `${above > gap ? above : bottom + gap}px`;
  },
  hide() {
    this.box.hidden = true;
  },
};
addEventListener('scroll', () => tip.place(), { capture: true, passive: true });
addEventListener('resize', () => tip.place());
addEventListener('keydown', (event) => { if (event.key === 'Escape') tip.hide(); });

// A number as the page writes it.
const written = (value, digits) => value === null ? '–' : value.toFixed(digits).replace('-', '−');
