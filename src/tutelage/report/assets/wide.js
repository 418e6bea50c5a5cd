// A table that is too wide gets tighter; one that is still too wide says so, until its last column is in sight.
for (const wide of document.querySelectorAll('.wide')) {
  const cue = wide.nextElementSibling.classList.contains('cue') ? wide.nextElementSibling : null;
  const hidden = () => wide.scrollWidth - wide.clientWidth;
  const scrolled = () => {
    wide.classList.toggle('more', hidden() - wide.scrollLeft > 2);
    wide.classList.toggle('scrolled', wide.scrollLeft > 2);
  };
  const fit = () => {
    wide.classList.remove('tight');
    wide.classList.toggle('tight', hidden() > 2);
    if (cue) cue.hidden = hidden() <= 2;
    scrolled();
  };
  wide.addEventListener('scroll', scrolled, { passive: true });
  addEventListener('resize', fit);
  document.addEventListener('toggle', fit, true);
  fit();
}
