"""The page under a real mouse, in Chromium where it and selenium are installed."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from lowlight_kedro.evaluation.page import frame_page
from tests.evaluation.test_page import LINKS, make_page

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (BROWSER and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_the_divider_follows_every_drag(browser, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    (tmp_path / "page.html").write_text(frame_page(make_page((600, 900)), LINKS, 700), encoding="utf-8")
    browser.get((tmp_path / "page.html").as_uri())
    divider, slider, stage = (browser.find_element(By.CSS_SELECTOR, name) for name in (".divider", "input[type=range]", ".stage"))
    for pixels in (120, -150, 120, -150, 200, -100):
        before = float(slider.get_property("value"))
        half = pixels // 2
        hand = ActionChains(browser, duration=40).move_to_element(divider).click_and_hold()
        hand.move_by_offset(half, 3).move_by_offset(pixels - half, -3).release().perform()
        moved = (float(slider.get_property("value")) - before) / 100 * stage.size["width"]
        assert moved == pytest.approx(pixels, abs=12)  # whole per cent


def test_a_double_click_shows_the_pixels_of_the_sensor(browser, tmp_path):
    """They lie in files beside the page, which are fetched only then."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    files = {"preview": "a b_restored.jpg", "before": "a b_before.jpg"}
    for part, colour in (("preview", (0, 200, 0)), ("before", (200, 0, 0))):
        Image.new("RGB", (3000, 2000), colour).save(tmp_path / files[part])
    page = make_page((600, 900), size=(2000, 3000), whole=True, parts=("preview", "before"))
    (tmp_path / "page.html").write_text(frame_page(page, files, 700), encoding="utf-8")
    browser.get((tmp_path / "page.html").as_uri())
    after, stage = (browser.find_element(By.CSS_SELECTOR, name) for name in (".after", ".stage"))
    assert after.get_property("naturalWidth") == 900
    ActionChains(browser).move_to_element_with_offset(stage, 100, 50).double_click().perform()
    WebDriverWait(browser, 10).until(lambda _: after.get_property("naturalWidth") == 3000)
    ratio = browser.execute_script("return devicePixelRatio")
    assert after.size["width"] * ratio == pytest.approx(3000, abs=2)
    assert browser.execute_script("return document.querySelector('.before').naturalWidth") == 3000
    assert stage.get_property("scrollLeft") > 0


def test_shadows_are_lifted_and_black_and_white_stay(browser, tmp_path):
    from selenium.webdriver.common.by import By

    dark = np.full((3, 60, 90), 0.1, np.float32)
    dark[:, :20], dark[:, 40:] = 0, 1
    (tmp_path / "page.html").write_text(frame_page(make_page(pictures=(dark, dark)), LINKS, 700), encoding="utf-8")
    browser.get((tmp_path / "page.html").as_uri())

    def shown():
        stage = browser.find_element(By.CSS_SELECTOR, ".stage")
        pixels = np.asarray(Image.open(io.BytesIO(stage.screenshot_as_png)).convert("L"), float)
        return [pixels[round(fraction * len(pixels)), len(pixels[0]) // 8] for fraction in (0.15, 0.5, 0.85)]

    before = shown()
    browser.execute_script("const l = document.querySelector('.lift'); l.value = 100; l.dispatchEvent(new Event('input'))")
    black, grey, white = shown()
    assert grey > before[1] + 60
    assert black < 12
    assert white > 243
