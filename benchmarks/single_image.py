"""Noise of one frame against a plain estimator: `python benchmarks/single_image.py [--draws N]`.

Scenes are photographs in linear light, as they are (their own grain counts as error here, though no method could know
it) and through a lens blur of 0.8 sites (modulation 50 % at 0.23 cycles per site), which takes their grain away.
LOWLIGHT_TEST_DATA names a folder with `photos/` for more scenes than those of scikit-image.
The peer, in the same runs: Haar HH coefficients per colour plane, their MAD in 20 sets of equal mean, a straight line.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tables
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.io import imread
from skimage.transform import downscale_local_mean

from lowlight_kedro.datasets.demo import read_photograph
from lowlight_kedro.sensor.calibration.single_image import from_image
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from lowlight_kedro.sensor.noise import PoissonGaussian
from lowlight_kedro.sensor.simulate import Camera, scene_light

STEP = 1 / 15871
A7S2 = {100: (0.0956, 1.007), 1600: (1.5301, 6.299), 25600: (24.481, 25.853)}
CAMERA = Camera("A7S II", 512, 16383, (0.5, 1.0, 0.6))
DEMO = ["coffee.png", "chelsea.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png"]
PHOTOS = Path(os.environ.get("LOWLIGHT_TEST_DATA", "../shared/data")) / "photos"


def scenes() -> Iterator[tuple[str, NDArray]]:
    """Class and light of every scene; large photographs averaged 2 x 2 in linear light."""
    for name in DEMO:
        yield "scikit-image", scene_light(read_photograph(name, 1), CAMERA, 0.9)
    for folder in ("wallpapers", "plasma", "sunhays80"):
        for path in sorted((PHOTOS / folder).glob("*.*"))[1:26:6]:
            light = scene_light(imread(path)[..., :3], CAMERA, 0.9)
            yield folder, downscale_local_mean(light, (1, 2, 2)).astype(np.float32)


def plain(signal: NDArray) -> tuple[float, float]:
    """Gain and read noise of the peer, Bayer only."""
    planes = [signal[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    means, details = [], []
    for plane in planes:
        a, b, c, d = (plane[row : plane.shape[0] // 2 * 2 : 2, column : plane.shape[1] // 2 * 2 : 2] for row in (0, 1) for column in (0, 1))
        means.append(((a + b + c + d) / 4).ravel())
        details.append(((a - b - c + d) / 2).ravel())
    mean, detail = np.concatenate(means), np.concatenate(details)
    sets = np.array_split(np.argsort(mean), 20)
    variance = [(np.median(np.abs(detail[part])) / 0.6745) ** 2 for part in sets]
    gain, offset = np.polyfit([mean[part].mean() for part in sets], variance, 1, w=1 / np.maximum(variance, 1e-12))
    return float(gain), float(np.sqrt(max(offset, 0)))


def shoot(light: NDArray, iso: int, ratio: float, cfa: tuple, seed: list[int]) -> tuple[NDArray, float, float]:
    gain, read_noise = np.array(A7S2[iso]) * STEP
    signal = PoissonGaussian(gain, read_noise).sample(sample(light, cfa) / ratio, np.random.default_rng(seed))
    return np.minimum(np.rint(signal / STEP) * STEP, 1), gain, read_noise


def row(lights: list[NDArray], iso: int, ratio: float, cfa: tuple, draws: int) -> str:
    """One line of the table; errors over usable frames, coverage over all that have a number."""
    error, read, peer, gain_in, read_in, usable, seconds, sites = [], [], [], [], [], 0, 0.0, 0
    for number, light in enumerate(lights):
        for draw in range(draws):
            signal, gain, read_noise = shoot(light, iso, ratio, cfa, [draw, number])
            started = time.process_time()
            found = from_image(signal, cfa, step=STEP)
            seconds, sites = seconds + time.process_time() - started, sites + signal.size
            if found.verdict == "unusable":
                continue
            usable += 1
            error.append(abs(found.gain / gain - 1))
            read.append(abs(found.read_noise / read_noise - 1))
            gain_in.append(abs(found.gain - gain) < 2 * found.gain_error)
            read_in.append(abs(found.read_noise - read_noise) < 2 * found.read_noise_error)
            if cfa == BAYER_RGGB:
                peer.append(abs(plain(signal)[0] / gain - 1))
    if not usable:
        return [f"0/{len(lights) * draws}", *"-----", f"{seconds / sites * 1e6:.2f}"]
    other = f"{np.median(peer):.1%}, x{np.median(peer) / np.median(error):.1f}" if peer else "-"
    return [
        f"{usable}/{len(lights) * draws}", f"{np.median(error):.1%} / {np.quantile(error, 0.9):.0%}", other, f"{np.mean(gain_in):.0%}",
        f"{np.median(read):.1%}", f"{np.mean(read_in):.0%}", f"{seconds / sites * 1e6:.2f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1)
    draws = parser.parse_args().draws
    every = list(scenes())
    figures = ("usable", "gain error, median / 90 %", "plain, times ours", "in 2 errors", "read error", "in 2 errors", "CPU s/MP")
    tables.head("scenes", "ISO", "exposure 1/", *figures)
    for blur in (0.8, 0.0):
        for kind in dict.fromkeys(kind for kind, _ in every):
            lights = [gaussian_filter(light, (0, blur, blur)) if blur else light for name, light in every if name == kind]
            for iso, ratio in ((1600, 1), (1600, 10), (1600, 100), (25600, 10), (25600, 100), (100, 1), (100, 10)):
                title = f"{kind}{'' if blur else ', as is'}"
                tables.row(title, iso, ratio, *row(lights, iso, ratio, BAYER_RGGB, draws))
    lights = [gaussian_filter(light, (0, 0.8, 0.8)) for _, light in every]
    for iso, ratio in ((1600, 10), (1600, 100)):
        tables.row("all, X-Trans", iso, ratio, *row(lights, iso, ratio, XTRANS, draws))


if __name__ == "__main__":
    main()
