// Where the divider stands is a fraction of the visible part of the picture, so that it stays in sight at 100 %.
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
