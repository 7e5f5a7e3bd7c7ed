"""The report's style sheet: light and dark, and narrow enough for a phone."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --ink: #1d2733; --soft: #5b6673; --faint: #aab4bf;
  --line: #dfe3e8; --card: #fff; --raw: #c2611f; --calibrated: #1f5fd0; --band: #1f5fd022; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181d; --ink: #e6eaee; --soft: #9da8b3; --faint: #66717d; --line: #2c343d;
    --card: #1b2128; --raw: #f09a5c; --calibrated: #77a7ff; --band: #77a7ff2a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.4em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2em 0 0.4em; }
h3 { font-size: 1rem; margin: 1.2em 0 0.4em; }
p, figcaption, .photograph span { color: var(--soft); }
p { max-width: 75ch; margin: 0.3em 0 0.8em; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(125px, 1fr)); gap: 10px;
  margin: 16px 0; }
.tiles div { padding: 10px 14px; background: var(--card); color: var(--soft);
  border: 1px solid var(--line); border-radius: 8px; font-size: 0.82rem; }
.tiles b { display: block; color: var(--ink); font-size: 1.05rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 12px 3px 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child, .facts td, .photograph td:first-child { text-align: left; }
.facts td { white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { white-space: nowrap; color: var(--soft); }
summary { cursor: pointer; }
.figures { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); }
figure { margin: 0; padding: 10px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
figure svg, .photograph svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 0.82rem; }
.photographs { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(230px, 45%), 1fr)); }
.photograph summary { list-style: none; }
.photograph summary::-webkit-details-marker { display: none; }
.photograph svg { border-radius: 6px; }
.photograph span { display: block; font-size: 0.78rem; overflow-wrap: anywhere; }
.photograph[open] { grid-column: 1 / -1; }
.photograph[open] svg { max-width: min(100%, 92vh); }
.photograph ellipse { fill: #2be04c0d; stroke: #2be04c; stroke-width: 0.9; }
.photograph circle { fill: #ff3b30; }
.photograph rect { fill: #ffd60a; }
.photograph path { stroke: #ffd60a; stroke-width: 0.9; fill: none; }
.photograph .shape { stroke: #2be04c; stroke-width: 1.3; stroke-linecap: round; opacity: 0.8; }
.photograph g:hover ellipse { fill: #2be04c66; stroke-width: 2; }
.dot, .square { display: inline-block; width: 9px; height: 9px; background: #ff3b30;
  border-radius: 50%; }
.square { background: #ffd60a; border-radius: 0; outline: 1px solid var(--faint); }
"""
