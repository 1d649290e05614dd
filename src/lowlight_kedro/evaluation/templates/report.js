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
