'use strict';
// The player's curves of valence and arousal over time. They are also the slider of the player.

const PANEL_WIDTH = 1000, PANEL_HEIGHT = 100;
const TICK_SECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];
const TICK_PIXELS = 90;

function describeRow(rows, i, places = 1) {
  return `${clock(rows.time[i], places)}, valence ${signed(rows.valence[i])}, arousal ${signed(rows.arousal[i])}`;
}

/** The ends of the intervals of a row; ends: low and high of valence, then of arousal, or null. */
function describeInterval(ends, i) {
  if (!ends || isMissing(ends[0][i])) return '';
  return `; interval ${DIMENSIONS.map((name, k) => `${name} ${signed(ends[2 * k][i])} to ${signed(ends[2 * k + 1][i])}`).join(', ')}`;
}

/** The curve of one dimension: name of the dimension; annotated: its values, or null; ends: of its intervals, or null. */
function makePanel(name, clip, timeline, annotated, ends) {
  const {rows} = timeline, absent = make('g', {class: 'gone'}), fill = make('path', {class: ends ? 'band' : 'fill'});
  const truth = make('path', {class: 'truth'}), line = make('path', {class: 'line'}), dot = make('i', {class: 'dot'});
  const picture = make('svg', {viewBox: `0 0 ${PANEL_WIDTH} ${PANEL_HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true'},
    absent, make('line', {x2: PANEL_WIDTH, y1: PANEL_HEIGHT / 2, y2: PANEL_HEIGHT / 2, class: 'zero'}), fill, truth, line);
  const ticks = [['1', 0], ['0', 50], ['−1', 100]].map(([text, top]) => make('span', {class: 'tick', style: `top:${top}%`}, text));
  const element = make('div', {class: `panel ${name}`}, make('span', {class: 'name'}, name), picture, dot, ...ticks);
  const x = i => timeline.share(rows.time[i]) * PANEL_WIDTH;
  const y = values => i => PANEL_HEIGHT / 2 * (1 - values[i]);

  return {
    element,
    draw() {
      const path = pathThrough(rows[name], x, y(rows[name]));
      line.setAttribute('d', path);
      fill.setAttribute('d', ends ? areaBetween(...ends, x, y) : areaToZero(path));
      if (annotated) truth.setAttribute('d', pathThrough(annotated, x, y(annotated)));
      absent.replaceChildren(...absentBands(rows.face, clip.threshold, x));
    },
    show(left, row) {
      const value = rows[name][row];
      dot.hidden = isMissing(value);
      dot.style.left = left;
      dot.style.top = `${50 * (1 - value)}%`;
    },
  };
}

/** The area between each part of a path and zero. */
function areaToZero(path) {
  return path.split('M').filter(Boolean).map(part => {
    const [left, right] = [part, part.split('L').at(-1)].map(point => point.split(' ')[0]);
    return `M${left} ${PANEL_HEIGHT / 2}L${part}L${right} ${PANEL_HEIGHT / 2}Z`;
  }).join('');
}

/** The area between two curves, in parts where values are missing. */
function areaBetween(low, high, x, y) {
  const parts = [], count = low.length;
  for (let i = 0, start = -1; i <= count; i++) {
    const known = i < count && !isMissing(low[i]);
    if (known && start < 0) start = i;
    if (!known && start >= 0) {
      const rows = Array.from({length: i - start}, (_, k) => start + k), point = values => k => `${x(k).toFixed(3)} ${y(values)(k).toFixed(3)}`;
      parts.push(`M${[...rows.map(point(high)), ...rows.toReversed().map(point(low))].join('L')}Z`);
      start = -1;
    }
  }
  return parts.join('');
}

/** A band for each stretch of rows without a face. It reaches halfway to its neighbours. */
function absentBands(face, threshold, x) {
  const bands = [], count = face.length;
  for (let i = 0, start = -1; i <= count; i++) {
    const absent = i < count && face[i] < threshold;
    if (absent && start < 0) start = i;
    if (!absent && start >= 0) {
      const left = start ? (x(start - 1) + x(start)) / 2 : 0, right = i < count ? (x(i - 1) + x(i)) / 2 : x(count - 1);
      bands.push(make('rect', {x: left, width: Math.max(1, right - left), height: PANEL_HEIGHT}));
      start = -1;
    }
  }
  return bands;
}

/** onseek: called with seconds when the user clicks or drags. */
function makeTraces(clip, timeline, onseek) {
  const {rows} = timeline, panels = DIMENSIONS.map((name, k) =>
    makePanel(name, clip, timeline, clip.truth?.[k], clip.interval && [clip.interval[2 * k], clip.interval[2 * k + 1]]));
  const cursor = make('i', {class: 'cursor'}), ghost = make('i', {class: 'ghost'}), tip = make('div', {class: 'tip', role: 'status'});
  const ticks = make('div', {class: 'ticks', 'aria-hidden': 'true'});
  const element = make('div', {class: 'traces', tabindex: 0, role: 'slider', 'aria-label': `Time in ${clip.name}`},
    ...panels.map(panel => panel.element), cursor, ghost, tip, ticks);

  function drawTicks() {
    const length = timeline.end - timeline.first, most = Math.max(2, Math.floor((element.clientWidth || 600) / TICK_PIXELS));
    const step = TICK_SECONDS.find(seconds => length / seconds <= most) ?? TICK_SECONDS.at(-1), marks = [];
    for (let k = Math.ceil(timeline.first / step - 1e-6); k * step <= timeline.end + 1e-6; k++) {
      marks.push(make('span', {style: `left:${timeline.share(k * step) * 100}%`}, clock(k * step, step < 1 ? 1 : 0)));
    }
    ticks.replaceChildren(...marks);
  }

  function hideTip() { element.classList.remove('hovered'); }

  /** Shows the values at the pointer. Returns its time, or null if it is not over the curves. */
  function showTip(event) {
    const area = panels[0].element.getBoundingClientRect(), share = (event.clientX - area.left) / area.width;
    if (share < 0 || share > 1 || !timeline.count) { hideTip(); return null; }
    const seconds = timeline.timeAt(share), i = timeline.rowAt(seconds), half = tip.offsetWidth / 2;
    const word = isMissing(rows.valence[i]) ? '' : `, nearest word: ${nearestWord(clip.words, rows.valence[i], rows.arousal[i])}`;
    tip.textContent = describeRow(rows, i, 2) + word + describeInterval(clip.interval, i);
    tip.style.left = `${clamp(share * area.width, half, Math.max(half, area.width - half))}px`;
    ghost.style.left = `${share * 100}%`;
    element.classList.add('hovered');
    return seconds;
  }

  element.addEventListener('pointermove', event => {
    const seconds = showTip(event);
    if (seconds !== null && element.hasPointerCapture(event.pointerId)) onseek(seconds);
  });
  element.addEventListener('pointerdown', event => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    const seconds = showTip(event);
    if (seconds !== null) onseek(seconds);
  });
  element.addEventListener('pointerleave', hideTip);
  new ResizeObserver(drawTicks).observe(element);

  return {
    element,
    draw() { panels.forEach(panel => panel.draw()); drawTicks(); },
    show(seconds, row) {
      const left = `${timeline.share(seconds) * 100}%`;
      cursor.style.left = left;
      panels.forEach(panel => panel.show(left, row));
      element.setAttribute('aria-valuemin', timeline.first.toFixed(2));
      element.setAttribute('aria-valuemax', timeline.end.toFixed(2));
      element.setAttribute('aria-valuenow', seconds.toFixed(2));
      element.setAttribute('aria-valuetext', timeline.count ? describeRow(rows, row) : '');
    },
  };
}
