"""The HTML, style and script of a frame's page: `$name` is filled in. Part of the code, so that a change here makes pages anew."""

from string import Template

STYLE = """
:root { color-scheme: light dark; --paper: #f6f6f4; --ink: #1f1f1d; --quiet: #65645f; --rule: #dcdbd6; --raised: #fff;
  --link: #1b5a9c; --warn-ink: #6b4300; --warn-paper: #fdf1dc; --warn-rule: #e2b967 }
@media (prefers-color-scheme: dark) { :root { --paper: #171716; --ink: #e7e5df; --quiet: #a09e97; --rule: #353431; --raised: #22211f;
  --link: #8fbef0; --warn-ink: #f3d9a6; --warn-paper: #33291a; --warn-rule: #7d6330 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: clamp(1rem, 3vw, 2.5rem); max-width: 92rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif }
h1 { margin: 0; font-size: clamp(1.25rem, 2.4vw, 1.75rem); line-height: 1.25; font-weight: 600; overflow-wrap: anywhere }
h2 { margin: 0 0 .75rem; font-size: 1.0625rem; font-weight: 600 }
p { margin: 0 }
a { color: var(--link); text-underline-offset: .15em }
.quiet { color: var(--quiet) }
header { margin-bottom: 1.5rem }
header p { margin-top: .35rem }
.warning { margin: 0 0 1.5rem; padding: .75rem 1rem; border: 1px solid var(--warn-rule); border-radius: .5rem;
  background: var(--warn-paper); color: var(--warn-ink); overflow-wrap: anywhere }
.warning p + p { margin-top: .4rem }
figure { margin: 0 }
figcaption { margin-top: .6rem; font-size: .9375rem; color: var(--quiet); max-width: 62rem }
.view { position: relative; margin: 0 auto; width: min(100%, calc(70vh * var(--ratio))) }
.stage { max-height: 70vh; overflow: hidden; border-radius: .375rem; background: #000 }
.pair { position: relative; width: 100%; aspect-ratio: var(--ratio); cursor: ew-resize; user-select: none; -webkit-user-select: none }
.viewer:not(.full) .pair { touch-action: pan-y pinch-zoom }
.pair img { position: absolute; inset: 0; width: 100%; height: 100%; display: block }
.pair .before { clip-path: inset(0 calc(100% - var(--at, 50%)) 0 0) }
.full .view, .full .range { width: min(100%, var(--full)) }
.full .stage { overflow: auto; scrollbar-width: thin; overscroll-behavior: contain }
.full .pair { width: var(--full); cursor: grab }
.full .pair:active { cursor: grabbing }
.grain img { image-rendering: pixelated }
.stage:focus-visible, button:focus-visible, input:focus-visible, a:focus-visible, summary:focus-visible {
  outline: 2px solid var(--link); outline-offset: 2px }
.divider { position: absolute; top: 0; bottom: 0; left: 50%; width: 44px; margin-left: -22px; cursor: ew-resize; touch-action: none }
.divider::before { content: ""; position: absolute; inset: 0 21px; background: #fff; box-shadow: 0 0 3px rgb(0 0 0 / .6) }
.divider::after { content: "\\2039\\2002\\203a"; position: absolute; top: 50%; left: 50%; width: 38px; height: 38px; margin: -19px;
  border-radius: 50%; background: #fff; color: #222; box-shadow: 0 1px 5px rgb(0 0 0 / .5);
  text-align: center; font: 600 18px/34px sans-serif }
.tag { position: absolute; top: .6rem; padding: .1rem .6rem; border-radius: 1rem; background: rgb(0 0 0 / .62); color: #fff;
  font-size: .8125rem; pointer-events: none; transition: opacity .15s }
.tag.left { left: .6rem } .tag.right { right: .6rem }
.tag.away { opacity: 0 }
.range { margin: .35rem auto 0; width: min(100%, calc(70vh * var(--ratio))) }
.range input { display: block; width: 100%; height: 2rem; margin: 0; accent-color: var(--quiet) }
.under { display: flex; flex-wrap: wrap-reverse; justify-content: space-between; align-items: start; gap: .5rem 2rem }
.under figcaption { flex: 1 1 24rem }
.controls { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem 1.25rem }
.controls label { display: flex; align-items: center; gap: .6rem; font-size: .9375rem; color: var(--quiet) }
.controls input { width: 9rem; height: 2rem; accent-color: var(--quiet) }
button { flex: none; margin-top: .4rem; min-height: 2.25rem; padding: .25rem .9rem; border: 1px solid var(--rule); border-radius: .5rem;
  background: var(--raised); color: inherit; font: inherit; cursor: pointer }
button:hover { border-color: var(--quiet) }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 2rem clamp(1.5rem, 4vw, 3.5rem);
  margin-top: 2.25rem; align-items: start }
.grid > div { display: grid; gap: 2rem; min-width: 0 }
.grid .view, .grid .range { margin-left: 0; margin-right: 0; width: min(100%, var(--full)) }
.grid .stage { max-height: 60vh }
.map { display: block; width: min(100%, calc(60vh * var(--ratio))); height: auto; border-radius: .375rem; background: #000 }
.scale { width: min(100%, max(14rem, calc(60vh * var(--ratio)))); margin-top: .8rem; font-size: .875rem }
.scale i { display: block; height: .8rem; border-radius: .25rem; border: 1px solid var(--rule) }
.scale p { display: flex; justify-content: space-between; gap: 1rem; margin-top: .3rem }
.scale span:nth-child(2) { text-align: center } .scale span:last-child { text-align: right }
section { border-top: 1px solid var(--rule); padding-top: 1rem; min-width: 0 }
dl { display: grid; grid-template-columns: minmax(7.5rem, 11rem) minmax(0, 1fr); gap: .45rem 1.25rem; margin: 0 }
dt { color: var(--quiet) }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
dd ul { margin: .2rem 0 0; padding-left: 1.1rem; color: var(--quiet); font-size: .9375rem }
@media (max-width: 34rem) {
  dl { grid-template-columns: minmax(0, 1fr); gap: 0 } dd { margin-bottom: .65rem }
  .stage { max-height: 70vh } .view, .range { width: min(100%, calc(70vh * var(--ratio))) } }
@media (prefers-reduced-motion: reduce) { .tag { transition: none } }
"""

# Where the divider stands is a fraction of the visible part of the picture, so that it stays in sight at 100 %.
SCRIPT = """
for (const viewer of document.querySelectorAll('.viewer')) {
  const find = selector => viewer.querySelector(selector);
  const view = find('.view'), stage = find('.stage'), pair = find('.pair'), divider = find('.divider');
  const range = find('.range input'), zoom = find('button'), lift = find('.lift'), width = +viewer.dataset.width;
  const clamp = (value, most) => Math.min(Math.max(value, 0), most);
  function draw() {
    const fraction = range.value / 100, x = fraction * stage.clientWidth;
    pair.style.setProperty('--at', stage.scrollLeft + x + 'px');
    divider.style.left = x + 'px';
    find('.tag.left').classList.toggle('away', x < 110);
    find('.tag.right').classList.toggle('away', stage.clientWidth - x < 90);
    range.setAttribute('aria-valuetext', Math.round(range.value) + ' percent before, the rest restored');
    viewer.classList.toggle('grain', pair.clientWidth * devicePixelRatio >= 2 * width);
  }
  function measure() { viewer.style.setProperty('--full', width / devicePixelRatio + 'px'); draw(); }
  function load() {  // the files beside the page hold every pixel; they are fetched when somebody looks closer
    for (const image of pair.querySelectorAll('img[data-full]')) {
      const shown = image.src;
      image.onerror = () => { image.onerror = null; image.src = shown; };
      image.src = image.dataset.full;
      image.removeAttribute('data-full');
    }
  }
  function full(on, x, y) {  // x, y: the place shown in the middle, fractions of the picture
    if (on) load();
    viewer.classList.toggle('full', on);
    if (zoom) { zoom.setAttribute('aria-pressed', on); zoom.textContent = on ? 'Whole picture' : '100 %'; }
    stage.scrollTo(on ? x * pair.clientWidth - stage.clientWidth / 2 : 0, on ? y * pair.clientHeight - stage.clientHeight / 2 : 0);
    draw();
  }
  const [focusX, focusY] = viewer.dataset.focus.split(' ').map(Number);
  let held = null;
  function move(event) {
    if (held.pan) { stage.scrollTo(held.left - event.clientX + held.x, held.top - event.clientY + held.y); return; }
    const box = stage.getBoundingClientRect();
    range.value = 100 * clamp((event.clientX - box.left) / stage.clientWidth, 1);
    draw();
  }
  view.addEventListener('pointerdown', event => {
    if (event.button !== 0) return;
    const onDivider = event.target === divider, pans = viewer.classList.contains('full') && !onDivider;
    if (pans && event.pointerType !== 'mouse') return;  // a finger scrolls by itself
    held = { pan: pans, x: event.clientX, y: event.clientY, left: stage.scrollLeft, top: stage.scrollTop };
    event.target.setPointerCapture(event.pointerId);
    event.preventDefault();  // else the browser drags the picture, or selects it and drags it the next time
    if (!onDivider && !pans) move(event);
  });
  view.addEventListener('dragstart', event => event.preventDefault());
  view.addEventListener('pointermove', event => { if (held) move(event); });
  for (const end of ['pointerup', 'pointercancel']) view.addEventListener(end, () => { held = null; });
  if (zoom) {
    zoom.addEventListener('click', () => full(!viewer.classList.contains('full'), focusX, focusY));
    view.addEventListener('dblclick', event => {  // not of the picture: the first click has moved the divider under the pointer
      const box = pair.getBoundingClientRect();
      full(!viewer.classList.contains('full'), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
  }
  if (lift) lift.addEventListener('input', () => {
    for (const curve of viewer.querySelectorAll('filter [type=gamma]')) curve.setAttribute('exponent', 1 - .007 * lift.value);
    for (const each of document.querySelectorAll('.pair')) each.style.filter = +lift.value ? 'url(#lifted)' : '';
  });
  range.addEventListener('input', draw);
  stage.addEventListener('scroll', draw);
  new ResizeObserver(measure).observe(stage);
  measure();
  if (viewer.classList.contains('full')) full(true, .5, .5);
}
"""

VIEWER = Template("""<div class="viewer$kind" data-width="$width" data-focus="$focus" style="--ratio: $ratio; --full: ${width}px">
<div class="view"><div class="stage" tabindex="0" role="group" aria-label="$title">
<div class="pair"><img class="after" draggable="false" alt="$title, restored" src="$after"$full_after>
<img class="before" draggable="false" alt="$title, before" src="$before"$full_before></div>
</div><div class="divider" aria-hidden="true"></div><span class="tag left">Before</span><span class="tag right">Restored</span></div>
<div class="range"><input type="range" min="0" max="100" step="1" value="50"
 aria-label="Divider between the picture before and the restored one"></div>
<div class="under"><figcaption>$caption</figcaption>$controls</div></div>""")

# Shadows are lifted by y = x^exponent of linear light, in which black and white stay.
CONTROLS = """<div class="controls"><label>Lift shadows <input class="lift" type="range" min="0" max="100" step="1" value="0"
 aria-label="Lift shadows"></label><button type="button" aria-pressed="false">100 %</button>
<svg width="0" height="0" aria-hidden="true"><filter id="lifted" color-interpolation-filters="linearRGB"><feComponentTransfer>
<feFuncR type="gamma"></feFuncR><feFuncG type="gamma"></feFuncG><feFuncB type="gamma"></feFuncB>
</feComponentTransfer></filter></svg></div>"""

MAP = Template("""<div style="--ratio: $ratio"><img class="map" width="$width" height="$height" alt="Heat map of the standard deviation"
 src="$picture">
<div class="scale"><i style="background: linear-gradient(to right, $colours)"></i>
<p><span>0<br>certain</span><span>$half</span><span>$most and more<br>least certain</span></p></div></div>""")

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data: $beside; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title, restored</title>
<style>$style</style>
</head>
<body>
<header><h1>$title</h1><p class="quiet">$subtitle</p></header>
$warnings<main>
<figure>$viewer</figure>
<div class="grid">
<div>
$figures</div>
<div>
$facts</div>
</div>
</main>
<script>$script</script>
</body>
</html>
""")

INDEX_STYLE = """
.frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: 2rem 1.5rem; margin: 0 0 2.25rem;
  padding: 0; list-style: none; align-items: end }
.frames li { min-width: 0; font-size: .875rem; overflow-wrap: anywhere }
.frames a { display: block; color: inherit; font-size: 1rem }
.frames a:not(:hover) { text-decoration: none }
.frames img { display: block; width: 100%; height: auto; max-height: 24rem; margin-bottom: .5rem; border-radius: .375rem;
  object-fit: contain; object-position: left bottom }
"""

INDEX = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Restored frames</title>
<style>$style</style>
</head>
<body>
<header><h1>Restored frames</h1><p class="quiet">$subtitle</p></header>
<main>
<ul class="frames">
$entries</ul>
$failed</main>
</body>
</html>
""")
