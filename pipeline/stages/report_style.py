"""How the report's page looks, and the few lines that sort its tables."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f27; --soft: #5f6673; --line: #e3e6eb; --shade: #f5f6f8;
  --valence: #c2570c; --arousal: #2457c5; --mark: #0b7d6e; --box: #2ee6c5; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #171a21; --ink: #eceef2; --soft: #9aa2b1; --line: #2c313c; --shade: #1f232c;
  --valence: #ffa45c; --arousal: #7fb0ff; --mark: #3fd0ba; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", sans-serif; overflow-wrap: break-word; }
main, header, nav ul, footer { max-width: 1180px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 84px; padding-bottom: 44px; }
h1 { font-size: clamp(2.2rem, 5.2vw, 3.6rem); line-height: 1.06; letter-spacing: -.03em; margin: 0 0 18px; font-weight: 700;
  text-wrap: balance; }
h2 { font-size: clamp(1.6rem, 3.4vw, 2.2rem); letter-spacing: -.02em; line-height: 1.15; margin: 0 0 10px; }
h3 { font-size: 1.06rem; margin: 36px 0 10px; }
p { margin: 0 0 14px; max-width: 68ch; }
.lead { font-size: 1.22rem; color: var(--soft); max-width: 58ch; }
.kicker { color: var(--soft); font-size: .95rem; margin-bottom: 14px; }
nav { position: sticky; top: 0; z-index: 2; background: var(--paper); border-bottom: 1px solid var(--line); }
nav ul { display: flex; gap: 26px; overflow-x: auto; list-style: none; padding-top: 13px; padding-bottom: 13px;
  font-size: .94rem; white-space: nowrap; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: 3px; }
nav a { color: var(--soft); text-decoration: none; } a:hover { color: var(--mark); }
a:focus-visible, button:focus-visible, summary:focus-visible, .wide:focus-visible { outline: 2px solid var(--mark);
  outline-offset: 3px; border-radius: 3px; }
section { padding: 72px 0 8px; scroll-margin-top: 24px; }
.heroes { display: flex; flex-wrap: wrap; gap: 26px 64px; margin: 40px 0 8px; }
.hero b { display: block; font-size: clamp(2.7rem, 6.5vw, 4.3rem); line-height: 1; letter-spacing: -.035em;
  font-variant-numeric: tabular-nums; }
.hero span { color: var(--soft); font-size: .95rem; }
.valence { color: var(--valence); } .arousal { color: var(--arousal); }
figure { margin: 26px 0 0; } figcaption { color: var(--soft); font-size: .92rem; margin-top: 12px; max-width: 76ch; }
.wide { overflow-x: auto; } .wide img { display: block; width: 100%; height: auto; }
.missing { background: var(--shade); border-radius: 14px; padding: 20px 24px; max-width: none; color: var(--soft); }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: 9px 0 9px 20px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
th:first-child, td:first-child { padding-left: 0; } thead th { font-weight: 600; color: var(--soft); }
tbody th { font-weight: 500; } tr.best > * { font-weight: 700; }
th button { all: unset; cursor: pointer; } th button:hover { color: var(--ink); }
th[aria-sort] button::after { content: ""; display: inline-block; width: 1em; text-align: right; }
th[aria-sort=ascending] button::after { content: "\\2191"; } th[aria-sort=descending] button::after { content: "\\2193"; }
.looks { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 30px 20px; margin-top: 30px; }
.look { margin: 0; } .look figcaption { font-size: .82rem; margin: 7px 0 0; display: flex;
  justify-content: space-between; gap: 8px; } .look figcaption * { white-space: nowrap; }
.look figcaption b { color: var(--ink); font-weight: 600; overflow: hidden; text-overflow: ellipsis; }
.shot { position: relative; aspect-ratio: 16 / 9; display: flex; align-items: center; justify-content: center;
  background: var(--shade); border-radius: 10px 10px 0 0; overflow: hidden; }
.shot svg { display: block; width: 100%; height: 100%; }
.crop { display: block; width: 100%; aspect-ratio: 1; border-radius: 0 0 10px 10px; margin-top: 3px; }
.halo { fill: none; stroke: #000; stroke-opacity: .4; stroke-width: 8; }
.box { fill: none; stroke: var(--box); stroke-width: 4.5; } .true { fill: none; stroke: #fff; stroke-width: 3;
  stroke-dasharray: 9 7; }
.key { display: inline-block; width: 1.5em; height: .75em; border: 2.5px solid var(--box); border-radius: 2px;
  vertical-align: -.05em; margin-right: .25em; background: #444; } .key.dashed { border: 0; outline: 1.5px dashed #fff;
  outline-offset: -3.5px; width: 1.8em; height: 1.05em; }
.confusion td { text-align: center; padding: 0; width: 62px; height: 46px; border: 2px solid var(--paper);
  background: color-mix(in srgb, var(--mark) calc(var(--share) * 1%), var(--shade)); }
.confusion td.deep { color: var(--paper); } .confusion th { border: 0; padding: 4px 12px 4px 0; font-weight: 500; }
.confusion thead th { text-align: center; padding: 4px; font-size: .82rem; }
.confusion caption { text-align: left; color: var(--soft); padding-bottom: 8px; font-size: .92rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 0 44px; margin: 0; }
.facts div { display: flex; justify-content: space-between; gap: 16px; border-bottom: 1px solid var(--line);
  padding: 7px 0; font-size: .93rem; } .facts dt { color: var(--soft); } .facts dd { margin: 0; text-align: right;
  min-width: 0; font-variant-numeric: tabular-nums; } .facts .changed dd { font-weight: 700; }
.sections { columns: 3 290px; column-gap: 44px; } .sections div.section { break-inside: avoid; padding-top: 18px; }
h4 { margin: 0 0 4px; font-size: 1rem; } .sections .facts { display: block; }
summary { cursor: pointer; font-weight: 600; margin-top: 26px; } details[open] summary { margin-bottom: 10px; }
.remarks { padding-left: 1.1em; color: var(--soft); }
footer { color: var(--soft); font-size: .88rem; padding-top: 84px; padding-bottom: 64px; }
@media (max-width: 640px) { body { font-size: 16px; } main, header, nav ul, footer { padding-left: 18px;
  padding-right: 18px; } header { padding-top: 48px; padding-bottom: 30px; } section { padding-top: 54px; }
  .wide img { width: 860px; max-width: none; } .looks { grid-template-columns: 1fr 1fr; gap: 22px 12px; }
  .heroes { gap: 22px 40px; } }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print { :root { --paper: #fff; --ink: #000; --soft: #444; --line: #ccc; --shade: #f4f4f4; --valence: #c2570c;
  --arousal: #2457c5; --mark: #0b7d6e; } nav { display: none; } body { font-size: 10.5pt; } header { padding-top: 0; }
  section { padding-top: 26px; } figure, .look, tr, .heroes { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .looks { grid-template-columns: repeat(6, 1fr); gap: 12px 8px; } .wide { overflow: visible; }
 details::details-content { content-visibility: visible; display: block; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => {
    const rising = head.getAttribute('aria-sort') === 'descending' || (column === 0 && !head.hasAttribute('aria-sort'));
    for (const other of heads) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === '' || b === '') return (a === '') - (b === '');
      const by = column ? a - b : a.localeCompare(b, undefined, {numeric: true});
      return rising ? by : -by;
    };
    body.append(...[...body.rows].sort(order));
  }));
}
"""
