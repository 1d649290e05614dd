"""How true is the standard deviation that the mean's response tells? `python benchmarks/uncertainty.py`, from the root of the repository.

The prior is a Gaussian N(m, C) on 3 x 18 x 18 values (standard deviation 0.5, neighbours and channels correlated), its denoiser
is exact and its posterior known. `response_std` runs over `noise_map`, whose mean is exact too. Per cell, over the values of
`--measurements` measurements, the ratio to the exact standard deviation:

    its mean; root mean square error of a value

ideal 1 and 0, measured and unmeasured values apart. s = 0.3, or s falls from 0.3 to 0.05 over the width.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import tables
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from lowlight_kedro.restoration.guidance import noise_map
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.restoration.uncertainty import response_std
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from tests.diffusion.gaussian import Gaussian

SHAPE = (3, 18, 18)
LAYOUTS = {"RGB": None, "Bayer": BAYER_RGGB, "X-Trans": XTRANS}
LEVELS = {"s = 0.3": (0.3, 0.3), "s from 0.3 to 0.05": (0.3, 0.05)}  # in the first and the last column


def observed(layout: str) -> Tensor:
    cfa = LAYOUTS[layout]
    return torch.ones(1, *SHAPE) if cfa is None else torch.from_numpy(masks(cfa, SHAPE[1:])).to(torch.float64)[None]


def noise_level(name: str) -> Tensor:
    left, right = LEVELS[name]
    return (left * (right / left) ** torch.linspace(0, 1, SHAPE[2])).expand(1, *SHAPE).clone()


def mean_of(prior: Gaussian, measurement: Measurement) -> Tensor:
    mean = noise_map(prior.denoiser, measurement).mean
    assert mean is not None
    return mean()


def ratios(mask: Tensor, s: Tensor, asked: argparse.Namespace, probes: int) -> Tensor:
    """What `response_std` tells over the exact standard deviation, (measurements, 3, H, W)."""
    prior, generator = Gaussian.smooth(SHAPE), torch.Generator().manual_seed(0)
    exact = prior.posterior(prior.mean[None], (mask / s.square()).flatten())[1].diag().sqrt().reshape(SHAPE)
    found = []
    for truth in prior.sample(asked.measurements, generator)[:, None]:
        measurement = Measurement(mask * (truth + s * torch.randn(truth.shape, generator=generator)), mask, s)
        std = response_std(
            partial(mean_of, prior), measurement, mean_of(prior, measurement), probes=probes, spacing=asked.spacing,
            reach=asked.reach, step=asked.step, generator=generator,
        )  # fmt: skip
        found.append(std / exact)
    return torch.cat(found)


def cell(ratio: Tensor, where: Tensor) -> str:
    values = ratio[:, where[0]]
    return f"{values.mean():.3f}; {(values - 1).square().mean().sqrt():.3f}" if values.numel() else "-"


def rows(asked: argparse.Namespace) -> Iterator[list[str]]:
    for layout, probes in product(LAYOUTS, asked.probes):
        mask, cells = observed(layout), []
        for level in LEVELS:
            ratio = ratios(mask, noise_level(level), asked, probes)
            cells += [cell(ratio, mask > 0), cell(ratio, mask == 0)]
        yield [layout, str(probes), *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--spacing", type=int, default=5)
    parser.add_argument("--reach", type=int, default=4)
    parser.add_argument("--step", type=float, default=1.0)
    parser.add_argument("--measurements", type=int, default=8)
    asked = parser.parse_args()
    head = ["layout", "probes", *(f"{level}, {kind}" for level in LEVELS for kind in ("measured", "unmeasured"))]
    tables.head(*head)
    for cells in rows(asked):
        tables.row(*cells)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    main()
