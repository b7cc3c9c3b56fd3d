'use strict';
// Values of the learning curves: at the epoch nearest to the pointer, or at the next epoch by arrow keys.

const minus = text => text.replace('-', '−');

function describeEpoch({epochs, labels, values, best}, k) {
  const parts = labels.map((label, line) => `${label} ${minus(values[line][k]?.toFixed(3) ?? '–')}`);
  return `epoch ${epochs[k]}${epochs[k] === best ? ' (kept)' : ''} · ${parts.join(' · ')}`;
}

function nearestEpoch({position}, share) {
  const distances = position.map(place => Math.abs(place - share));
  return distances.indexOf(Math.min(...distances));
}

function addReadout(area) {
  const readout = JSON.parse(area.dataset.readout), ghost = area.querySelector('.ghost'), tip = area.querySelector('.tip');
  if (!readout.epochs.length) return;
  let current = Math.max(0, readout.epochs.indexOf(readout.best));

  function show(k) {
    current = Math.min(Math.max(k, 0), readout.epochs.length - 1);
    tip.textContent = describeEpoch(readout, current);
    ghost.style.left = `${readout.position[current] * 100}%`;
    const half = tip.offsetWidth / 2, centre = readout.position[current] * area.clientWidth;
    tip.style.left = `${Math.max(half, Math.min(centre, area.clientWidth - half))}px`;
    area.classList.add('hovered');
  }

  function hide() { area.classList.remove('hovered'); }

  area.addEventListener('pointermove', event => {
    const box = area.getBoundingClientRect();
    show(nearestEpoch(readout, (event.clientX - box.left) / box.width));
  });
  area.addEventListener('pointerleave', hide);
  area.addEventListener('blur', hide);
  area.addEventListener('focus', () => { if (area.matches(':focus-visible')) show(current); });
  area.addEventListener('keydown', event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    show(current + step);
    event.preventDefault();
  });
}

document.querySelectorAll('[data-readout]').forEach(addReadout);
