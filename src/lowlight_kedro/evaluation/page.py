"""Restored frames as HTML: a page for each, with before, after and uncertainty, and an index of all of them with small pictures."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.evaluation.page_facts import Fact, brighter, formatted, frame_facts, seconds, warnings
from lowlight_kedro.evaluation.pictures import heat_colours, most_detailed

QUALITIES = (92, 88, 84, 80, 76, 72, 66, 60, 54, 48, 42, 36, 30)  # JPEG, best first
FILES = {  # part: what it is called and what it is for
    "linear": ("Linear TIFF", "16 bits, white-balanced linear light, for further work"),
    "dng": ("Linear DNG", "for raw editors, white balance and exposure free"),
    "cfa": ("Mosaic DNG", "for raw editors and their own demosaicer, at the exposure of the raw"),
    "srgb": ("sRGB TIFF", "16 bits, as shown here, in full size"),
    "preview": ("Picture", "as shown here"),
    "before": ("Picture before", "only brightened, as shown here"),
    "std": ("Uncertainty, TIFF", "standard deviation of each pixel, in the units of the linear TIFF"),
    "std_preview": ("Uncertainty, PNG", "the map shown here"),
    "defects": ("Defects, CSV", "where photosites were taken for defects"),
    "record": ("Record, JSON", "everything that is known of how it was made, and every option"),
}

Pair = tuple[NDArray, NDArray]


@dataclass(frozen=True)
class Page:
    """What the page of a frame shows. Pictures are sRGB in [0, 1] (3, h, w), upright.

    Attributes:
        name: of the frame, as its files have it: `folder/IMG_0001`.
        size: height and width of the restored picture, upright.
        pictures: scaled input and restored, at one size, at one display exposure.
        detail: the same of a small part at the pixels of the sensor; None where `pictures` already have those.
        std: the map as `pictures.heat` draws it, and the value of its lightest colour, in linear light; None = not known.
        record: how the frame was restored.
        parts: the kinds of files that were written beside it.
        whole: whether the files of `preview` and `before` hold every pixel; the page shows them when it is zoomed.
    """

    name: str
    size: tuple[int, int]
    pictures: Pair
    detail: Pair | None
    std: tuple[NDArray, float] | None
    record: Mapping[str, Any]
    parts: Sequence[str]
    whole: bool = False


@cache
def template(name: str) -> str:
    """A file of `evaluation/templates`: HTML with `$name` where something is filled in, a style or a script."""
    return files("lowlight_kedro.evaluation").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def filled(name: str, **values: object) -> str:
    """The template `name` with `values`; all that it names must be given."""
    return Template(template(name)).substitute(values)


def jpeg(picture: NDArray, most_bytes: int, *, subsampled: bool = True) -> bytes:
    """sRGB in [0, 1] (3, h, w) as JPEG, of the best quality in `QUALITIES` that needs no more than `most_bytes`, else of the last.

    `subsampled`: colour at half the resolution where the quality is low.
    """
    from PIL import Image

    pixels = Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))
    for quality in QUALITIES:
        written = io.BytesIO()
        pixels.save(written, format="JPEG", quality=quality, subsampling=2 if subsampled and quality < 88 else 0)  # optimize fails on noise
        if written.tell() <= most_bytes:
            break
    return written.getvalue()


def embedded(picture: NDArray, most_bytes: int) -> str:
    """See `jpeg`; as an address that holds the picture itself."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture, most_bytes)).decode("ascii")


def _focus(picture: NDArray) -> str:
    """The middle of the most detailed place, as fractions of width and height."""
    height, width = picture.shape[1:]
    side = max(min(height, width) // 3, 1)
    top, left = most_detailed(picture, max(side, 2))
    return f"{(left + side / 2) / width:.3f} {(top + side / 2) / height:.3f}"


def _viewer(
    pair: Pair, title: str, caption: str, most_bytes: int, *, detail: bool = False, width: int | None = None,
    whole: tuple[str, str] | None = None,
) -> str:  # fmt: skip
    """Before and after under a slider; a detail is always shown at 100 %. The files `whole` hold them in all their `width` pixels."""
    before, after = pair
    if before.shape != after.shape:
        raise ValueError(f"before and after must have one size, got {before.shape} and {after.shape}; choose a demosaicer that keeps it")
    height, own_width = after.shape[1:]
    full = [f' data-full="{escape(quote(file))}"' for file in whole] if whole else ["", ""]
    return filled(
        "viewer.html", kind=" full" if detail else "", controls="" if detail else template("controls.html"),
        title=escape(title), caption=caption,
        width=width or own_width, ratio=f"{own_width / height:.5f}", full_before=full[0], full_after=full[1],
        focus=_focus(after), before=embedded(before, most_bytes), after=embedded(after, most_bytes),
    )  # fmt: skip


def _detail(page: Page, most_bytes: int) -> str:
    if page.detail is None:
        return ""
    caption = "Where the picture holds most detail, one pixel for each photosite of the sensor; above, pixels are averaged."
    viewer = _viewer(page.detail, "Detail", caption, most_bytes, detail=True)
    return f"<section><h2>Detail at the sensor's resolution</h2><figure>{viewer}</figure></section>\n"


def _uncertainty(page: Page, most_bytes: int) -> str:
    """The map with its scale, or why there is none."""
    if page.std is None:
        reason = escape(str(page.record.get("std_from") or "not estimated"))
        return f'<section><h2>Uncertainty</h2><p class="quiet">No map: {reason}.</p></section>\n'
    picture, most = page.std
    height, width = picture.shape[1:]
    shown = filled(
        "map.html", ratio=f"{width / height:.5f}", width=width, height=height, picture=embedded(picture, most_bytes),
        colours=", ".join(heat_colours(9)), half=formatted(most / 2, "{:.2g}"), most=formatted(most, "{:.2g}"),
    )  # fmt: skip
    caption = (
        "How far each pixel may be off: one standard deviation of linear light, where 1 is white; mean "
        f"{formatted(page.record.get('mean_std'), '{:.2g}', 'not known')}."
    )
    return f"<section><h2>Uncertainty</h2><figure>{shown}<figcaption>{caption}</figcaption></figure></section>\n"


def _fact(fact: Fact) -> str:
    term, texts = fact
    first, *reasons = [texts] if isinstance(texts, str) else texts
    listed = "<ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in reasons) + "</ul>" if reasons else ""
    return f"<dt>{escape(term)}</dt><dd>{escape(first)}{listed}</dd>"


def _section(heading: str, facts: Sequence[Fact]) -> str:
    return f"<section><h2>{escape(heading)}</h2><dl>{''.join(map(_fact, facts))}</dl></section>\n"


def _files(page: Page, links: Mapping[str, str]) -> str:
    """The files beside the page, those of `FILES` first and in that order."""
    rows = []
    for part in [*(part for part in FILES if part in links), *(part for part in links if part not in FILES)]:
        if part in page.parts:
            label, use = FILES.get(part, (part, ""))
            rows.append(f'<dt><a href="{escape(quote(links[part]))}">{escape(label)}</a></dt><dd>{escape(use)}</dd>')
    return f"<section><h2>Files</h2><dl>{''.join(rows)}</dl></section>\n" if rows else ""


def frame_page(page: Page, links: Mapping[str, str], picture_kb: float) -> str:
    """The page as HTML, all in one: it loads nothing but, when it is zoomed, the pictures beside it that hold every pixel.

    Args:
        page: what it shows.
        links: part -> relative path from the page to the file, not yet quoted; only those of `page.parts` are shown.
        picture_kb: greatest size of each picture, kB before base64, which adds a third.

    Raises:
        ValueError: before and after differ in size.
    """
    record, most, title = page.record, int(1000 * picture_kb), page.name.split("/")[-1]
    subtitle = [
        record.get("camera") or "unknown camera", f"ISO {formatted(record.get('iso'), missing='unknown')}",
        seconds(record.get("exposure_s")) if record.get("exposure_s") else "exposure time unknown",
        brighter(record["exposure_ratio"]),
    ]  # fmt: skip
    warned = "".join(f"<p>{escape(warning)}</p>" for warning in warnings(record))
    caption = (
        "Left of the divider the photo as it was, only brightened; right of it the restored picture, equally bright. Drag the divider, or "
        "use the slider with arrow keys; a double click shows that place at 100 %."
    )
    shown = page.whole and {"before", "preview"} <= set(page.parts) & set(links)
    whole = (links["before"], links["preview"]) if shown else None
    facts = "".join(_section(heading, rows) for heading, rows in frame_facts(record, page.size).items())
    return filled(
        "page.html", title=escape(title), subtitle=escape(" · ".join(subtitle)), style=template("page.css"), script=template("page.js"),
        warnings=f'<div class="warning" role="note">{warned}</div>\n' if warned else "",
        beside="'self' file:" if whole else "",
        viewer=_viewer(page.pictures, title, caption, most, width=page.size[1] if whole else None, whole=whole),
        figures=_detail(page, most) + _uncertainty(page, most),
        facts=facts + _files(page, links),
    )  # fmt: skip


ENTRY = Template("""<li><a href="$link">$picture<b>$name</b></a>
<span class="quiet">$facts</span></li>
""")


@dataclass(frozen=True)
class Entry:
    """A frame in the index: `picture`, sRGB in [0, 1] (3, h, w), or None; where the frame failed `record` says `error`."""

    name: str
    picture: NDArray | None
    record: Mapping[str, Any]


def _image(picture: NDArray | None, most_bytes: int) -> str:
    if picture is None:
        return ""
    return f'<img width="{picture.shape[2]}" height="{picture.shape[1]}" alt="" src="{embedded(picture, most_bytes)}">'


def _shown(entry: Entry, link: str, most_bytes: int) -> str:
    record = entry.record
    facts = [record.get("camera") or "unknown camera", f"ISO {formatted(record.get('iso'), missing='unknown')}"]
    facts += [seconds(record["exposure_s"])] if record.get("exposure_s") else []
    return ENTRY.substitute(
        link=escape(quote(link)), picture=_image(entry.picture, most_bytes), name=escape(entry.name),
        facts=escape(" · ".join([*facts, brighter(record["exposure_ratio"])])),
    )  # fmt: skip


def index_page(entries: Sequence[Entry], links: Mapping[str, str], picture_kb: float) -> str:
    """The index as HTML, all in one; frames that failed are listed with their reasons.

    Args:
        entries: the frames, in the order shown.
        links: name -> relative path from the index to the frame's page, not yet quoted.
        picture_kb: greatest size of each picture, kB before base64.
    """
    most = int(1000 * picture_kb)
    shown = "".join(_shown(entry, links[entry.name], most) for entry in entries if "error" not in entry.record)
    failed = [
        f"<dt>{escape(entry.name)}</dt><dd>{escape(str(entry.record.get('error')))}</dd>" for entry in entries if "error" in entry.record
    ]
    subtitle = f"{len(entries) - len(failed)} restored" + (f", {len(failed)} could not be restored" if failed else "")
    listed = f"<section><h2>Could not be restored</h2><dl>{''.join(failed)}</dl></section>\n" if failed else ""
    return filled("index.html", style=template("page.css") + template("index.css"), subtitle=subtitle, entries=shown, failed=listed)
