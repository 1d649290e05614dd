"""The page of a restored frame on disk."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from lowlight_kedro.datasets.atomic import OutputError
from lowlight_kedro.datasets.page import IndexDataset, PageDataset
from lowlight_kedro.evaluation.page import Entry
from tests.evaluation.test_page import RECORD, make_page, ramp


def page_dataset(folder, name):
    beside = {
        "linear": {"path": str(folder / "linear"), "dataset": "any", "filename_suffix": ".tif"},
        "record": {"path": str(folder), "filename_suffix": ".json"},
    }
    return PageDataset(filepath=str(folder / "page" / f"{name}.html"), beside=beside, picture_kb=50)


@pytest.mark.parametrize("name", ["IMG_1", "Sony/short/IMG_1", "a b/<b>&#.1"])
def test_links_lead_from_the_page_to_the_files(tmp_path, name):
    dataset = page_dataset(tmp_path, name)
    dataset.save(make_page(name=name))
    page = tmp_path / "page" / f"{name}.html"
    links = [unquote(link.replace("&amp;", "&")) for link in re.findall(r'href="([^"]*)"', dataset.load())]
    assert [(page.parent / link).resolve() for link in links] == [tmp_path / "linear" / f"{name}.tif", tmp_path / f"{name}.json"]
    assert list(tmp_path.rglob(".*")) == []


def test_the_index_leads_to_every_page(tmp_path):
    names = ["IMG_1", "Sony/short/a <b>&#.1"]
    dataset = IndexDataset(
        filepath=str(tmp_path / "out/index.html"),
        beside={"page": {"path": str(tmp_path / "page"), "filename_suffix": ".html"}},
        picture_kb=9,
    )
    dataset.save([Entry(name, ramp(8, 12), RECORD) for name in names])
    links = [unquote(link.replace("&amp;", "&")) for link in re.findall(r'href="([^"]*)"', dataset.load())]
    assert [(tmp_path / "out" / link).resolve() for link in links] == [tmp_path / "page" / f"{name}.html" for name in names]


def test_the_same_page_is_the_same_file(tmp_path):
    dataset = page_dataset(tmp_path, "x")
    dataset.save(make_page())
    first = (tmp_path / "page/x.html").read_bytes()
    dataset.save(make_page())
    assert (tmp_path / "page/x.html").read_bytes() == first == dataset.load().encode()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    Path(tmp_path / "page").write_text("a file, no folder")
    with pytest.raises(OutputError, match=r"cannot write .*page/x\.html"):
        page_dataset(tmp_path, "x").save(make_page())
