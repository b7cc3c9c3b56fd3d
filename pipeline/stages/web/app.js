'use strict';
// The app's page: sends what is dropped on it, and shows what comes back while it comes back.

const list = document.querySelector('.jobs'), input = document.querySelector('.drop input'), mistake = document.querySelector('.error');
const most = Number(document.body.dataset.most), suffixes = document.body.dataset.suffixes.split(',');

function complain(text) { mistake.textContent = text; mistake.hidden = !text; }

/** Sends a file, telling how far it is; gives what the server answers. fetch cannot tell how far it is. */
function send(file, moved) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open('PUT', `/videos/new/${encodeURIComponent(file.name)}`);
    request.setRequestHeader('Content-Type', 'application/octet-stream');
    request.upload.onprogress = event => moved(event.loaded / Math.max(1, event.total));
    request.onload = () => request.status === 200 ? done(JSON.parse(request.responseText)) : failed(new Error(request.responseText || request.statusText));
    request.onerror = () => failed(new Error('affect does not answer any more'));
    request.send(file);
  });
}

async function take(file) {
  if (!suffixes.some(suffix => file.name.toLowerCase().endsWith(suffix))) {
    complain(`${file.name} is not a video: expected one of ${suffixes.join(', ')}`);
    return;
  }
  if (file.size > most) { complain(`${file.name} is larger than ${Math.round(most / 2 ** 20)} MiB`); return; }
  complain('');
  const status = make('span', {class: 'status'}, 'sending'), links = make('span', {class: 'links'});
  const progress = make('progress', {max: 1, value: 0, 'aria-label': `Progress of ${file.name}`});
  const stage = make('div', {class: 'player', role: 'group', 'aria-label': 'Player'});
  const job = make('article', {class: 'job'}, make('div', {class: 'top'}, make('h2', {}, file.name), status, links), progress,
    make('div', {class: 'players'}, stage));
  const remove = make('button', {type: 'button', class: 'button', onclick: () => {
    if (player) player.stop();
    if (events) events.close();
    if (key) fetch(`/videos/${key}`, {method: 'DELETE'});
    job.remove();
  }}, 'Remove');
  let key = '', player = null, events = null;
  links.append(remove);
  list.prepend(job);
  document.body.classList.add('with-jobs');
  const fail = text => { status.textContent = text; job.classList.add('failed'); };
  let answer;
  try { answer = await send(file, share => { progress.value = share / 10; }); } catch (error) { fail(error.message); return; }
  key = answer.key;
  const local = URL.createObjectURL(file);
  player = makePlayer(stage, {...answer.clip, url: local});
  // What this browser cannot play itself comes from affect when it is done.
  let plays = true;
  player.film.addEventListener('error', () => { plays = false; });
  events = new EventSource(`/videos/${key}/events`);
  events.onmessage = async event => {
    const told = JSON.parse(event.data);
    if (told.rows.frame.length) player.append(told.rows, told.facts.seconds);
    const n = player.clip.rows.frame.length, all = told.facts.frames;
    status.textContent = {
      waiting: told.before === 1 ? 'waiting for the one before it' : `waiting for ${told.before} before it`,
      running: all ? `${n} of ${all} frames` : 'looking', done: `${n} frames`, failed: told.message,
    }[told.status] ?? told.status;
    progress.value = 0.1 + 0.9 * (all ? n / all : 0);
    if (told.status === 'failed') { events.close(); fail(told.message); }
    if (told.status === 'done') { events.close(); await finish(); }
  };
  events.onerror = () => { if (events.readyState === EventSource.CLOSED) fail('affect does not answer any more'); };

  async function finish() {
    const clip = await (await fetch(`/videos/${key}/clip`)).json(), {film} = player;
    const at = Number(stage.dataset.time), playing = !film.paused && plays;
    player.stop();
    if (plays) URL.revokeObjectURL(local);
    player = makePlayer(stage, clip);
    player.seek(at);
    if (playing) player.film.play().catch(() => {});
    links.prepend(
      make('a', {class: 'button strong', href: `/videos/${key}/csv`, download: `${clip.name}.csv`}, 'Download CSV'),
      make('a', {class: 'button', href: `/videos/${key}/page`, download: `${clip.name}.html`}, 'Download this page'));
    job.classList.add('done');
  }
}

input.addEventListener('change', () => { [...input.files].forEach(take); input.value = ''; });
for (const name of ['dragover', 'drop', 'dragleave']) {
  document.addEventListener(name, event => {
    event.preventDefault();
    document.body.classList.toggle('over', name === 'dragover');
    if (name === 'drop') [...event.dataTransfer.files].forEach(take);
  });
}
