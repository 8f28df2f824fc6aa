"""Style and script of a simulation's report: what does not depend on its numbers."""

STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --card: #f6f7f9; --text: #1c2024; --dim: #5f6872; --grid: #dfe3e8;
  --accent: #0b6b4f; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --card: #1d2125; --text: #e4e7ea; --dim: #9aa4ae;
  --grid: #343a41; --accent: #5cc9a7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); line-height: 1.5;
  font: 15px/1.5 system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 40px 0 4px; padding-top: 20px; border-top: 1px solid var(--grid); }
h3 { font-size: 16px; margin: 28px 0 2px; }
p { margin: 4px 0; max-width: 80ch; overflow-wrap: anywhere; }
p.about { max-width: none; }
.dim, figcaption, footer { color: var(--dim); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px; margin: 20px 0; }
.card { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; padding: 12px 16px; }
.card b { display: block; font-size: 24px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card .who { color: var(--accent); font-weight: 600; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 12px 0; border: 1px solid var(--grid); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 8px; text-align: right; white-space: nowrap; }
th { vertical-align: bottom; font-weight: 600; background: var(--card); }
th small { display: block; color: var(--dim); font-weight: 400; }
thead th { line-height: 1.25; white-space: pre-line; }
tbody th { font-weight: 500; }
tbody tr { border-top: 1px solid var(--grid); }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
td.best { font-weight: 700; color: var(--accent); }
tr.bound { color: var(--dim); font-style: italic; }
ul { margin: 8px 0; padding-left: 20px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; }
dt { font-weight: 600; } dd { margin: 0; max-width: 80ch; }
figure { margin: 6px 0 8px; }
.plot { width: 100%; min-height: 60px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 0 28px; }
.none { color: var(--dim); font-style: italic; padding: 8px 0; }
label { font-weight: 600; }
select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--grid); border-radius: 8px;
  padding: 6px 10px; margin-left: 8px; max-width: 100%; }
.choose { position: sticky; top: 0; z-index: 5; background: var(--back); padding: 10px 0; }
@media (max-width: 560px) { main { padding: 16px 12px 40px; } .pair { grid-template-columns: 1fr; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: 8px; } }
@media print { .choose { position: static; } h3, figure { break-inside: avoid; } }
"""

SCRIPT = """
(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { "@text": of("--text"), "@dim": of("--dim"), "@grid": of("--grid"), "@back": of("--back") };
  }

  // A copy, as plotly keeps and changes what it is given.
  function themed(value, palette) {
    if (Array.isArray(value)) return value.map((each) => themed(each, palette));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, themed(each, palette)]));
    }
    return typeof value === "string" && Object.hasOwn(palette, value) ? palette[value] : value;
  }

  function named(trace) {
    if (!trace.meta || !trace.meta.names) return trace;
    const text = trace.z.map((row) => row.map((index) => (index === null ? "" : trace.meta.names[index])));
    return Object.assign({}, trace, { text: text });
  }

  function draw(element, figure) {
    if (!figure) {
      Plotly.purge(element);
      element.textContent = element.dataset.none;
      element.classList.add("none");
      return;
    }
    if (element.classList.contains("none")) {
      element.textContent = "";
      element.classList.remove("none");
    }
    const shown = themed(figure, colours());
    Plotly.react(element, shown.data.map(named), shown.layout, config);
  }

  const choice = document.getElementById("policy");
  function drawOne() {
    const picked = figures.one[choice ? Number(choice.value) : 0] || {};
    for (const element of document.querySelectorAll("[data-one]")) draw(element, picked[element.dataset.one]);
  }
  function drawAll() {
    for (const element of document.querySelectorAll("[data-all]")) draw(element, figures.all[element.dataset.all]);
    drawOne();
  }
  if (choice) choice.addEventListener("change", drawOne);
  dark.addEventListener("change", drawAll);
  drawAll();
})();
"""
