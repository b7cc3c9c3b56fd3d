'use strict';
// The page of `affect app`: uploads the dropped videos and shows their values while they are computed.

const jobList = document.querySelector('.jobs'), fileInput = document.querySelector('.drop input');
const errorLine = document.querySelector('.error');
const MAX_BYTES = Number(document.body.dataset.maxBytes), SUFFIXES = document.body.dataset.suffixes.split(',');
const UPLOAD_SHARE = 0.1; // of the progress bar
const NO_ANSWER = 'affect no longer responds';

function showError(text) { errorLine.textContent = text; errorLine.hidden = !text; }

/** Uploads a file and returns the answer. onprogress gets the share that was sent, which fetch does not report. */
function upload(file, onprogress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('PUT', `/videos/new/${encodeURIComponent(file.name)}`);
    request.setRequestHeader('Content-Type', 'application/octet-stream');
    request.upload.addEventListener('progress', event => onprogress(event.loaded / Math.max(1, event.total)));
    request.addEventListener('load', () => {
      if (request.status === 200) resolve(JSON.parse(request.responseText));
      else reject(new Error(request.responseText || request.statusText));
    });
    request.addEventListener('error', () => reject(new Error(NO_ANSWER)));
    request.send(file);
  });
}

function whyRefused(file) {
  if (!SUFFIXES.some(suffix => file.name.toLowerCase().endsWith(suffix))) {
    return `${file.name} is not a video: expected one of ${SUFFIXES.join(', ')}`;
  }
  return file.size > MAX_BYTES ? `${file.name} is larger than ${Math.round(MAX_BYTES / 2 ** 20)} MiB` : '';
}

function describeStatus({status, before, message, facts}, frames) {
  if (status === 'waiting') return before === 1 ? 'waiting for one video' : `waiting for ${before} videos`;
  if (status === 'running') return facts.frames ? `${frames} of ${facts.frames} frames` : 'reading the video';
  if (status === 'done') return `${frames} frames`;
  return message || status;
}

/** One uploaded video on the page. */
class Job {
  key = ''; player = null; events = null; localUrl = ''; canPlayFile = true;

  constructor(file) {
    this.file = file;
    this.status = make('span', {class: 'status'}, 'uploading');
    this.links = make('span', {class: 'links'}, make('button', {type: 'button', class: 'button', onclick: () => this.remove()}, 'Remove'));
    this.progress = make('progress', {max: 1, value: 0, 'aria-label': `Progress of ${file.name}`});
    this.stage = make('div', {class: 'player', role: 'group', 'aria-label': 'Player'});
    this.element = make('article', {class: 'job'},
      make('div', {class: 'top'}, make('h2', {}, file.name), this.status, this.links), this.progress,
      make('div', {class: 'players'}, this.stage));
    jobList.prepend(this.element);
    document.body.classList.add('with-jobs');
  }

  async start() {
    let answer;
    try {
      answer = await upload(this.file, share => { this.progress.value = share * UPLOAD_SHARE; });
    } catch (error) { this.fail(error.message); return; }
    this.key = answer.key;
    this.localUrl = URL.createObjectURL(this.file);
    this.player = makePlayer(this.stage, {...answer.clip, url: this.localUrl});
    // If the browser cannot play the file, the player shows the copy that affect makes at the end.
    this.player.video.addEventListener('error', () => { this.canPlayFile = false; });
    this.listen();
  }

  listen() {
    this.events = new EventSource(`/videos/${this.key}/events`);
    this.events.addEventListener('message', event => this.update(JSON.parse(event.data)));
    this.events.addEventListener('error', () => { if (this.events.readyState === EventSource.CLOSED) this.fail(NO_ANSWER); });
  }

  async update(news) {
    if (news.rows.frame.length) this.player.append(news.rows, news.facts.seconds);
    const frames = this.player.clip.rows.frame.length, total = news.facts.frames;
    this.status.textContent = describeStatus(news, frames);
    this.progress.value = UPLOAD_SHARE + (1 - UPLOAD_SHARE) * (total ? frames / total : 0);
    if (news.status === 'failed' || news.status === 'done') this.events.close();
    if (news.status === 'failed') this.fail(news.message);
    if (news.status === 'done') await this.finish();
  }

  /** Replaces the player by one with the final clip, at the same time. */
  async finish() {
    const clip = await (await fetch(`/videos/${this.key}/clip`)).json();
    const time = Number(this.stage.dataset.time), playing = !this.player.video.paused && this.canPlayFile;
    this.player.stop();
    if (this.canPlayFile) URL.revokeObjectURL(this.localUrl);
    this.player = makePlayer(this.stage, clip);
    this.player.seek(time);
    if (playing) this.player.video.play().catch(() => {});
    this.links.prepend(
      make('a', {class: 'button strong', href: `/videos/${this.key}/csv`, download: `${clip.name}.csv`}, 'Download CSV'),
      make('a', {class: 'button', href: `/videos/${this.key}/page`, download: `${clip.name}.html`}, 'Download this page'));
    this.element.classList.add('done');
  }

  fail(text) { this.status.textContent = text; this.element.classList.add('failed'); }

  remove() {
    this.player?.stop();
    this.events?.close();
    if (this.key) fetch(`/videos/${this.key}`, {method: 'DELETE'});
    this.element.remove();
  }
}

function addFile(file) {
  const reason = whyRefused(file);
  showError(reason);
  if (!reason) new Job(file).start();
}

fileInput.addEventListener('change', () => { [...fileInput.files].forEach(addFile); fileInput.value = ''; });
for (const name of ['dragover', 'drop', 'dragleave']) {
  document.addEventListener(name, event => {
    event.preventDefault();
    document.body.classList.toggle('over', name === 'dragover');
    if (name === 'drop') [...event.dataTransfer.files].forEach(addFile);
  });
}
