"""The index of restored frames."""

from urllib.parse import unquote

import numpy as np
import pytest

from lowlight_kedro.evaluation.page_index import Entry, index_page
from tests.evaluation.test_page import RECORD, Parsed, decoded, ramp

UNKNOWN = RECORD | {"iso": float("nan"), "exposure_s": None, "camera": ""}
ENTRIES = [
    Entry("a/one", ramp(20, 30, 0.2, 0.8), RECORD),
    Entry("b/<i>two", None, {"error": "no <b>mosaic</b>"}),
    Entry("c/three", ramp(30, 20), UNKNOWN),
]
LINKS = {entry.name: f"page/{entry.name}.html" for entry in ENTRIES}


@pytest.mark.parametrize("entries", [[], ENTRIES[:1], ENTRIES], ids=len)
def test_the_index_is_whole_and_loads_nothing(entries):
    html = index_page(entries, LINKS, 9)
    page = Parsed(html)
    assert page.open == []
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.all("img", "src"))
    assert "http:" not in html
    assert "https:" not in html
    assert "<script" not in html
    assert html == index_page(entries, LINKS, 9)


def test_each_frame_is_shown_with_its_link_or_listed_with_its_reason():
    page = Parsed(index_page(ENTRIES, LINKS, 9))
    assert page.all("a", "href") == ["page/a/one.html", "page/c/three.html"]
    assert np.abs(decoded(page.all("img", "src")[0]) - ENTRIES[0].picture).max() < 0.03
    assert page.all("img", "width") == ["30", "20"]
    assert "2 restored, 1 could not be restored" in page.words
    assert "Could not be restored b/<i>two no <b>mosaic</b>" in page.words
    assert "unknown camera · ISO unknown · 80 times as bright as the raw" in page.words
    assert "i" not in {tag for tag, _ in page.elements}


def test_where_all_were_restored_nothing_else_is_said():
    assert "could not" not in Parsed(index_page(ENTRIES[:1], LINKS, 9)).words.lower()


def test_a_name_is_text_and_its_link_is_quoted():
    name = "a <u>&#'\".1"
    page = Parsed(index_page([Entry(name, ramp(4, 6), RECORD)], {name: f"page/{name}.html"}, 9))
    assert "u" not in {tag for tag, _ in page.elements}
    assert name in page.words
    (link,) = page.all("a", "href")
    assert unquote(link) == f"page/{name}.html"
    assert not set("<>\"'# ") & set(link)
