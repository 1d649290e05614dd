"""How well each calibration method finds a known noise: `python benchmarks/calibration.py`.

Simulated exposures of a Sony A7S II (gain and noise of PMN, in DN) at several ISOs and both colour filter arrays; per
method the median and the 95th percentile of the relative error of gain and read noise, and how often two standard errors
hold the truth. Each method gets what a user would photograph, in frames of `--side` photosites (one image: twice that).

    python benchmarks/calibration.py --bracket FOLDER

measures the raws of a folder instead, exposures of one scene at one ISO: each alone, and each pair.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import tables

sys.path.insert(0, str(Path(__file__).parent.parent))

from lowlight_kedro.datasets.raw import RawFolderDataset
from lowlight_kedro.sensor.alignment import PairLimits
from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate
from lowlight_kedro.sensor.calibration.pairs import from_pair, pair_estimate
from lowlight_kedro.sensor.calibration.photon_transfer import photon_transfer
from lowlight_kedro.sensor.calibration.single_image import from_image, image_estimate
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa
from lowlight_kedro.sensor.frame import range_dn
from tests.sensor.calibration.simulation import Sensor, darks, flats, scene

CAMERA = {  # ISO: DN per electron, read and row noise in DN, tail
    100: (0.0956, 1.007, 0.139, 0.149),
    1600: (1.5301, 6.299, 0.989, -0.044),
    12800: (12.241, 14.246, 1.275, -0.065),
}
CFAS = {"Bayer": BAYER_RGGB, "X-Trans": XTRANS}
LEVELS = (0.01, 0.03, 0.1, 0.3, 0.7)

Method = Callable[[Sensor, Cfa, np.random.Generator, int], NoiseEstimate]


def transfer(sensor: Sensor, cfa: Cfa, rng: np.random.Generator, side: int) -> NoiseEstimate:
    shape = (side, side)
    return photon_transfer(flats(sensor, cfa, rng, shape, LEVELS), darks(sensor, rng, shape, 4), cfa)


def transfer_without_darks(sensor: Sensor, cfa: Cfa, rng: np.random.Generator, side: int) -> NoiseEstimate:
    return photon_transfer(flats(sensor, cfa, rng, (side, side), LEVELS), [], cfa)


def pair(ratio: float) -> Method:
    def method(sensor: Sensor, cfa: Cfa, rng: np.random.Generator, side: int) -> NoiseEstimate:
        light = scene(cfa, rng, (side, side))
        stated = ratio * rng.uniform(0.96, 1.04)  # cameras state exposure times to a few percent
        return from_pair(sensor.expose(light / ratio, rng), sensor.expose(light, rng), stated, cfa)

    return method


def image(exposure: float) -> Method:
    def method(sensor: Sensor, cfa: Cfa, rng: np.random.Generator, side: int) -> NoiseEstimate:
        return from_image(sensor.expose(scene(cfa, rng, (2 * side, 2 * side)) * exposure, rng), cfa)

    return method


METHODS: dict[str, Method] = {
    "5 levels x 2 flats, 4 darks": transfer,
    "5 levels x 2 flats": transfer_without_darks,
    "pair, ratio 4": pair(4),
    "pair, ratio 100": pair(100),
    "one image": image(1),
    "one image, 1/30 of the light": image(1 / 30),
}


def row(found: list[NoiseEstimate], sensor: Sensor) -> list[str]:
    known = [estimate for estimate in found if estimate.verdict != "unusable"]
    cells = [f"{len(known)}/{len(found)}", f"{sum(estimate.verdict == 'good' for estimate in found)}"]
    for name, truth in (("gain", sensor.gain), ("read_noise", sensor.read_noise)):
        value, error = (np.array([getattr(estimate, name + suffix) for estimate in known]) for suffix in ("", "_error"))
        off = np.abs(value / truth - 1) if len(known) else np.full(1, np.nan)
        cells += [f"{np.median(off):.2%}", f"{np.quantile(off, 0.95):.2%}", f"{np.mean(np.abs(value - truth) <= 2 * error):.0%}"]
    return cells


def told(name: str, estimate: NoiseEstimate, dn: float) -> list[str]:
    gain, read = (f"{value * dn:.3g} +- {error * dn:.2g}" for value, error in (
        (estimate.gain, estimate.gain_error), (estimate.read_noise, estimate.read_noise_error)))  # fmt: skip
    return [name, gain, read, estimate.verdict, estimate.reason]


def measure_bracket(folder: Path) -> None:
    """Gain and read noise in DN of every raw alone and of every pair, shorter exposure first."""
    raws = RawFolderDataset(filepath=str(folder)).load()
    frames = dict(sorted(((name, raw()) for name, raw in raws.items()), key=lambda item: item[1].exposure_s))
    tables.head("exposure, s", "gain, DN per electron", "read noise, DN", "verdict", "reason")
    for frame in frames.values():
        tables.row(*told(f"{frame.exposure_s:.4g}", image_estimate(frame), range_dn(frame)))
    for short, long in combinations(frames.values(), 2):
        estimate = pair_estimate(short, long, long.exposure_s / short.exposure_s, PairLimits(0.2, 32, 0.4))
        tables.row(*told(f"{short.exposure_s:.4g} with {long.exposure_s:.4g}", estimate, range_dn(short)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--side", type=int, default=600)
    parser.add_argument("--iso", type=int, nargs="*", choices=list(CAMERA), default=list(CAMERA))
    parser.add_argument("--method", default="", help="only methods whose name holds this")
    parser.add_argument("--bracket", type=Path)
    options = parser.parse_args()
    if options.bracket:
        measure_bracket(options.bracket)
        return
    figures = ("usable", "good", "gain median", "95 %", "covered", "read noise median", "95 %", "covered")
    tables.head("method", "CFA", "ISO", *figures)
    for name, method in {name: method for name, method in METHODS.items() if options.method in name}.items():
        for cfa in CFAS:
            for iso in options.iso:
                k, read, row_noise, tail = CAMERA[iso]
                sensor = Sensor(k, read, row_noise, tail=tail)
                found = [method(sensor, CFAS[cfa], np.random.default_rng(seed), options.side) for seed in range(options.repeats)]
                tables.row(name, cfa, iso, *row(found, sensor))


if __name__ == "__main__":
    main()
