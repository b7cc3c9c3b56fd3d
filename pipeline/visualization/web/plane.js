'use strict';
// The player's valence-arousal plane: all values, the last two seconds and the current value.

const TRAIL_SECONDS = 2;

/** Moves a circle to a value, or hides it where there is none. */
function placeCircle(circle, valence, arousal) {
  circle.style.display = isMissing(valence) ? 'none' : '';
  if (!isMissing(valence)) circle.setAttribute('transform', `translate(${valence} ${-arousal})`);
}

function makePlane(clip, timeline) {
  const {rows} = timeline, way = make('path', {class: 'way'}), trail = make('path', {class: 'trail'});
  const annotation = make('circle', {r: 0.04, class: 'truth'}), point = make('circle', {r: 0.055, class: 'point'});
  const words = clip.words.map(([x, y, word]) => make('text', {x, y: -y, class: 'word'}, word));
  const map = make('svg', {class: 'map', viewBox: '-1.12 -1.12 2.24 2.24', role: 'img', 'aria-label': 'The valence-arousal plane'},
    make('circle', {r: 1, class: 'rim'}), make('line', {x1: -1, x2: 1, class: 'axis'}), make('line', {y1: -1, y2: 1, class: 'axis'}),
    way, ...words, trail, annotation, point);
  const element = make('figure', {class: 'plane'}, make('div', {class: 'square'}, map,
    make('span', {class: 'end right'}, 'valence'), make('span', {class: 'end top'}, 'arousal')),
    make('figcaption', {}, 'The words help you to read the plane. They do not say what the person felt.'));

  function pathOfRows(from, to) {
    return pathThrough(rows.valence, i => rows.valence[i], i => -rows.arousal[i], from, to);
  }

  return {
    element,
    draw() { way.setAttribute('d', pathOfRows()); },
    show(seconds, row) {
      placeCircle(point, rows.valence[row], rows.arousal[row]);
      placeCircle(annotation, clip.truth?.[0][row], clip.truth?.[1][row]);
      trail.setAttribute('d', timeline.count ? pathOfRows(timeline.rowAt(seconds - TRAIL_SECONDS), row + 1) : '');
    },
  };
}
