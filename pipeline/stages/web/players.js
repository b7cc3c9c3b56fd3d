'use strict';
// The players that the page itself carries: one for each clip, under tabs where there are several.
for (const holder of document.querySelectorAll('.players')) {
  const clips = [...holder.querySelectorAll('script.clip')].map(script => JSON.parse(script.textContent));
  const stage = make('div', {class: 'player', role: 'group', 'aria-label': 'Player'});
  let current = null;
  const choose = k => {
    if (current) current.stop();
    const fresh = stage.cloneNode();
    (current ? current.root : stage).replaceWith(fresh);
    current = {...makePlayer(fresh, clips[k]), root: fresh};
    [...tabs.children].forEach((tab, other) => tab.setAttribute('aria-pressed', String(other === k)));
  };
  const tabs = make('div', {class: 'tabs', role: 'group', 'aria-label': 'Videos'},
    ...clips.map((clip, k) => make('button', {type: 'button', onclick: () => choose(k)}, clip.name)));
  if (clips.length > 1) holder.append(tabs);
  holder.append(stage);
  choose(0);
  // On a page that is all player, keys work wherever the focus is.
  if (holder.dataset.keys === 'page') {
    document.addEventListener('keydown', event => { if (event.target === document.body) current.press(event); });
  }
}
