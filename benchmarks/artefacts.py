"""What real sensors add to their noise, one addition at a time: `python benchmarks/artefacts.py --photographs FOLDER`.

The scenes are those of benchmarks/scenes.py: parts of photographs that training never saw, through the measured noise of a Sony A7S II with
long tails, row noise and rounding. To each exposure one addition is made, in DN of 14 bits, and the frame is restored with the same
noise model as before: nobody tells the restoration what was added. The table shows the PSNR of the frame without additions, and by how
much each addition changes it, in dB, linear and in sRGB, mean over the scenes; `worst` is the scene that loses most in sRGB.

    python benchmarks/artefacts.py --photographs FOLDER --layouts bayer xtrans --settings x100
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scenes import BALANCE, LAYOUTS, RANGE_DN, SETTINGS, Scene, Shot, figures_of, held_out, shoot

import lowlight_kedro as ll
from lowlight_kedro.api import LoadedPrior, Restored, Settings
from lowlight_kedro.sensor.cfa import Cfa


def sites(share: float, mean_dn: float) -> Callable[[NDArray, Cfa, np.random.Generator], NDArray]:
    """A `share` of all sites is too bright by an exponential excess."""
    return lambda signal, cfa, rng: signal + (rng.random(signal.shape) < share) * rng.exponential(mean_dn, signal.shape)


def clusters(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """2 x 2 hot sites, one cluster in 10,000 sites."""
    centre = rng.random(signal.shape) < 1e-4
    whole = np.logical_or.reduce([np.roll(centre, (down, right), (0, 1)) for down in (0, 1) for right in (0, 1)])
    return signal + whole * 400.0


def dead(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """One site in 1000 shows black."""
    return np.where(rng.random(signal.shape) < 1e-3, 0.0, signal)


def rows(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """Row offsets of 3 DN beside the table's own."""
    return signal + rng.normal(0, 3, (len(signal), 1))


def columns(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """Column offsets of 3 DN."""
    return signal + rng.normal(0, 3, (1, signal.shape[1]))


def bands(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """Slow horizontal bands: a wave of 4 DN rms with a period of 40 rows."""
    phase = rng.uniform(0, 2 * np.pi)
    return signal + 4 * np.sqrt(2) * np.sin(2 * np.pi * np.arange(len(signal)) / 40 + phase)[:, None]


def halves(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """The right half of the sensor lies 4 DN higher."""
    return signal + 4.0 * (np.arange(signal.shape[1]) >= signal.shape[1] // 2)


def black(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """The black level lies 2 to 4 DN above the header's, each channel its own."""
    height, width = signal.shape
    offsets = rng.uniform(2, 4, 3)[np.asarray(cfa)]
    return signal + np.tile(offsets, (-(-height // len(cfa)), -(-width // len(cfa))))[:height, :width]


def glow(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """Amplifier glow: 60 DN in a corner, falling off over a quarter of the frame, with its own photon noise left out."""
    down, right = (np.arange(length)[:, None] / length for length in signal.shape)
    return signal + 60 * np.exp(-np.hypot(down, right.T) / 0.25)


def clipped(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """The camera subtracts black and clips there."""
    return np.maximum(signal, 0)


def greens(signal: NDArray, cfa: Cfa, rng: np.random.Generator) -> NDArray:
    """The greens of every second row are 3 % more sensitive."""
    green = np.asarray(cfa)[np.arange(len(signal))[:, None] % len(cfa), np.arange(signal.shape[1]) % len(cfa)] == 1
    return np.where(green & (np.arange(len(signal))[:, None] % 2 == 1), 1.03 * signal, signal)


ADDITIONS: dict[str, Callable[[NDArray, Cfa, np.random.Generator], NDArray]] = {
    "hot sites, 0.1 %, 400 DN": sites(1e-3, 400),
    "warm sites, 1 %, 40 DN": sites(1e-2, 40),
    "hot 2 x 2 clusters": clusters,
    "dead sites, 0.1 %": dead,
    "rows, 3 DN": rows,
    "columns, 3 DN": columns,
    "slow bands, 4 DN": bands,
    "right half 4 DN higher": halves,
    "black 2 to 4 DN higher": black,
    "glow, 60 DN in a corner": glow,
    "clipped at black": clipped,
    "greens 3 % apart": greens,
}


def with_addition(shot: Shot, name: str, seed: int) -> Shot:
    """The exposure with one addition, rounded to whole DN again."""
    assert shot.cfa is not None
    added = ADDITIONS[name](np.asarray(shot.signal * RANGE_DN, np.float64), shot.cfa, np.random.default_rng(seed))
    return replace(shot, signal=(np.rint(added) / RANGE_DN).astype(np.float32))


def settings_of(options: argparse.Namespace) -> Settings:
    """Those of `lowlight restore` and the search for lines, without a standard deviation and without the parts that are `off`."""
    plain = Settings()
    structure = replace(plain.structure, **{"lines": True} | {name: False for name in options.off if name != "defects"})
    return replace(
        plain, refreshes=options.refreshes, structure=structure, defects="defects" not in options.off,
        probing=replace(plain.probing, probes=0),
    )  # fmt: skip


def restored(shot: Shot, prior: LoadedPrior, settings: Settings) -> Restored:
    """The frame, restored without being told what was added."""
    return ll.restore(shot.signal, prior, cfa=shot.cfa, noise=shot.noise, white_balance=BALANCE, ratio=shot.ratio, settings=settings)


def measured(scenes: list[Scene], prior: LoadedPrior, setting: str, layout: str, options: argparse.Namespace) -> Iterator[dict]:
    """PSNR of every scene without and with each addition."""
    for number, scene in enumerate(scenes):
        plain = shoot(scene, SETTINGS[setting], layout, number, full=True)
        for name in ["nothing", *options.additions]:
            shot = plain if name == "nothing" else with_addition(plain, name, number)
            begin = time.perf_counter()
            out = restored(shot, prior, settings_of(options))
            seconds = time.perf_counter() - begin
            figures = figures_of(out.light, shot.truth, scene)
            yield {
                "setting": setting, "layout": layout, "added": name, "scene": scene.name, "linear": figures["psnr_linear"],
                "srgb": figures["psnr_srgb"], "defects": out.record["defects"], "seconds": seconds,
            }  # fmt: skip


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row per setting, layout and addition: PSNR of nothing, change by each addition, and the worst scene's."""
    place = ["setting", "layout", "scene"]
    before = table[table["added"] == "nothing"].set_index(place)[["linear", "srgb"]]
    change = table[["linear", "srgb"]] - before.reindex(pd.MultiIndex.from_frame(table[place])).to_numpy()
    shown = table.assign(worst=change["srgb"])
    added = table["added"] != "nothing"
    shown.loc[added, ["linear", "srgb"]] = change[added]
    grouped = shown.drop(columns="scene").groupby(["setting", "layout", "added"], sort=False)
    return grouped.mean().assign(worst=grouped["worst"].min()).round(2)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--prior", type=Path, default=None)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--settings", nargs="+", default=["x100"], choices=SETTINGS)
    parser.add_argument("--layouts", nargs="+", default=["bayer", "xtrans"], choices=[name for name, cfa in LAYOUTS.items() if cfa])
    parser.add_argument("--additions", nargs="+", default=list(ADDITIONS), choices=ADDITIONS)
    parser.add_argument("--refreshes", type=int, default=1)
    parser.add_argument("--off", nargs="*", default=[], choices=["defects", "lines", "rows", "saturation"], help="of inference.measurement")
    parser.add_argument("--csv", type=Path, help="figures of every scene as a file")
    options = parser.parse_args()
    prior, scenes = ll.load_prior(options.prior, "cpu"), list(held_out(options.photographs, options.scenes, options.side))
    table = pd.DataFrame(
        row for setting in options.settings for layout in options.layouts for row in measured(scenes, prior, setting, layout, options)
    )
    print(f"{len(scenes)} scenes of {options.side} x {options.side}: {', '.join(scene.name for scene in scenes)}")
    print(summary(table).to_string())
    if options.csv:
        table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
