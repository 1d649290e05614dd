"""All restored frames of a run on one HTML page, each with a small picture that leads to its own page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from lowlight_kedro.evaluation.page import embedded, filled, template
from lowlight_kedro.evaluation.page_facts import brighter, seconds, told

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
    facts = [record.get("camera") or "unknown camera", f"ISO {told(record.get('iso'), missing='unknown')}"]
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
    told_of = f"{len(entries) - len(failed)} restored" + (f", {len(failed)} could not be restored" if failed else "")
    listed = f"<section><h2>Could not be restored</h2><dl>{''.join(failed)}</dl></section>\n" if failed else ""
    return filled("index.html", style=template("page.css") + template("index.css"), subtitle=told_of, entries=shown, failed=listed)
