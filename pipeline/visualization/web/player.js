'use strict';
// A video beside its valence and arousal. `makePlayer(root, clip)` fills an element; `as_json` in clip.py makes the clip.
// Times are seconds of the source video. The time 0 of the video element is clip.start.

const HELP = 'Click or drag on a curve to seek. Keys: space plays or pauses; ← and → go one second, with shift 0.1 seconds; '
  + 'comma and period go one frame.';

function makePlayer(root, clip) {
  const timeline = new Timeline(clip.rows, clip.length), {rows} = timeline;
  const screen = makeScreen(clip, timeline, toggle), {video} = screen;
  const plane = makePlane(clip, timeline), traces = makeTraces(clip, timeline, seek), controls = makeControls(clip, timeline, video, toggle);
  let position = timeline.first, beyondVideo = false;

  /** Shows the values of this moment. It does not move the video. */
  function show(seconds) {
    position = timeline.clamp(seconds);
    const row = timeline.rowAt(position);
    const hasFace = timeline.count > 0 && rows.face[row] >= clip.threshold;
    for (const part of [plane, traces, controls]) part.show(position, row);
    screen.showBox(hasFace ? rows.box[row] : null);
    root.dataset.row = row;
    root.dataset.time = position.toFixed(3);
  }

  function draw() { traces.draw(); plane.draw(); show(position); }

  function seek(seconds) {
    const target = timeline.clamp(seconds);
    beyondVideo = Boolean(clip.end) && target > clip.end + 0.2;
    // A little after the start of the frame: browsers may show the frame before at its exact time.
    video.currentTime = Math.max(0, (beyondVideo ? clip.end : target) - clip.start + 0.002);
    screen.setMessage(beyondVideo ? 'the video copy ends before this time' : '');
    show(target);
  }

  function toggle() {
    if (!video.paused) { video.pause(); return; }
    if (beyondVideo || position >= timeline.end - 0.02) seek(timeline.first);
    video.play().catch(error => screen.setMessage(`This browser cannot play the video: ${error.message}`));
  }

  const press = event => handleKey(event, {
    toggle, seek, position, timeline,
    step(rowsForward) {
      video.pause();
      seek(rows.time[clamp(timeline.rowAt(position) + rowsForward, 0, rows.time.length - 1)]);
    },
  });

  root.replaceChildren(make('div', {class: 'stage'}, screen.element, plane.element), controls.element, traces.element,
    makeMoments(clip, seconds => { seek(seconds); traces.element.focus({preventScroll: true}); }),
    make('p', {class: 'legend'}, HELP), ...(clip.remark ? [make('p', {class: 'note'}, clip.remark)] : []));
  root.addEventListener('keydown', press);
  followVideo(video, seconds => { if (!beyondVideo) show(seconds + clip.start); }, () => timeline.end - clip.start);
  video.addEventListener('play', () => root.classList.add('playing'));
  for (const name of ['pause', 'ended']) video.addEventListener(name, () => root.classList.remove('playing'));
  draw();
  video.addEventListener('loadeddata', () => { if (video.currentTime < 0.001) seek(position); }, {once: true});

  return {
    clip, video, seek, press,
    /** Adds rows. length: seconds of the whole video, if known. */
    append(more, length = 0) {
      for (const key of Object.keys(rows)) rows[key].push(...more[key]);
      timeline.length = Math.max(timeline.length, length);
      draw();
    },
    stop() { video.pause(); },
  };
}

function makeControls(clip, timeline, video, toggle) {
  const {rows} = timeline, play = make('button', {class: 'play', type: 'button', 'aria-label': 'Play', onclick: toggle});
  const time = make('output', {class: 'time'}), face = make('span', {class: 'face'}), readings = DIMENSIONS.map(() => make('b'));
  const speed = make('select', {class: 'speed', 'aria-label': 'Speed', onchange: () => { video.playbackRate = Number(speed.value); }},
    ...['0.25', '0.5', '1', '2'].map(rate => make('option', {value: rate, selected: rate === '1'}, `${rate} ×`)));
  const element = make('div', {class: 'controls'}, play, time,
    ...DIMENSIONS.map((name, k) => make('span', {class: `reading ${name}`}, make('span', {}, name), readings[k])), face, speed);
  video.addEventListener('play', () => play.setAttribute('aria-label', 'Pause'));
  for (const name of ['pause', 'ended']) video.addEventListener(name, () => play.setAttribute('aria-label', 'Play'));

  function describeFace(row) {
    if (!timeline.count) return '';
    return rows.face[row] >= clip.threshold ? `face ${Math.round(100 * rows.face[row])} %` : 'no face';
  }

  return {
    element,
    show(seconds, row) {
      time.textContent = `${clock(seconds)} / ${clock(timeline.end)}`;
      DIMENSIONS.forEach((name, k) => { readings[k].textContent = signed(rows[name][row]); });
      face.textContent = describeFace(row);
    },
  };
}

/** Buttons that go to the moments of the clip. */
function makeMoments(clip, onchoose) {
  return make('div', {class: 'moments'}, ...clip.moments.map(moment =>
    make('button', {type: 'button', class: 'moment', onclick: () => onchoose(moment.time)},
      moment.picture ? make('img', {src: moment.picture, alt: ''}) : null,
      make('span', {}, make('b', {}, moment.name), ` ${clock(moment.time)}`))));
}

/** Calls onframe with the video's time at each frame. end(): the time at which a clip without a video stops. */
function followVideo(video, onframe, end) {
  function onAnimationFrame() {
    onframe(video.currentTime);
    if (video.currentTime >= end()) video.pause();
    next();
  }

  function next() {
    if (video.paused) return;
    if (!video.requestVideoFrameCallback) { requestAnimationFrame(onAnimationFrame); return; }
    video.requestVideoFrameCallback((_, frame) => { if (!video.seeking) onframe(frame.mediaTime); next(); });
  }

  video.addEventListener('play', next);
  video.addEventListener('timeupdate', () => { if (!video.paused && !video.seeking) onframe(video.currentTime); });
}

/** Returns whether the player uses the key. */
function handleKey(event, {toggle, seek, step, position, timeline}) {
  const {tagName} = event.target, seconds = event.shiftKey ? 0.1 : 1;
  const actions = {
    ' ': toggle, k: toggle, ',': () => step(-1), '.': () => step(1),
    ArrowLeft: () => seek(position - seconds), ArrowRight: () => seek(position + seconds),
    Home: () => seek(timeline.first), End: () => seek(timeline.end),
  };
  const action = actions[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return false;
  if (tagName === 'SELECT' || (event.key === ' ' && tagName === 'BUTTON')) return false;
  action();
  event.preventDefault();
  return true;
}
