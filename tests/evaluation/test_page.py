"""The page of a restored frame, and the index of all."""

import base64
import io
import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from lowlight_kedro.evaluation.page import FILES, Entry, Page, frame_page, index_page, jpeg
from lowlight_kedro.evaluation.page_facts import brighter, fraction, noise_at, seconds
from lowlight_kedro.evaluation.pictures import heat, heat_colours, heat_most
from lowlight_kedro.sensor.noise import PoissonGaussian

VOID = {"meta", "img", "input", "br", "link"}
REASONS = ["good calibrations of <Camera>: none", "table: Camera & Co is not in it"]
RECORD = {
    "camera": "Maker X-1", "iso": 1600.0, "exposure_s": 0.01, "exposure_ratio": 80.0, "ratio_from": "mean brightness to 0.1",
    "noise": {"gain": 1e-4, "read_noise": 4e-4, "exact": True}, "noise_from": "image (good)", "noise_not_from": REASONS,
    "prior_asked_at": 1.0, "display_exposure": 1.19, "clipped_in_linear": {"below": 0.004, "above": 0.0}, "saturated_fraction": 0.0,
    "warning": None, "prior": "8b5bf3557fba", "guidance": "noise_map", "estimate": "mean", "draws": None, "evaluations": 3,
    "std_from": "1 probe of the mean", "mean_std": 0.018, "seconds": 10.2, "crop": None,
    "device": "cpu", "precision": "bf16",
}  # fmt: skip
LINKS = {part: f"../../{part}/a folder/IMG #1.x" for part in FILES}


def ramp(height, width, low=0.0, high=1.0):
    return np.broadcast_to(np.linspace(low, high, width, dtype=np.float32), (3, height, width))


def make_page(shape=(60, 90), **changes):
    before, after = ramp(*shape, 0.0, 0.4), ramp(*shape, 0.6, 1.0)
    std = (ramp(*shape), 0.032)
    return replace(Page("Sony/short/IMG_1", shape, (before, after), None, std, RECORD, tuple(FILES)), **changes)


class Parsed(HTMLParser):
    """All elements with their attributes, the text, and what was not closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag, attribute):
        return [attributes[attribute] for name, attributes in self.elements if name == tag and attribute in attributes]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def parsed(page=None, links=LINKS):
    return Parsed(frame_page(page or make_page(), links, 700))


def decoded(source):
    assert source.startswith("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1])))).transpose(2, 0, 1) / 255


VARIANTS = {
    "plain": {},
    "portrait": {"shape": (90, 60)},
    "tiny": {"shape": (3, 2)},
    "detail": {"detail": (ramp(16, 16), ramp(16, 16))},
    "no std": {"std": None},
    "odd name": {"name": "x/<b>\"&'.dng"},
    "warned": {"record": RECORD | {"warning": "the prior <never> saw this"}},
    "nothing known": {"record": RECORD | {"iso": float("nan"), "exposure_s": None, "camera": "", "noise_not_from": [], "mean_std": None}},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_element_is_closed_and_says_what_it_is(changes):
    page = parsed(make_page(**changes))
    assert page.open == []
    assert all(page.all("img", "alt"))
    assert len(page.all("img", "alt")) == len(page.all("img", "src"))
    assert len(page.all("input", "aria-label")) == sum(tag == "input" for tag, _ in page.elements) >= 1
    assert "Restored" in page.words
    assert not {"nan", "None", "inf"} & set(re.findall(r"\w+", page.words))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_nothing_is_loaded(changes):
    html = frame_page(make_page(**changes), LINKS, 700)
    page = Parsed(html)
    assert all(source.startswith("data:image/jpeg;base64,") for tag, _ in page.elements for source in page.all(tag, "src"))
    assert {tag for tag, attributes in page.elements if "href" in attributes} == {"a"}
    assert not any(urlsplit(link).scheme or urlsplit(link).netloc or link.startswith("/") for link in page.all("a", "href"))
    told = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", html)
    assert not re.search(r"https?:|url\((?!#)|@import|@font-face|<link|fetch\(|XMLHttp|//\w+\.", told)
    (policy,) = (attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


def test_a_name_is_text_and_never_markup():
    name = 'a/<b onload="x">&amp; \'.dng'
    page = parsed(make_page(name=name), {"linear": "../<b>&\"' #?%.tif"})
    assert "b" not in {tag for tag, _ in page.elements}
    assert page.words.startswith(f"{name[2:]}, restored {name[2:]}")
    (link,) = page.all("a", "href")
    assert unquote(link) == "../<b>&\"' #?%.tif"
    assert not set("<>\"' #?") & set(link)


def test_the_same_input_gives_the_same_bytes_and_another_picture_others():
    noisy = np.random.default_rng(0).random((3, 60, 90))
    assert frame_page(make_page(), LINKS, 700) == frame_page(make_page(), LINKS, 700)
    assert frame_page(make_page(), LINKS, 700) != frame_page(make_page(pictures=(noisy, noisy)), LINKS, 700)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (17, 33)])
def test_both_pictures_decode_to_what_was_given(shape):
    given, page = make_page(shape), parsed(make_page(shape))
    shown = {attributes["class"]: decoded(attributes["src"]) for tag, attributes in page.elements if tag == "img" and "class" in attributes}
    for kind, picture in zip(("before", "after"), given.pictures, strict=True):
        assert shown[kind].shape == picture.shape
        assert np.abs(shown[kind] - picture).max() < 0.03
    (viewer,) = [attributes for _, attributes in page.elements if "data-focus" in attributes]
    assert int(viewer["data-width"]) == shape[1]
    assert float(re.search(r"--ratio: ([\d.]+)", viewer["style"])[1]) == pytest.approx(shape[1] / shape[0], abs=1e-5)
    assert f"{shape[1]} x {shape[0]} pixels" in page.words


def test_pictures_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"one size, got \(3, 8, 8\) and \(3, 8, 9\)"):
        frame_page(make_page(pictures=(ramp(8, 8), ramp(8, 9))), LINKS, 700)


def test_the_zoom_goes_where_the_detail_is():
    picture = np.full((3, 90, 120), 0.5, np.float32)
    picture[:, 60:85, 80:115:2] = 1
    (x, y) = map(float, parsed(make_page(pictures=(picture, picture))).all("div", "data-focus")[0].split())
    assert 80 < 120 * x < 115
    assert 60 < 90 * y < 85


def test_a_detail_is_a_second_pair_at_its_own_pixels():
    whole, both = parsed(), parsed(make_page(detail=(ramp(16, 24), ramp(16, 24))))
    assert len(both.all("input", "aria-label")) == len(whole.all("input", "aria-label")) + 1
    assert both.all("div", "data-width") == ["90", "24"]
    assert "Detail at the sensor's resolution" in both.words
    assert "Detail at" not in whole.words


def test_what_the_record_tells_is_told():
    page = parsed(make_page(record=RECORD | {"warning": "a <bad> lens", "draws": 8, "estimate": "mean_of_k"}))
    facts = ["Maker X-1", "ISO 1600", "1/100 s", "80 times as bright as the raw", "mean brightness to 0.1", *REASONS,
             "measured from this photo image (good)", "a <bad> lens", "average of 8 pictures that fit the photo", "noise_map",
             "8b5bf3557fba", "10.2 s (cpu, bf16)", "gain 0.0001, read noise 0.0004",
             "1.19 times as bright", "0.4 % below black, none above white", "mean 0.018"]  # fmt: skip
    assert [fact for fact in facts if fact not in page.words] == []
    assert not [word for word in ("exact", "evaluation", "probe", "posterior", "scaled input") if word in page.words]


@pytest.mark.parametrize("whole", [True, False])
def test_a_page_beside_pictures_of_all_pixels_shows_them_when_it_is_zoomed(whole):
    page = parsed(make_page(size=(600, 900), whole=whole))
    assert page.all("img", "data-full") == ([quote(LINKS["preview"]), quote(LINKS["before"])] if whole else [])
    assert page.all("div", "data-width") == (["900"] if whole else ["90"])
    (policy,) = (attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv") == "Content-Security-Policy")
    assert ("file:" in policy) == whole
    assert parsed(make_page(size=(600, 900), whole=True, parts=("preview",))).all("img", "data-full") == []


def test_colours_that_are_a_guess_and_metadata_that_were_lost_are_told():
    page = parsed(make_page(record=RECORD | {"colour_guessed": ["white balance", "colour matrix"], "metadata_lost": ["its XMP (torn)"]}))
    assert "The file tells no white balance and no colour matrix: the colours are a guess" in page.words
    assert "Not carried over from the raw its XMP (torn)" in page.words


def test_without_a_standard_deviation_the_page_says_why():
    page = parsed(make_page(std=None, record=RECORD | {"std_from": "none: inference.uncertainty.probes is 0"}))
    assert "No map: none: inference.uncertainty.probes is 0." in page.words
    assert len(page.all("img", "src")) == 2


def test_only_files_that_were_written_are_linked_in_their_order():
    page = parsed(make_page(parts=("record", "linear", "dng")), {"other": "o.x", "record": "r.json", "dng": "d.dng", "linear": "l.tif"})
    assert page.all("a", "href") == ["l.tif", "d.dng", "r.json"]
    assert parsed(make_page(parts=("other",)), {"other": "o.x"}).all("a", "href") == ["o.x"]


def test_a_picture_of_noise_keeps_its_limit_and_more_bytes_are_never_worse(rng):
    noise = rng.random((3, 200, 300))
    sizes, errors = [], []
    for limit in (10, 40_000, 80_000, 10**6):
        written = jpeg(noise, limit)
        shown = np.asarray(Image.open(io.BytesIO(written))).transpose(2, 0, 1) / 255
        sizes.append(len(written))
        errors.append(float(np.mean((shown - noise) ** 2)))
        assert len(written) <= limit or limit == 10
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert sizes[1] < sizes[-1]
    assert errors[-1] < errors[0] / 2


def test_a_frame_of_24_megapixels_stays_below_3_mb(rng):
    noise = rng.random((3, 1333, 2000), dtype=np.float32)
    page = make_page(pictures=(np.clip(noise * 0.5, 0, 1), ramp(1333, 2000)), detail=(noise[:, :640, :640], ramp(640, 640)))
    assert len(frame_page(page, LINKS, 700).encode()) < 3e6


def test_the_scale_of_the_map_tells_what_its_colours_are():
    values = ramp(50, 401, 0, 0.08)
    most, drawn = heat_most(values), heat(values)
    shown = parsed(make_page(std=(drawn, most)))
    assert f"{most:.2g} and more" in shown.words
    assert f"{most / 2:.2g}" in shown.words
    colours = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in heat_colours(9)])
    places = [int(np.argmin(np.abs(values[0, 0] - fraction * most))) for fraction in np.linspace(0, 1, 9)]
    assert np.abs(drawn[:, 0, places].T - colours).max() < 0.03


@pytest.mark.parametrize("signal", [0.0, 0.18])
def test_the_noise_told_is_that_of_scaled_exposures(signal, rng):
    ratio, noise = 50.0, {"gain": 1e-4, "read_noise": 4e-4}
    drawn = ratio * PoissonGaussian(**noise).sample(np.full((200, 500), signal / ratio), rng)
    assert drawn.std() == pytest.approx(noise_at(signal, noise, ratio), rel=5 / np.sqrt(2 * drawn.size))


@pytest.mark.parametrize("time", [1 / 8000, 1 / 250, 1 / 60, 1 / 5, 0.25, 0.4, 1.3, 30.0])
def test_exposure_times_can_be_read_back(time):
    assert float(Fraction(seconds(time).removesuffix(" s"))) == pytest.approx(time, rel=0.02)


def test_a_ratio_of_one_changes_nothing():
    assert (brighter(1.0), brighter(54.163)) == ("as bright as the raw", "54.16 times as bright as the raw")


def test_what_is_unknown_is_said_and_small_fractions_are_not_none():
    assert {seconds(value) for value in (None, float("nan"), 0.0, float("inf"))} == {"not told by the file"}
    assert (fraction(0), fraction(1e-7), fraction(0.013)) == ("none", "below 0.01 %", "1.3 %")


def test_a_weakened_result_says_so():
    assert "Strength 0.3 of the result" in parsed(make_page(record=RECORD | {"strength": 0.3})).words
    for full in (RECORD, RECORD | {"strength": 1.0}):
        assert "Strength" not in parsed(make_page(record=full)).words


UNKNOWN = RECORD | {"iso": float("nan"), "exposure_s": None, "camera": ""}
ENTRIES = [
    Entry("a/one", ramp(20, 30, 0.2, 0.8), RECORD),
    Entry("b/<i>two", None, {"error": "no <b>mosaic</b>"}),
    Entry("c/three", ramp(30, 20), UNKNOWN),
]
PAGES = {entry.name: f"page/{entry.name}.html" for entry in ENTRIES}


@pytest.mark.parametrize("entries", [[], ENTRIES[:1], ENTRIES], ids=len)
def test_the_index_is_whole_and_loads_nothing(entries):
    html = index_page(entries, PAGES, 9)
    page = Parsed(html)
    assert page.open == []
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.all("img", "src"))
    assert "http:" not in html
    assert "https:" not in html
    assert "<script" not in html
    assert html == index_page(entries, PAGES, 9)


def test_each_frame_is_shown_with_its_link_or_listed_with_its_reason():
    page = Parsed(index_page(ENTRIES, PAGES, 9))
    assert page.all("a", "href") == ["page/a/one.html", "page/c/three.html"]
    assert np.abs(decoded(page.all("img", "src")[0]) - ENTRIES[0].picture).max() < 0.03
    assert page.all("img", "width") == ["30", "20"]
    assert "2 restored, 1 could not be restored" in page.words
    assert "Could not be restored b/<i>two no <b>mosaic</b>" in page.words
    assert "unknown camera · ISO unknown · 80 times as bright as the raw" in page.words
    assert "i" not in {tag for tag, _ in page.elements}


def test_where_all_were_restored_nothing_else_is_said():
    assert "could not" not in Parsed(index_page(ENTRIES[:1], PAGES, 9)).words.lower()


def test_a_name_is_text_and_its_link_is_quoted():
    name = "a <u>&#'\".1"
    page = Parsed(index_page([Entry(name, ramp(4, 6), RECORD)], {name: f"page/{name}.html"}, 9))
    assert "u" not in {tag for tag, _ in page.elements}
    assert name in page.words
    (link,) = page.all("a", "href")
    assert unquote(link) == f"page/{name}.html"
    assert not set("<>\"'# ") & set(link)
