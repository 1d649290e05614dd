"""What real sensors add to their noise, one addition at a time: `python benchmarks/artefacts.py --photographs FOLDER`.

The scenes are those of benchmarks/scenes.py: parts of photographs that training never saw, through the measured noise of a Sony A7S II with
long tails, row noise and rounding. To each exposure one addition is made, in DN of 14 bits, and the frame is restored with the same
noise model as before: nobody tells the restoration what was added. The table shows the PSNR of the frame without additions, and by how
much each addition changes it, in dB, linear / sRGB, mean over the scenes; in brackets the scene that loses most in sRGB. With
`--darks N` the same sensor takes N darks before, and the frame is restored with them. With `--masked N` the sensor has N columns at its
left that see no light, which tell its black level and its rows.

    python benchmarks/artefacts.py --photographs FOLDER --layouts bayer xtrans --settings x100
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scenes import BALANCE, BLACK_DN, LAYOUTS, RANGE_DN, SETTINGS, Scene, Shot, figures_of, held_out, shoot
from tables import show

import lowlight_kedro as ll
from lowlight_kedro.api import LoadedPrior, Settings
from lowlight_kedro.sensor.cfa import Cfa, tile_pattern
from lowlight_kedro.sensor.dark_map import DarkMap, measure_dark_map
from lowlight_kedro.sensor.frame import Frame, crop
from lowlight_kedro.sensor.masked import Rectangle, with_masked

Draws = np.random.Generator


def photons(current: NDArray, gain_dn: float, moment: Draws) -> NDArray:
    """A dark current in DN as one exposure shows it."""
    return moment.poisson(current / gain_dn) * gain_dn


def sites(fraction: float, mean_dn: float) -> "Addition":
    """A `fraction` of all sites is too bright by an exponential excess."""

    def added(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
        excess = (sensor.random(signal.shape) < fraction) * sensor.exponential(mean_dn, signal.shape)
        return signal + photons(excess, gain_dn, moment)

    return added


def clusters(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """2 x 2 hot sites, one cluster in 10,000 sites."""
    centre = sensor.random(signal.shape) < 1e-4
    whole = np.logical_or.reduce([np.roll(centre, (down, right), (0, 1)) for down in (0, 1) for right in (0, 1)])
    return signal + photons(whole * 400.0, gain_dn, moment)


def dead(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """One site in 1000 shows black."""
    return np.where(sensor.random(signal.shape) < 1e-3, 0.0, signal)


def rows(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """Row offsets of 3 DN beside the table's own, new in every exposure."""
    return signal + moment.normal(0, 3, (len(signal), 1))


def columns(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """Column offsets of 3 DN."""
    return signal + sensor.normal(0, 3, (1, signal.shape[1]))


def bands(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """Slow horizontal bands: a wave of 4 DN rms with a period of 40 rows, elsewhere in every exposure."""
    phase = moment.uniform(0, 2 * np.pi)
    return signal + 4 * np.sqrt(2) * np.sin(2 * np.pi * np.arange(len(signal)) / 40 + phase)[:, None]


def halves(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """The right half of the sensor lies 4 DN higher."""
    return signal + 4.0 * (np.arange(signal.shape[1]) >= signal.shape[1] // 2)


def black(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """The black level lies 2 to 4 DN above the header's, each channel its own."""
    return signal + tile_pattern(sensor.uniform(2, 4, 3)[np.asarray(cfa)], (signal.shape[0], signal.shape[1]))


def glow(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """Amplifier glow: 60 DN in a corner, falling off over a quarter of the frame."""
    down, right = (np.arange(length)[:, None] / length for length in signal.shape)
    return signal + photons(60 * np.exp(-np.hypot(down, right.T) / 0.25), gain_dn, moment)


def clipped(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """The camera subtracts black and clips there."""
    return np.maximum(signal, 0)


def greens(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """The greens of every second row are 3 % more sensitive."""
    green = tile_pattern(np.asarray(cfa), (signal.shape[0], signal.shape[1])) == 1
    return np.where(green & (np.arange(len(signal))[:, None] % 2 == 1), 1.03 * signal, signal)


def nothing(signal: NDArray, cfa: Cfa, gain_dn: float, sensor: Draws, moment: Draws) -> NDArray:
    """The sensor as the table says."""
    return signal


Addition = Callable[[NDArray, Cfa, float, Draws, Draws], NDArray]
ADDITIONS: dict[str, Addition] = {
    "nothing": nothing,
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


def recorded(signal: NDArray, shot: Shot, name: str, seed: int, exposure: int) -> Frame:
    """What the sensor of scene `seed` writes of a signal with noise in it, with one addition; `exposure` tells one moment from others."""
    assert shot.cfa is not None
    sensor, moment = np.random.default_rng(seed), np.random.default_rng([seed, exposure])
    dn = ADDITIONS[name](np.asarray(signal * RANGE_DN, np.float64), shot.cfa, shot.noise.gain * RANGE_DN, sensor, moment)
    return Frame(
        np.clip(np.rint(dn) + BLACK_DN, 0, BLACK_DN + RANGE_DN).astype(np.uint16), shot.cfa,
        np.full((len(shot.cfa),) * 2, BLACK_DN, np.float32), BLACK_DN + RANGE_DN, exposure_s=1.0, iso=1600.0, camera="simulated",
        white_balance=BALANCE, camera_to_srgb=np.eye(3, dtype=np.float32),
    )  # fmt: skip


def beside_masked(sensor: Frame, columns: int) -> Frame:
    """The picture beside so many masked columns of a sensor, with what they tell."""
    height, width = sensor.shape
    return with_masked(crop(sensor, 0, columns, height, width - columns), sensor.mosaic_dn, Rectangle(0, columns, height, width),
                       [Rectangle(0, 0, height, columns)])  # fmt: skip


def dark_map(shot: Shot, name: str, seed: int, count: int, masked: int) -> DarkMap | None:
    """What `count` darks of the same sensor tell; None where they cannot be used."""
    nothing_seen = np.zeros(shot.signal.shape)
    darks = [
        recorded(shot.noise.sample(nothing_seen, np.random.default_rng([seed, 100 + number])), shot, name, seed, 1 + number)
        for number in range(count)
    ]
    darks = [beside_masked(dark, masked) for dark in darks] if masked else darks
    try:
        return measure_dark_map([partial(replace, dark) for dark in darks], [str(number) for number in range(count)])[0]
    except ValueError:  # its noise is cut off at black
        return None


def settings_of(options: argparse.Namespace) -> Settings:
    """Those of `lowlight restore`, without a standard deviation, and without the parts that are `off`."""
    plain = Settings()
    structure = replace(plain.structure, **dict.fromkeys(options.off, False))
    return replace(plain, refreshes=options.refreshes, structure=structure, probing=replace(plain.probing, probes=0))


def measured(scenes: list[Scene], prior: LoadedPrior, setting: str, layout: str, options: argparse.Namespace) -> Iterator[dict]:
    """PSNR of every scene without and with each addition, without and with darks."""
    for number, scene in enumerate(scenes):
        whole = replace(scene, light=np.pad(scene.light, ((0, 0), (0, 0), (options.masked, 0))))
        shot = shoot(whole, SETTINGS[setting], layout, number, full=True)
        truth = shot.truth[..., options.masked :]
        for name, darks in product(["nothing", *options.additions], options.darks):
            frame = recorded(shot.signal, shot, name, number, 0)
            known = dark_map(shot, name, number, darks, options.masked) if darks else None
            frame = beside_masked(frame, options.masked) if options.masked else frame
            begin = time.perf_counter()
            out = ll.restore(frame, prior, noise=shot.noise, ratio=shot.ratio, settings=settings_of(options), darks=known)
            seconds = time.perf_counter() - begin
            figures = figures_of(out.light, truth, scene)
            yield {
                "setting": setting, "layout": layout, "added": name, "darks": darks, "scene": scene.name, "linear": figures["psnr_linear"],
                "srgb": figures["psnr_srgb"], "defects": out.record["defects"], "seconds": seconds,
            }  # fmt: skip


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row per setting, layout and addition: PSNR of nothing without darks, change by each addition and darks, and the worst scene's."""
    place = ["setting", "layout", "scene"]
    plain = (table["added"] == "nothing") & (table["darks"] == table["darks"].min())
    before = table[plain].set_index(place)[["linear", "srgb"]]
    change = table[["linear", "srgb"]] - before.reindex(pd.MultiIndex.from_frame(table[place])).to_numpy()
    shown = table.assign(worst=change["srgb"])
    shown.loc[~plain, ["linear", "srgb"]] = change[~plain]
    grouped = shown.drop(columns="scene").groupby(["setting", "layout", "added", "darks"], sort=False)
    return grouped.mean().assign(worst=grouped["worst"].min()).round(2)


def beside(means: pd.DataFrame) -> pd.DataFrame:
    """A row per setting and addition; for each layout and number of darks linear / sRGB, and the worst scene's sRGB."""
    linear, srgb, worst = (means[name].map("{:.2f}".format) for name in ("linear", "srgb", "worst"))
    told = (linear + " / " + srgb + " (" + worst + ")").unstack(["layout", "darks"], sort=False)
    return told.set_axis([f"{layout}, {darks} darks" if darks else layout for layout, darks in told.columns], axis=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--prior", type=Path, default=None)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--settings", nargs="+", default=["x100"], choices=SETTINGS)
    parser.add_argument("--layouts", nargs="+", default=["bayer", "xtrans"], choices=[name for name, cfa in LAYOUTS.items() if cfa])
    parser.add_argument("--additions", nargs="+", default=[name for name in ADDITIONS if name != "nothing"], choices=ADDITIONS)
    parser.add_argument("--darks", type=int, nargs="+", default=[0, 4], help="numbers of darks; 0 is without")
    parser.add_argument("--masked", type=int, default=0, help="masked columns, whole periods of the colour filters; 0 is without")
    parser.add_argument("--refreshes", type=int, default=1)
    parser.add_argument(
        "--off", nargs="*", default=[], choices=["defects", "rows", "saturation", "lines", "black"], help="of inference.measurement"
    )
    parser.add_argument("--csv", type=Path, help="figures of every scene as a file")
    options = parser.parse_args()
    prior, scenes = ll.load_prior(options.prior, "cpu"), list(held_out(options.photographs, options.scenes, options.side))
    table = pd.DataFrame(
        row for setting in options.settings for layout in options.layouts for row in measured(scenes, prior, setting, layout, options)
    )
    print(f"{len(scenes)} scenes of {options.side} x {options.side}: {', '.join(scene.name for scene in scenes)}")
    show(beside(summary(table)))
    if options.csv:
        table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
