// On paper, what is worth reading is unfolded; afterwards it is as it was.
let unfolded = [];
addEventListener('beforeprint', () => {
  unfolded = [...document.querySelectorAll('details[data-printed]:not([open])')];
  for (const part of unfolded) part.open = true;
});
addEventListener('afterprint', () => {
  for (const part of unfolded) part.open = false;
});
