'use strict';
// Shared by the scripts of the pages: elements, text, a clock for clips without a video, and the times of a clip.

const SVG_NAMESPACE = 'http://www.w3.org/2000/svg';
const SVG_NAMES = ['svg', 'path', 'circle', 'rect', 'line', 'text', 'g'];
const DIMENSIONS = ['valence', 'arousal'];

/** An element. Attributes that start with "on" are event listeners. Children that are null are left out. */
function make(name, attributes = {}, ...children) {
  const element = SVG_NAMES.includes(name) ? document.createElementNS(SVG_NAMESPACE, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter(child => child !== null));
  return element;
}

function isMissing(value) { return value === null || value === undefined; }

function clamp(value, low, high) { return Math.min(Math.max(value, low), high); }

function signed(value, places = 2) {
  return isMissing(value) ? '–' : (value < 0 ? '−' : '+') + Math.abs(value).toFixed(places);
}

/** Seconds as minutes:seconds. */
function clock(seconds, places = 1) {
  const whole = Math.max(0, seconds), minutes = Math.floor(whole / 60);
  const rest = (whole - 60 * minutes).toFixed(places).padStart(places ? 3 + places : 2, '0');
  return `${minutes}:${rest}`;
}

/** The word of the plane in this direction. Near the centre there is none. */
function nearestWord(words, valence, arousal) {
  if (isMissing(valence) || Math.hypot(valence, arousal) < 0.2) return 'none';
  const similarity = ([x, y]) => (x * valence + y * arousal) / Math.hypot(x, y);
  return words.reduce((best, word) => similarity(word) > similarity(best) ? word : best)[2];
}

function blobUrl(base64, type) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return URL.createObjectURL(new Blob([bytes], {type}));
}

/** The SVG path through points x(i), y(i), interrupted where the value is missing. */
function pathThrough(values, x, y, from = 0, to = values.length) {
  let text = '', command = 'M';
  for (let i = from; i < to; i++) {
    if (isMissing(values[i])) { command = 'M'; continue; }
    text += `${command}${x(i).toFixed(3)} ${y(i).toFixed(3)}`;
    command = 'L';
  }
  return text;
}

/** The times of a clip's rows, in seconds of the video. More rows may arrive. */
class Timeline {
  constructor(rows, length = 0) { this.rows = rows; this.length = length; }
  get count() { return this.rows.time.length; }
  get first() { return this.rows.time[0] ?? 0; }
  get end() { return Math.max(this.length, this.rows.time.at(-1) ?? 0, this.first + 0.001); }
  /** The place of a time, from 0 to 1. */
  share(seconds) { return (seconds - this.first) / (this.end - this.first); }
  timeAt(share) { return this.first + share * (this.end - this.first); }
  clamp(seconds) { return clamp(seconds, this.first, this.end); }
  /** The last row that is not later. */
  rowAt(seconds) {
    const {time} = this.rows;
    let low = 0, high = time.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (time[middle] <= seconds + 1e-4) low = middle; else high = middle - 1;
    }
    return low;
  }
}

/** A clock with the part of the interface of a video element that the player uses. length(): seconds. */
class SilentClock extends EventTarget {
  paused = true; playbackRate = 1; seeking = false; stoppedAt = 0; startedAt = 0;
  constructor(length) { super(); this.length = length; }
  get currentTime() { return this.paused ? this.stoppedAt : Math.min(this.length(), this.stoppedAt + this.#elapsed()); }
  set currentTime(seconds) { this.stoppedAt = seconds; this.startedAt = performance.now(); this.dispatchEvent(new Event('seeked')); }
  #elapsed() { return (performance.now() - this.startedAt) / 1000 * this.playbackRate; }
  async play() {
    if (this.stoppedAt >= this.length()) this.stoppedAt = 0;
    this.startedAt = performance.now(); this.paused = false; this.dispatchEvent(new Event('play'));
  }
  pause() { this.stoppedAt = this.currentTime; this.paused = true; this.dispatchEvent(new Event('pause')); }
}
