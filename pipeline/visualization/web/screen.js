'use strict';
// The player's picture: the video with the face box over it.

/** onclick: called at a click on the picture. */
function makeScreen(clip, timeline, onclick) {
  const source = clip.url || (clip.video ? blobUrl(clip.video, 'video/mp4') : '');
  const video = source ? make('video', {src: source, playsinline: true, preload: 'auto', 'aria-label': clip.name})
    : new SilentClock(() => timeline.end - clip.start);
  const box = make('g', {class: 'facebox'}), boxes = make('svg', {class: 'boxes', 'aria-hidden': 'true'}, box);
  const message = make('span', {class: 'state'});
  const element = make('div', {class: 'screen', onclick},
    source ? video : make('p', {class: 'nothing'}, 'no picture'), boxes, message);

  function setSize(width, height) {
    const longest = Math.max(width, height);
    boxes.setAttribute('viewBox', `0 0 ${width} ${height}`);
    element.style.setProperty('--aspect', width / height);
    box.replaceChildren(...['halo', 'box'].map(name => make('rect', {class: name, rx: longest / 90})));
    box.style.setProperty('--stroke', longest / 220);
  }

  /** corners: x0, y0, x1, y1 in pixels of the video, or null. */
  function showBox(corners) {
    box.style.display = corners ? '' : 'none';
    if (!corners) return;
    const [x0, y0, x1, y1] = corners;
    for (const rect of box.children) {
      for (const [key, value] of Object.entries({x: x0, y: y0, width: x1 - x0, height: y1 - y0})) rect.setAttribute(key, value);
    }
  }

  setSize(clip.width || 16, clip.height || 9);
  video.addEventListener('loadedmetadata', () => { if (!clip.width && video.videoWidth) setSize(video.videoWidth, video.videoHeight); });
  return {element, video, showBox, setMessage: text => { message.textContent = text; }};
}
