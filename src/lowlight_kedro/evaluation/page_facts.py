"""The record of a restored frame in plain words: (term, text) for people who did not write the code."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Fact = tuple[str, str | Sequence[str]]  # of several texts, the first is the statement and the others are its reasons

DIGITS = 12  # of the prior's hash: enough to tell it from others; the record has all
GREY = 0.18  # of white: what photographers call middle grey
UNKNOWN = "not told by the file"
ESTIMATES = {
    "mean": "all noise removed: the average of all pictures that fit the photo",
    "sample": "one of the pictures that fit the photo, with its own grain",
    "mean_of_k": "the average of {draws} pictures that fit the photo",
}
SOURCES = {  # how a record's `noise_from` begins: what that means
    "image": "measured from this photo",
    "tag": "told by the camera in this photo",
    "table": "published measurements of this camera",
    "calibration": "your own measurement of this camera",
    "assumption": "assumed, as of a typical camera",
    "parameters": "given by you",
}


def formatted(value: Any, form: str = "{:g}", missing: str = UNKNOWN) -> str:
    """A number in `form`; `missing` for None, nan and what is infinite."""
    return form.format(value) if value is not None and math.isfinite(value) else missing


def seconds(value: float | None) -> str:
    """An exposure time as photographers write it: 1/100 s, 0.3 s, 10 s."""
    if value is None or not math.isfinite(value) or value <= 0:
        return UNKNOWN
    return f"1/{1 / value:.0f} s" if value < 0.25 else f"{value:g} s"


def brighter(ratio: float) -> str:
    """What an exposure ratio does to the picture."""
    return "as bright as the raw" if ratio == 1 else f"{formatted(ratio, '{:.4g}')} times as bright as the raw"


def noise_at(signal: float, noise: Mapping[str, Any], ratio: float) -> float:
    """Standard deviation of a photosite of the scaled input at brightness `signal`, 1 = white: ratio sqrt(gain signal / ratio + read^2)."""
    return ratio * math.sqrt(noise["gain"] * signal / ratio + noise["read_noise"] ** 2)


def fraction(value: float) -> str:
    """A fraction as per cent, in digits that tell it from none."""
    return "none" if value == 0 else "below 0.01 %" if value < 1e-4 else f"{100 * value:.2g} %"


def _noise(record: Mapping[str, Any]) -> list[Fact]:
    noise, ratio = record["noise"], record["exposure_ratio"]
    values = [
        f"{name.replace('_', ' ')} {formatted(value, '{:.3g}')}" for name, value in noise.items() if value and not isinstance(value, bool)
    ]
    source = str(record["noise_from"])
    known = next((words for start, words in SOURCES.items() if source.startswith(start)), None)
    facts: list[Fact] = [("Noise", [known, source] if known else source)]
    if record.get("noise_not_from"):
        facts.append(("Not taken from", ["", *record["noise_not_from"]]))
    if {"gain", "read_noise"} <= noise.keys():
        black, grey = (f"{100 * noise_at(signal, noise, ratio):.2g} %" for signal in (0, GREY))
        facts.append(("Before", f"noise of {black} of white in black, {grey} in middle grey, when brightened"))
    return [*facts, ("Numbers, 1 = white of the raw", ", ".join(values)), *_masked(record), *_darks(record), *_residual(record)]


def _residual(record: Mapping[str, Any]) -> list[Fact]:
    verdict = (record.get("residual") or {}).get("verdict")
    return [("What was taken away", "only noise, as the noise model says" if verdict == "good" else verdict)] if verdict else []


def _masked(record: Mapping[str, Any]) -> list[Fact]:
    masked = record.get("masked")
    if not masked:
        return []
    level = " / ".join(f"{value:+.2f}" for value in masked["black"])
    rows = f"; rows apart by {masked['rows']:.2f} DN, taken off" if masked["rows"] else ""
    return [("Black level", f"by {masked['sites']} masked photosites: {level} DN above that of the file in red, green, blue{rows}")]


def _darks(record: Mapping[str, Any]) -> list[Fact]:
    darks = record.get("darks")
    if not darks:
        return []
    count = len(darks["frames"])
    of = seconds(darks["exposure_s"])
    if darks.get("times_s"):
        of = f"{' and '.join(map(seconds, (darks['times_s'][0], darks['times_s'][-1])))}, by a line for {of},"
    taken = f"taken off, as {count} dark frame{'s' if count > 1 else ''} of {of} told it"
    return [("What the sensor shows without light", f"{taken}; {darks['sites']} hot or restless photosites")]


def _brightness(record: Mapping[str, Any]) -> list[Fact]:
    facts: list[Fact] = [
        ("Brightened", brighter(record["exposure_ratio"])),
        ("Why", record["ratio_from"]),
    ]
    shown, clipped = record.get("display_exposure"), record.get("clipped_in_linear")
    if shown is not None:
        facts.append(
            (
                "Shown",
                "at that brightness"
                if shown == 1
                else f"a further {formatted(shown, '{:.3g}')} times as bright, here and in the sRGB files",
            )
        )
    if record.get("saturated_fraction") is not None:
        facts.append(("Blown in the raw", fraction(record["saturated_fraction"]) + " of its photosites"))
    if clipped:
        facts.append(("Clipped in the linear TIFF", f"{fraction(clipped['below'])} below black, {fraction(clipped['above'])} above white"))
    return facts


def _restoration(record: Mapping[str, Any]) -> list[Fact]:
    estimate = ESTIMATES.get(record["estimate"], str(record["estimate"])).format(draws=record.get("draws"))
    computed = ", ".join(record[key] for key in ("device", "precision") if record.get(key))
    time = formatted(record.get("seconds"), "{:.1f} s", "not measured") + (f" ({computed})" if computed else "")
    facts: list[Fact] = [
        ("Result", estimate), ("Method", f"diffusion prior {str(record['prior'])[:DIGITS]}, {record['guidance']}"), ("Time", time),
    ]  # fmt: skip
    if record.get("strength", 1) != 1:
        facts.insert(1, ("Strength", f"{formatted(record['strength'])} of the result, the rest is the photo before"))
    if record.get("crop"):
        facts.append(("Part", "top {}, left {}, height {}, width {} of the raw".format(*record["crop"])))
    return facts


def frame_facts(record: Mapping[str, Any], size: tuple[int, int]) -> dict[str, list[Fact]]:
    """By heading. `size`: height and width of the restored picture, upright."""
    camera: list[Fact] = [
        ("Camera", record.get("camera") or UNKNOWN), ("ISO", formatted(record.get("iso"))),
        ("Exposure time", seconds(record.get("exposure_s"))), ("Picture", f"{size[1]} x {size[0]} pixels"),
    ]  # fmt: skip
    if record.get("lens_corrections"):
        names = ", ".join(record["lens_corrections"])
        camera.append(("Corrections of the lens", f"{names}: in the DNG files, for the editor; the pictures here do not show them"))
    if record.get("shading_most"):
        camera.append(("Darker corners", f"brightened up to {formatted(record['shading_most'], '{:.2f}')} times, as the file asks"))
    if record.get("metadata_lost"):
        camera.append(("Not carried over from the raw", ", ".join(record["metadata_lost"])))
    return {"Camera": camera, "Brightness": _brightness(record), "Noise": _noise(record), "Restoration": _restoration(record)}


def warnings(record: Mapping[str, Any]) -> list[str]:
    """What the record warns of."""
    warned = [record[name] for name in ("warning", "darks_warning") if record.get(name)]
    if record.get("colour_guessed"):
        missing = " and no ".join(record["colour_guessed"])
        warned.append(f"The file tells no {missing}: the colours are a guess. Set the white balance in an editor.")
    if "noise assumed" in record.get("notes", ()):
        warned.append("Nothing tells the noise of this camera. That of a typical one was taken: too much or too little may be removed.")
    if "denoised before" in record.get("notes", ()):
        warned.append("The file says that its noise was reduced before: detail may be taken for noise. Take the camera's own file.")
    undone = [note for note in record.get("notes", ()) if note.endswith("not done") or " unusable: " in note]
    if undone:
        warned.append(f"The file asks for more than is done here: {', '.join(undone)}.")
    return warned
