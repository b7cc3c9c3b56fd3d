'use strict';
// A video beside its valence and arousal: both traces, the way through the circumplex, the face box. `makePlayer(root,
// clip)` fills an element; clip is what player.as_json tells. Times are the video's own, in seconds; `film` is the
// video element, whose time 0 is clip.start.

function makePlayer(root, clip) {
  const rows = clip.rows, box = make('g', {class: 'facebox'}), say = text => { state.textContent = text; };
  let position = rows.time[0] ?? 0, beyond = false, last = clip.length ?? 0;
  const first = () => rows.time[0] ?? 0, end = () => Math.max(last, rows.time.at(-1) ?? 0, first() + 0.001);
  const share = time => (time - first()) / (end() - first());

  // The picture, and what is drawn over it.
  const source = clip.url || (clip.video ? blobUrl(clip.video, 'video/mp4') : '');
  const film = source ? make('video', {src: source, playsinline: true, preload: 'auto', 'aria-label': clip.name})
    : new Silence(() => end() - clip.start);
  const boxes = make('svg', {class: 'boxes', 'aria-hidden': 'true'}, box);
  const state = make('span', {class: 'state'});
  const screen = make('div', {class: 'screen', onclick: () => toggle()},
    source ? film : make('p', {class: 'nothing'}, 'no picture'), boxes, state);
  const frameAs = (width, height) => {
    boxes.setAttribute('viewBox', `0 0 ${width} ${height}`);
    screen.style.setProperty('--aspect', width / height);
    box.replaceChildren(...['halo', 'box'].map(name => make('rect', {class: name, rx: Math.max(width, height) / 90})));
    box.style.setProperty('--stroke', Math.max(width, height) / 220);
  };
  frameAs(clip.width || 16, clip.height || 9);

  // The circumplex.
  const way = make('path', {class: 'way'}), trail = make('path', {class: 'trail'}), truthPoint = make('circle', {r: 0.04, class: 'truth'});
  const point = make('circle', {r: 0.055, class: 'point'});
  const map = make('svg', {class: 'map', viewBox: '-1.12 -1.12 2.24 2.24', role: 'img', 'aria-label': 'The valence-arousal plane'},
    make('circle', {r: 1, class: 'rim'}), make('line', {x1: -1, x2: 1, class: 'axis'}), make('line', {y1: -1, y2: 1, class: 'axis'}),
    way, ...clip.words.map(([x, y, word]) => make('text', {x, y: -y, class: 'word'}, word)), trail, truthPoint, point);
  const plane = make('figure', {class: 'plane'}, make('div', {class: 'square'}, map,
    make('span', {class: 'end right'}, 'valence'), make('span', {class: 'end top'}, 'arousal')),
    make('figcaption', {}, 'The words are those of a map, for orientation; they are not what anybody felt.'));

  // Both traces over time; they are also the slider.
  const lines = DIMENSIONS.map(name => {
    const gone = make('g', {class: 'gone'}), fill = make('path', {class: 'fill'}), truth = make('path', {class: 'truth'});
    const line = make('path', {class: 'line'}), dot = make('i', {class: 'dot'}), value = make('b');
    const picture = make('svg', {viewBox: `0 0 ${WIDE} ${TALL}`, preserveAspectRatio: 'none', 'aria-hidden': 'true'},
      gone, make('line', {x2: WIDE, y1: TALL / 2, y2: TALL / 2, class: 'zero'}), fill, truth, line);
    const panel = make('div', {class: `panel ${name}`}, make('span', {class: 'name'}, name), picture, dot,
      ...[['1', 0], ['0', 50], ['−1', 100]].map(([text, top]) => make('span', {class: 'tick', style: `top:${top}%`}, text)));
    return {name, gone, fill, truth, line, dot, value, panel};
  });
  const cursor = make('i', {class: 'cursor'}), ghost = make('i', {class: 'ghost'}), tip = make('div', {class: 'tip', role: 'status'});
  const ticks = make('div', {class: 'ticks', 'aria-hidden': 'true'});
  const traces = make('div', {class: 'traces', tabindex: 0, role: 'slider', 'aria-label': `Time in ${clip.name}`},
    ...lines.map(line => line.panel), cursor, ghost, tip, ticks);

  const play = make('button', {class: 'play', type: 'button', 'aria-label': 'Play', onclick: () => toggle()});
  const time = make('output', {class: 'time'}), face = make('span', {class: 'face'});
  const speed = make('select', {class: 'speed', 'aria-label': 'Speed', onchange: () => { film.playbackRate = Number(speed.value); }},
    ...['0.25', '0.5', '1', '2'].map(rate => make('option', {value: rate, selected: rate === '1'}, `${rate} ×`)));
  const controls = make('div', {class: 'controls'}, play, time,
    ...lines.map(line => make('span', {class: `reading ${line.name}`}, make('span', {}, line.name), line.value)), face, speed);
  const strip = make('div', {class: 'moments'}, ...clip.moments.map(moment =>
    make('button', {type: 'button', class: 'moment', onclick: () => { seek(moment.time); traces.focus({preventScroll: true}); }},
      moment.picture ? make('img', {src: moment.picture, alt: ''}) : null,
      make('span', {}, make('b', {}, moment.name), ` ${clock(moment.time)}`))));
  const legend = make('p', {class: 'legend'}, 'Click or drag on the traces to seek. Keys: space plays; ← and → move a second, with shift a tenth; comma and full stop a frame.');
  root.replaceChildren(make('div', {class: 'stage'}, screen, plane), controls, traces, strip, legend,
    ...(clip.remark ? [make('p', {class: 'note'}, clip.remark)] : []));

  function rowAt(seconds) {
    let low = 0, high = rows.time.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (rows.time[middle] <= seconds + 1e-4) low = middle; else high = middle - 1;
    }
    return low;
  }

  function pathOf(values, x, y, from = 0, to = values.length) {
    let text = '', pen = false;
    for (let i = from; i < to; i++) {
      if (values[i] === null || values[i] === undefined) { pen = false; continue; }
      text += `${pen ? 'L' : 'M'}${x(i).toFixed(3)} ${y(i).toFixed(3)}`;
      pen = true;
    }
    return text;
  }

  function draw() {
    const x = i => share(rows.time[i]) * WIDE, n = rows.time.length;
    lines.forEach((line, k) => {
      const own = rows[line.name], y = values => i => TALL / 2 * (1 - values[i]);
      const text = pathOf(own, x, y(own));
      line.line.setAttribute('d', text);
      // To the middle and back, stretch by stretch: the area between the trace and zero.
      line.fill.setAttribute('d', text.split('M').filter(Boolean).map(part => {
        const points = part.split('L'), at = point => point.split(' ')[0];
        return `M${at(points[0])} ${TALL / 2}L${part}L${at(points.at(-1))} ${TALL / 2}Z`;
      }).join(''));
      if (clip.truth) line.truth.setAttribute('d', pathOf(clip.truth[k], x, y(clip.truth[k])));
      const bands = [];
      for (let i = 0, start = -1; i <= n; i++) {
        const absent = i < n && rows.face[i] < clip.threshold;
        if (absent && start < 0) start = i;
        if (!absent && start >= 0) {
          const left = start ? (x(start - 1) + x(start)) / 2 : 0, right = i < n ? (x(i - 1) + x(i)) / 2 : x(n - 1);
          bands.push(make('rect', {x: left, width: Math.max(1, right - left), height: TALL}));
          start = -1;
        }
      }
      line.gone.replaceChildren(...bands);
    });
    const flat = name => i => name === 'x' ? rows.valence[i] : -rows.arousal[i];
    way.setAttribute('d', pathOf(rows.valence, flat('x'), flat('y')));
    drawTicks();
    show(position);
  }

  function drawTicks() {
    const length = end() - first(), most = Math.max(2, Math.floor((traces.clientWidth || 600) / 90));
    const step = STEPS.find(step => length / step <= most) ?? STEPS.at(-1), marks = [];
    for (let k = Math.ceil(first() / step - 1e-6); k * step <= end() + 1e-6; k++) {
      marks.push(make('span', {style: `left:${share(k * step) * 100}%`}, clock(k * step, step < 1 ? 1 : 0)));
    }
    ticks.replaceChildren(...marks);
  }

  /** Shows the moment; moves nothing but what is drawn. */
  function show(seconds) {
    position = Math.min(Math.max(seconds, first()), end());
    const i = rowAt(position), n = rows.time.length, left = `${share(position) * 100}%`;
    cursor.style.left = left;
    time.textContent = `${clock(position)} / ${clock(end())}`;
    for (const line of lines) {
      const value = n ? rows[line.name][i] : null;
      line.value.textContent = signed(value);
      line.dot.hidden = value === null || value === undefined;
      line.dot.style.left = left;
      line.dot.style.top = `${50 * (1 - value)}%`;
    }
    const valence = n ? rows.valence[i] : null, there = valence !== null;
    point.style.display = there ? '' : 'none';
    if (there) point.setAttribute('transform', `translate(${valence} ${-rows.arousal[i]})`);
    trail.setAttribute('d', n ? pathOf(rows.valence, j => rows.valence[j], j => -rows.arousal[j], rowAt(position - 2), i + 1) : '');
    const known = clip.truth && clip.truth[0][i] !== null && n;
    truthPoint.style.display = known ? '' : 'none';
    if (known) truthPoint.setAttribute('transform', `translate(${clip.truth[0][i]} ${-clip.truth[1][i]})`);
    const seen = n > 0 && rows.face[i] >= clip.threshold, corners = n ? rows.box[i] : null;
    box.style.display = seen && corners ? '' : 'none';
    if (corners) {
      for (const rect of box.children) {
        rect.setAttribute('x', corners[0]); rect.setAttribute('y', corners[1]);
        rect.setAttribute('width', corners[2] - corners[0]); rect.setAttribute('height', corners[3] - corners[1]);
      }
    }
    face.textContent = n ? seen ? `face ${Math.round(100 * rows.face[i])} %` : 'no face' : '';
    root.dataset.row = i;
    root.dataset.time = position.toFixed(3);
    traces.setAttribute('aria-valuemin', first().toFixed(2));
    traces.setAttribute('aria-valuemax', end().toFixed(2));
    traces.setAttribute('aria-valuenow', position.toFixed(2));
    traces.setAttribute('aria-valuetext', n ? told(i) : '');
  }

  const told = i => `${clock(rows.time[i])}, valence ${signed(rows.valence[i])}, arousal ${signed(rows.arousal[i])}`;

  function seek(seconds) {
    const wanted = Math.min(Math.max(seconds, first()), end());
    beyond = Boolean(clip.end) && wanted > clip.end + 0.2;
    // A little into the frame: a time on its edge may show the one before.
    film.currentTime = Math.max(0, (beyond ? clip.end : wanted) - clip.start + 0.002);
    say(beyond ? 'no picture here' : '');
    show(wanted);
  }

  function toggle() {
    if (!film.paused) { film.pause(); return; }
    if (beyond || position >= end() - 0.02) seek(first());
    film.play().catch(error => say(`This browser cannot play it: ${error.message}`));
  }

  function follow(seconds) { if (!beyond) show(seconds + clip.start); }
  function loop() {
    if (film.paused) return;
    if (film.requestVideoFrameCallback) {
      film.requestVideoFrameCallback((_, frame) => { if (!film.seeking) follow(frame.mediaTime); loop(); });
    } else {
      requestAnimationFrame(() => { follow(film.currentTime); if (film.currentTime >= end() - clip.start) film.pause(); loop(); });
    }
  }
  film.addEventListener('play', () => { play.setAttribute('aria-label', 'Pause'); root.classList.add('playing'); loop(); });
  for (const name of ['pause', 'ended']) {
    film.addEventListener(name, () => { play.setAttribute('aria-label', 'Play'); root.classList.remove('playing'); });
  }
  film.addEventListener('timeupdate', () => { if (!film.paused && !film.seeking) follow(film.currentTime); });
  film.addEventListener('loadedmetadata', () => { if (!clip.width && film.videoWidth) frameAs(film.videoWidth, film.videoHeight); });

  function hover(event) {
    const area = lines[0].panel.getBoundingClientRect(), at = (event.clientX - area.left) / area.width;
    if (at < 0 || at > 1 || !rows.time.length) { leave(); return null; }
    const seconds = first() + at * (end() - first()), i = rowAt(seconds);
    const word = rows.valence[i] === null ? '' : ` · on the map near: ${nearestWord(clip.words, rows.valence[i], rows.arousal[i])}`;
    tip.textContent = `${clock(rows.time[i], 2)} · valence ${signed(rows.valence[i])} · arousal ${signed(rows.arousal[i])}${word}`;
    tip.style.left = `${Math.min(Math.max(at * area.width, tip.offsetWidth / 2), area.width - tip.offsetWidth / 2)}px`;
    ghost.style.left = `${at * 100}%`;
    traces.classList.add('hovered');
    return seconds;
  }
  function leave() { traces.classList.remove('hovered'); }
  traces.addEventListener('pointermove', event => {
    const seconds = hover(event);
    if (seconds !== null && traces.hasPointerCapture(event.pointerId)) seek(seconds);
  });
  traces.addEventListener('pointerdown', event => {
    if (event.button) return;
    traces.setPointerCapture(event.pointerId);
    const seconds = hover(event);
    if (seconds !== null) seek(seconds);
  });
  traces.addEventListener('pointerleave', leave);

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const on = event.target.tagName, i = rowAt(position);
    if (event.key === ' ' && on === 'BUTTON' || on === 'SELECT') return false;
    if (event.key === ' ' || event.key === 'k') toggle();
    else if (event.key === 'ArrowLeft') seek(position - (event.shiftKey ? 0.1 : 1));
    else if (event.key === 'ArrowRight') seek(position + (event.shiftKey ? 0.1 : 1));
    else if (event.key === ',' || event.key === '.') {
      film.pause();
      seek(rows.time[Math.min(Math.max(i + (event.key === '.' ? 1 : -1), 0), rows.time.length - 1)]);
    } else if (event.key === 'Home') seek(first());
    else if (event.key === 'End') seek(end());
    else return false;
    event.preventDefault();
    return true;
  }
  root.addEventListener('keydown', press);
  new ResizeObserver(drawTicks).observe(traces);
  draw();
  if (source) film.addEventListener('loadeddata', () => { if (film.currentTime < 0.001) seek(position); }, {once: true});

  return {
    clip, film, seek, press, draw,
    /** More frames have come in; length: seconds of the whole video, where known. */
    append(more, length = 0) {
      for (const key of Object.keys(rows)) rows[key].push(...more[key]);
      last = Math.max(last, length);
      draw();
    },
    stop() { film.pause(); },
  };
}
