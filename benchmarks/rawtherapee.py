"""What RawTherapee makes of the same raws: `python benchmarks/rawtherapee.py --photographs FOLDER [--settings x100 x300]`.

Needs `rawtherapee-cli` (Debian package rawtherapee). Scenes, noise and figures are those of benchmarks/restoration.py, in Bayer or
X-Trans: each short exposure is written as DNG and developed with log2(ratio) EV more, AMaZE or 3-pass (best), and directional pyramid
denoising in several ways; no tone curve, no sharpening, camera colours as they are. The result is scaled by the one number
that fits the long exposure best, a favour that the prior does not get. Mean over scenes of PSNR, linear / sRGB: without denoising, by
the way of denoising that is best in sRGB (method, aggressiveness, luminance/chrominance), and by the prior in one and two evaluations.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from restoration import restore
from scenes import BALANCE, LAYOUTS, SETTINGS, Scene, Shot, figures_of, held_out, shoot
from tables import show

import lowlight_kedro as ll
from lowlight_kedro.datasets.rawtherapee import EDGE, PLAIN, Denoising, rawtherapee

WAYS = (("Lab", "shal", 60, 20), ("Lab", "shalbi", 60, 20), ("RGB", "shal", 60, 20), ("RGB", "shal", 90, 20), ("RGB", "shal", 90, 30),
        ("RGB", "shalbi", 60, 10), ("RGB", "shalbi", 60, 20))  # fmt: skip  # the best of some twenty that were tried
DENOISING = (PLAIN, *(Denoising(*way) for way in WAYS))


def called(denoising: Denoising) -> str:
    """A way of denoising in a table."""
    return f"rawtherapee {denoising.method} {denoising.aggressiveness} {denoising.luminance}/{denoising.chrominance}"


def inside(light: NDArray, shot: Shot) -> NDArray:
    """Without the edge that RawTherapee cuts off."""
    assert shot.cfa is not None
    edge = EDGE[len(shot.cfa)]
    return light[:, edge:-edge, edge:-edge]


def fitted(light: NDArray, truth: NDArray) -> NDArray:
    """`light` times the number that brings it nearest to `truth`."""
    return light * float((light * truth).sum() / np.square(light).sum())


def rows(scenes: list[Scene], setting: str, layout: str, prior_file: Path | None) -> Iterator[dict]:
    """Figures of each way of denoising and of the prior, on each scene."""
    prior = ll.load_prior(prior_file)
    for number, scene in enumerate(scenes):
        shot = shoot(scene, SETTINGS[setting], layout, number)
        truth = inside(shot.truth, shot)
        for denoising in DENOISING:
            begin = time.perf_counter()
            light = fitted(inside(rawtherapee(shot.signal, shot.cfa, BALANCE, shot.ratio, denoising), shot), truth)
            told = {"method": called(denoising), "seconds": time.perf_counter() - begin}
            yield told | figures_of(light, truth, scene)
        for evaluations in (1, 2):
            begin = time.perf_counter()
            light, _, _ = restore(shot, prior, "noise_map/mean", evaluations, 1)
            told = {"method": f"noise_map, {evaluations}", "seconds": time.perf_counter() - begin}
            yield told | figures_of(inside(light, shot), truth, scene)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """A row per setting and layout."""
    rows = {}
    for place, part in found.groupby(["setting", "layout"], sort=False):
        means = part.groupby("method", sort=False)[["psnr_linear", "psnr_srgb"]].mean()
        told = means["psnr_linear"].map("{:.2f}".format) + " / " + means["psnr_srgb"].map("{:.2f}".format)
        best = means["psnr_srgb"][means.index.str.startswith("rawtherapee")].idxmax()
        plain = called(PLAIN)
        its_best = "the same" if best == plain else f"{told[best]} ({best.removeprefix('rawtherapee ')})"
        rows[place] = {"without denoising": told[plain], "its best": its_best} | {
            f"noise_map/mean:{n}": told[f"noise_map, {n}"] for n in (1, 2)
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["setting", "layout"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", type=Path, default=None)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--settings", nargs="+", default=["x100", "x300"], choices=SETTINGS)
    parser.add_argument("--layouts", nargs="+", default=["bayer"], choices=[name for name in LAYOUTS if name != "rgb"])
    options = parser.parse_args()
    scenes = list(held_out(options.photographs, options.scenes, options.side))
    found = pd.DataFrame(
        {"setting": setting, "layout": layout} | row
        for setting in options.settings
        for layout in options.layouts
        for row in rows(scenes, setting, layout, options.prior)
    )
    print(f"{len(scenes)} scenes of {options.side} x {options.side}: {', '.join(scene.name for scene in scenes)}")
    show(summary(found))


if __name__ == "__main__":
    main()
