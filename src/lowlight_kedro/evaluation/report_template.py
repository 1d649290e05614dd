"""The HTML, style and script of an evaluation's report: `$name` is filled in."""

from string import Template

STYLE = """
:root { color-scheme: light dark; --paper: #f6f6f4; --ink: #1f1f1d; --quiet: #65645f; --rule: #dcdbd6; --raised: #fff; --link: #1b5a9c }
@media (prefers-color-scheme: dark) { :root { --paper: #171716; --ink: #e7e5df; --quiet: #a09e97; --rule: #353431; --raised: #22211f;
  --link: #8fbef0 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: clamp(1rem, 3vw, 2.5rem); max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif }
h1 { margin: 0; font-size: clamp(1.25rem, 2.4vw, 1.75rem); line-height: 1.25; font-weight: 600 }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.25rem; font-weight: 600; border-top: 1px solid var(--rule); padding-top: 1.25rem }
h3 { margin: 1.25rem 0 .5rem; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere }
p { margin: 0 0 .5rem; max-width: 62rem }
code, pre { font: .875rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere }
pre { white-space: pre-wrap }
.quiet { color: var(--quiet) }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: .375rem; background: var(--raised) }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; min-width: 100% }
th, td { padding: .3rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--rule) }
tr:last-child td { border-bottom: 0 }
th { font-weight: 600; color: var(--quiet) }
.chart { display: block; width: 100%; min-width: 42rem; height: auto; background: #fff }
.choose { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin-bottom: .5rem; font-size: .9375rem; color: var(--quiet) }
select { font: inherit; padding: .3rem .5rem; min-height: 2.25rem; max-width: 100%; border: 1px solid var(--rule); border-radius: .375rem;
  background: var(--raised); color: var(--ink) }
.views { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: .75rem; align-items: start }
.pair { position: relative; overflow: hidden; border-radius: .375rem; background: #000; touch-action: pan-y }
.pair img { display: block; width: 100%; height: auto }
.pair .left { position: absolute; inset: 0; height: 100%; clip-path: inset(0 calc(100% - var(--at, 50%)) 0 0) }
.pair::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--at, 50%); width: 2px; margin-left: -1px; background: #fff;
  box-shadow: 0 0 3px rgb(0 0 0 / .6); pointer-events: none }
.crops img { image-rendering: pixelated }
.frame input { display: block; width: 100%; height: 2.25rem; margin: .25rem 0 0; accent-color: var(--link) }
a:focus-visible, select:focus-visible, input:focus-visible, .scroll:focus-visible, summary:focus-visible {
  outline: 2px solid var(--link); outline-offset: 2px }
"""

SCRIPT = """
for (const frame of document.querySelectorAll('.frame')) {
  const range = frame.querySelector('input'), caption = frame.querySelector('.caption')
  const stored = Object.fromEntries([...frame.querySelectorAll('template')].map(t => [t.dataset.title, t.dataset]))
  const move = () => frame.style.setProperty('--at', range.value + '%')
  const choose = () => {
    const shown = {left: frame.querySelector('.at-left').value, right: frame.querySelector('.at-right').value}
    for (const side of ['left', 'right']) for (const kind of ['pictures', 'crops']) {
      const image = frame.querySelector('.' + kind + ' .' + side)
      image.src = stored[shown[side]][kind]
      image.alt = shown[side]
    }
    const told = title => title + (stored[title].caption && ': ' + stored[title].caption)
    caption.textContent = told(shown.left) + ' | ' + told(shown.right)
  }
  range.addEventListener('input', move)
  for (const select of frame.querySelectorAll('select')) select.addEventListener('change', choose)
  for (const pair of frame.querySelectorAll('.pair')) pair.addEventListener('pointermove', event => {
    if (event.pointerType === 'mouse' && !event.buttons) return
    const box = pair.getBoundingClientRect()
    range.value = 100 * (event.clientX - box.left) / box.width
    move()
  })
  for (const image of frame.querySelectorAll('.pair img')) image.draggable = false
  choose()
}
"""

PAGE = Template(
    f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>$title</title>
<style>{STYLE}</style></head><body>
<header><h1>$title</h1><p class="quiet">$made</p><p><code>$command</code></p></header>
<h2>Scores</h2><p>$note PSNR in dB, data range 1. Each table says its protocol, the region that counts and the scaling;
numbers of two tables cannot be compared.</p>$scores
<h2>By method and exposure ratio</h2>$chart
<h2>Differences on the same frames</h2><p class="quiet">Paired by frame; the least is the worst frame.</p>$differences
<h2>Is the uncertainty true?</h2>$calibration
<h2>Frames</h2><p class="quiet">Drag over a picture, or move the slider; the second picture is the part with most detail, magnified.
Errors are of the pictures as shown, black is none.</p>$frames
<h2>What was taken away</h2><p class="quiet">(y - A x) / s, the recorded values less what the restored light would show, over the
noise. Of the true light the mean square is 1 and nothing is correlated; a posterior mean that keeps a fraction p of each site's noise has
(1 - p)². Above 1: detail was taken away, or the noise model is too low.</p>$residuals
<h2>Noise model</h2><p class="quiet">Variance = gain x signal + read noise², 1 = white.</p>$noise
<h2>How it was made</h2>$versions<details><summary>Parameters</summary><pre>$parameters</pre></details>
<script>{SCRIPT.replace("$", "$$")}</script></body></html>
"""
)
