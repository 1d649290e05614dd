"""What the noise models cost on a frame: seconds per 12 million photosites, Sony A7S II at ISO 1600.

    python benchmarks/noise_models.py [--megapixels 12]

Exact likelihoods are timed on a twelfth of the frame and scaled. Ratios are against PoissonGaussian in the same run.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from lowlight_kedro.sensor.noise import CameraNoise, NoiseModel, PoissonGaussian

RANGE = 16383 - 512  # DN
GAIN, READ, ROW, TAIL = 1.5301 / RANGE, 6.299 / RANGE, 0.989 / RANGE, -0.044
MODELS: dict[str, NoiseModel] = {
    "poisson_gaussian": PoissonGaussian(GAIN, READ),
    "poisson_gaussian, exact": PoissonGaussian(GAIN, READ, exact=True),
    "camera": CameraNoise(GAIN, READ, TAIL, ROW, black_error=0.3 / RANGE, step=1 / RANGE, floor=-512 / RANGE),
}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=12.0)
    pixels = parser.parse_args().megapixels * 1e6
    rng = np.random.default_rng(0)
    light = rng.uniform(0, 0.01, (int(pixels // 4000), 4000))
    few, first = light[: len(light) // 12], {}
    print(f"{'model':26}" + "".join(f"{what:>24}" for what in ("sample", "log_likelihood", "score")))
    for name, model in MODELS.items():
        observed = model.sample(few, rng)
        model.log_likelihood(observed[:2], few[:2])  # builds the tables
        scale = light.size / few.size
        times = [
            seconds(lambda: model.sample(light, rng)),  # noqa: B023
            seconds(lambda: model.log_likelihood(observed, few)) * scale,  # noqa: B023
            seconds(lambda: model.score(observed, few)) * scale,  # noqa: B023
        ]
        first = first or dict(enumerate(times))
        print(f"{name:26}" + "".join(f"{value:12.2f} s ({value / first[i]:5.1f} x)" for i, value in enumerate(times)))


if __name__ == "__main__":
    main()
