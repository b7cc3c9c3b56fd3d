'use strict';
// What the pages' scripts share: elements, numbers as text, a video from text, time without a video.

const SPACE = 'http://www.w3.org/2000/svg', DIMENSIONS = ['valence', 'arousal'], WIDE = 1000, TALL = 100;
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];

function make(name, attributes = {}, ...children) {
  const drawn = ['svg', 'path', 'circle', 'rect', 'line', 'text', 'polyline', 'g'].includes(name);
  const element = drawn ? document.createElementNS(SPACE, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter(child => child !== null));
  return element;
}

const signed = (value, places = 2) => value === null || value === undefined ? '–'
  : (value < 0 ? '−' : '+') + Math.abs(value).toFixed(places);

function clock(seconds, places = 1) {
  const whole = Math.max(0, seconds), minutes = Math.floor(whole / 60);
  const rest = (whole - 60 * minutes).toFixed(places).padStart(places ? 3 + places : 2, '0');
  return `${minutes}:${rest}`;
}

function nearestWord(words, valence, arousal) {
  // By direction: a word is a sector of the map. Near the middle there is none.
  if (valence === null || Math.hypot(valence, arousal) < 0.2) return 'the middle';
  const likeness = ([x, y]) => (x * valence + y * arousal) / Math.hypot(x, y);
  return words.reduce((best, word) => likeness(word) > likeness(best) ? word : best)[2];
}

function blobUrl(base64, type) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return URL.createObjectURL(new Blob([bytes], {type}));
}

/** Plays time alone, where there is no video to play: as much of a video element as the player needs. */
class Silence extends EventTarget {
  paused = true; playbackRate = 1; muted = false; at = 0;
  constructor(length) { super(); this.length = length; }
  get currentTime() { return this.paused ? this.at : Math.min(this.length(), this.at + this.since()); }
  set currentTime(seconds) { this.at = seconds; this.from = performance.now(); this.dispatchEvent(new Event('seeked')); }
  since() { return (performance.now() - this.from) / 1000 * this.playbackRate; }
  async play() {
    if (this.at >= this.length()) this.at = 0;
    this.from = performance.now(); this.paused = false; this.dispatchEvent(new Event('play'));
  }
  pause() { this.at = this.currentTime; this.paused = true; this.dispatchEvent(new Event('pause')); }
}
