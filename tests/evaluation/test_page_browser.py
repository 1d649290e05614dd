"""The page's divider under a real mouse, in Chromium where it and selenium are installed."""

import shutil

import pytest

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
        hand = ActionChains(browser).move_to_element(divider).click_and_hold()
        hand.move_by_offset(half, 3).move_by_offset(pixels - half, -3).release().perform()
        moved = (float(slider.get_property("value")) - before) / 100 * stage.size["width"]
        assert moved == pytest.approx(pixels, abs=12)  # whole per cent
