'use strict';
// Curves that are read off: the nearest epoch under the pointer, or the next one by arrow keys.
for (const area of document.querySelectorAll('[data-chart]')) {
  const chart = JSON.parse(area.dataset.chart), ghost = area.querySelector('.ghost'), tip = area.querySelector('.tip');
  let at = Math.max(0, chart.epochs.indexOf(chart.best));
  const read = k => {
    at = Math.min(Math.max(k, 0), chart.epochs.length - 1);
    const values = chart.labels.map((label, line) => `${label} ${chart.values[line][at]?.toFixed(3) ?? '–'}`.replace('-', '−'));
    tip.textContent = `epoch ${chart.epochs[at]}${chart.epochs[at] === chart.best ? ' (kept)' : ''} · ${values.join(' · ')}`;
    ghost.style.left = `${chart.place[at] * 100}%`;
    const half = tip.offsetWidth / 2, wanted = chart.place[at] * area.clientWidth;
    tip.style.left = `${Math.max(half, Math.min(wanted, area.clientWidth - half))}px`;
    area.classList.add('hovered');
  };
  if (!chart.epochs.length) continue;
  area.addEventListener('pointermove', event => {
    const box = area.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
    const nearest = chart.place.reduce((best, place, k) => Math.abs(place - share) < Math.abs(chart.place[best] - share) ? k : best, 0);
    read(nearest);
  });
  area.addEventListener('pointerleave', () => area.classList.remove('hovered'));
  area.addEventListener('blur', () => area.classList.remove('hovered'));
  area.addEventListener('focus', () => { if (area.matches(':focus-visible')) read(at); });
  area.addEventListener('keydown', event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (step) { read(at + step); event.preventDefault(); }
  });
}
