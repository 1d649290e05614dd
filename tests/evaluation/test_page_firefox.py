"""The page under a real mouse in Firefox, which speaks WebDriver BiDi itself; where it and websocket-client are installed."""

import itertools
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from lowlight_kedro.evaluation.page import frame_page
from tests.evaluation.test_page import LINKS, make_page

FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
CENTRE = "(() => {const r = document.querySelector('.divider').getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]})()"


class Firefox:
    """One page of a headless Firefox (W3C WebDriver BiDi)."""

    def __init__(self, address):
        websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
        self._socket, self._numbers = (
            websocket.create_connection(f"{address}/session", timeout=60, suppress_origin=True),
            itertools.count(1),
        )
        self.ask("session.new", capabilities={})
        self._page = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def ask(self, method, **params):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self._socket.recv())).get("id") != number:
            pass
        assert answer["type"] == "success", answer
        return answer["result"]

    def open(self, path):
        self.ask("browsingContext.navigate", context=self._page, url=path.as_uri(), wait="complete")

    def evaluate(self, script):
        """Waits for promises."""
        return self.ask("script.evaluate", expression=script, target={"context": self._page}, awaitPromise=True)["result"]

    def value(self, script):
        return json.loads(self.evaluate(f"JSON.stringify({script})")["value"])

    def mouse(self, *steps):
        """Steps are places (x, y) to go to, or `down` and `up`."""
        kinds = {"down": {"type": "pointerDown", "button": 0}, "up": {"type": "pointerUp", "button": 0}}
        actions = [kinds[step] if isinstance(step, str) else {"type": "pointerMove", "x": step[0], "y": step[1]} for step in steps]
        source = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.ask("input.performActions", context=self._page, actions=[source])


@pytest.fixture(scope="module")
def firefox(tmp_path_factory):
    if FIREFOX is None:
        pytest.skip("Firefox is not installed")
    pytest.importorskip("websocket", reason="websocket-client is not installed")
    profile = tmp_path_factory.mktemp("profile")
    command = [
        FIREFOX,
        "--headless",
        "--no-remote",
        "--profile",
        str(profile),
        "--width=1400",
        "--height=1000",
        "--remote-debugging-port=0",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            told = (re.search(r"WebDriver BiDi listening on (ws://\S+)", line) for line in process.stderr)
            yield Firefox(next(filter(None, told)).group(1))
        finally:
            process.kill()


def test_the_divider_follows_every_drag(firefox, tmp_path):
    (tmp_path / "page.html").write_text(frame_page(make_page((600, 900)), LINKS, 700), encoding="utf-8")
    firefox.open(tmp_path / "page.html")
    for pixels in (120, -150, 120, -150, 200, -100):
        before, (x, y) = float(firefox.value("document.querySelector('input[type=range]').value")), map(round, firefox.value(CENTRE))
        firefox.mouse((x, y), "down", (x + pixels // 2, y + 3), (x + pixels, y), "up")
        after = float(firefox.value("document.querySelector('input[type=range]').value"))
        width = firefox.value("document.querySelector('.stage').getBoundingClientRect().width")
        assert (after - before) / 100 * width == pytest.approx(pixels, abs=12)  # whole per cent


def test_a_double_click_shows_the_pixels_of_the_sensor(firefox, tmp_path):
    files = {"preview": "a b_restored.jpg", "before": "a b_before.jpg"}
    for name in files.values():
        Image.new("RGB", (3000, 2000), (0, 200, 0)).save(tmp_path / name)
    page = make_page((600, 900), size=(2000, 3000), whole=True, parts=("preview", "before"))
    (tmp_path / "page.html").write_text(frame_page(page, files, 700), encoding="utf-8")
    firefox.open(tmp_path / "page.html")
    place = tuple(round(part) - 100 for part in firefox.value(CENTRE))
    firefox.mouse(place, "down", "up", "down", "up")
    loaded = (
        "new Promise(done => {const image = document.querySelector('.after'); image.naturalWidth == 3000 ? done(1) : image.onload = done})"
    )
    firefox.evaluate(loaded)
    shown = firefox.value("document.querySelector('.after').getBoundingClientRect().width * devicePixelRatio")
    assert shown == pytest.approx(3000, abs=2)
    assert firefox.value("document.querySelector('.stage').scrollLeft") > 0
