'use strict';
// Fills each `.players` element with a player for the clips in it, and tabs if there are several.

function fillPlayers(holder) {
  const clips = [...holder.querySelectorAll('script.clip')].map(script => JSON.parse(script.textContent));
  const buttons = clips.map((clip, k) => make('button', {type: 'button', onclick: () => choose(k)}, clip.name));
  let root = make('div', {class: 'player', role: 'group', 'aria-label': 'Player'}), player = null;

  function choose(k) {
    if (player) player.stop();
    const fresh = root.cloneNode();
    root.replaceWith(fresh);
    root = fresh;
    player = makePlayer(root, clips[k]);
    buttons.forEach((button, other) => button.setAttribute('aria-pressed', String(other === k)));
  }

  if (clips.length > 1) holder.append(make('div', {class: 'tabs', role: 'group', 'aria-label': 'Videos'}, ...buttons));
  holder.append(root);
  choose(0);
  // On a page with one player, its keys work wherever the focus is.
  if (holder.dataset.keys === 'page') {
    document.addEventListener('keydown', event => { if (event.target === document.body) player.press(event); });
  }
}

document.querySelectorAll('.players').forEach(fillPlayers);
