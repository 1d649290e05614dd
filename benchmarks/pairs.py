"""What the pair checks measure on a real bracket, what they are worth there, and what they cost at 12 and 24 megapixels.

python benchmarks/pairs.py [folder with sample1.dng, sample2.dng, sample3.dng]
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
from tables import head, row

from lowlight_kedro.datasets.demo import read_photograph
from lowlight_kedro.datasets.raw import read_frame
from lowlight_kedro.evaluation.metrics import Reference, measure, psnr, refer
from lowlight_kedro.sensor.alignment import PairCheck, PairLimits, check_pair
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from lowlight_kedro.sensor.demosaic import demosaic
from lowlight_kedro.sensor.demosaic.interpolation import malvar2004
from lowlight_kedro.sensor.frame import Frame, normalise
from lowlight_kedro.sensor.noise import CameraNoise
from lowlight_kedro.sensor.simulate import Camera, scene_light

LIMITS = PairLimits(max_ratio_error=0.12, max_shift=32, max_moving=0.3)
RANGE = 16383 - 512
NOISE = CameraNoise(1.5301 / RANGE, 6.299 / RANGE, row_noise=0.989 / RANGE, white=None)  # Sony A7S II, ISO 1600


def light_of(frame: Frame) -> np.ndarray:
    return demosaic(frame, malvar2004)


def compare(frames: tuple[Frame, Frame], check: PairCheck) -> list[str]:
    """PSNR of the scaled short exposure (demosaiced, no denoising) against the long one: as shot, moved, moved and masked."""
    short, long = frames
    scaled, lines = light_of(short), []
    shift = (check.shift_y + check.residual_y, check.shift_x + check.residual_x)
    ways = (((0.0, 0.0), check.exposure_ratio, False), (shift, check.measured_ratio, False), (shift, check.measured_ratio, True))
    for moved, ratio, mask in ways:
        reference: Reference = refer(short, long, None, moved, check.measured_ratio if mask else None, light_of)
        values = measure(reference.of(scaled) * np.float32(ratio), reference.light, {"psnr": psnr}, reference.mask if mask else None)
        lines.append(f"{values['psnr']:.2f} dB" + (f" on {reference.mask.mean():.0%}" if mask else ""))
    return lines


def bracket(folder: Path) -> None:
    frames = {number: read_frame(folder / f"sample{number}.dng") for number in (1, 2, 3)}
    head("pair", "nominal", "measured", "shift (y, x)", "moving", "verdict", "s", "scaled as shot", "moved", "moved and masked")
    for short, long, nominal in ((2, 1, 4.0), (1, 3, 4.0), (2, 3, 16.0)):
        pair = frames[short], frames[long]
        begin = time.perf_counter()
        check = check_pair(normalise(pair[0]), normalise(pair[1]), pair[0].cfa, nominal, LIMITS)
        seconds = time.perf_counter() - begin
        row(
            f"sample{short}, sample{long}", f"{nominal:g}", f"{check.measured_ratio:.3f} +- {check.ratio_error:.3f}",
            f"{check.shift_y + check.residual_y:.1f}, {check.shift_x + check.residual_x:.1f}", f"{check.moving_fraction:.1%}",
            f"{check.verdict} {check.reason}".strip(), f"{seconds:.1f}", *compare(pair, check),
        )  # fmt: skip


def simulated() -> None:
    """Photographs of scikit-image, mirrored to 12 and 24 megapixels, and moved by (6, 12)."""
    head("megapixels", "period", "ratio", "measured", "shift (y, x)", "moving", "verdict", "s")
    camera = Camera("simulated", 512, 16383, (0.5, 1.0, 0.6))
    for megapixels, cfa, ratio in ((12, BAYER_RGGB, 100), (12, BAYER_RGGB, 300), (24, XTRANS, 300)):
        side = np.sqrt(megapixels * 1e6 / 6)
        light = scene_light(read_photograph("astronaut.png", 1), camera, 0.9)
        shape = (int(2 * side), int(3 * side))
        light = np.pad(light, ((0, 0), (0, shape[0] + 24 - light.shape[1]), (0, shape[1] + 24 - light.shape[2])), "symmetric")
        rng = np.random.default_rng(0)
        short = NOISE.sample(sample(light[:, 12:-12, 12:-12] / ratio, cfa), rng).astype(np.float32)
        long = NOISE.sample(sample(light[:, 6:-18, 0:-24], cfa), rng).astype(np.float32)
        begin = time.perf_counter()
        check = check_pair(short, long, cfa, ratio, LIMITS)
        row(
            megapixels, len(cfa), ratio, f"{check.measured_ratio:.2f} +- {check.ratio_error:.2f}",
            f"{check.shift_y + check.residual_y:.2f}, {check.shift_x + check.residual_x:.2f}", f"{check.moving_fraction:.2%}",
            f"{check.verdict} {check.reason}".strip(), f"{time.perf_counter() - begin:.1f}",
        )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        bracket(Path(sys.argv[1]))
    simulated()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
