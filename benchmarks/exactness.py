"""How far each guidance is from the exact posterior: `python benchmarks/exactness.py [--methods dps ...]`.

The prior is a Gaussian N(m, C) on 3 x 6 x 6 values (standard deviation 0.5, neighbours and channels correlated), its denoiser
is exact and its posterior known. Every method of GUIDANCE at its defaults; a draw is the method's own sampler if it has one,
else the samplers `heun` and `edm` over its denoiser from level 10 to 0.01. All begin at the exact mean plus noise: the state at
level 10 is then that of an exact sampler, and only guidance and solver are judged. Per cell

    bias of the mean, root mean square over the sites, in posterior standard deviations; variance of the draws / exact, mean
    over the sites

from `--draws` samples of one measurement, ideal 0 and 1; the posterior mean of a method that knows it, from 64 measurements.
`--markdown FILE` writes the table as well. `--start LEVEL` begins at that level around the local mean of the measurement instead,
as a restoration must; a method's own sampler keeps its level.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import tables
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from lowlight_kedro.diffusion.samplers import SAMPLERS, Sampler
from lowlight_kedro.restoration.guidance import GUIDANCE, Guidance
from lowlight_kedro.restoration.measurement import local_mean
from tests.restoration.guidance.scenes import MASKS, NOISES, Counted, drawn, repeated, scene

CASES = list(product(NOISES, MASKS))
MEASUREMENTS = 64  # for posterior means
FOLLOWING = ("heun", "edm")  # the samplers that follow a denoiser


def cost(counted: Counted) -> str:
    return f"{counted.evaluations}" + (f" + {counted.products} vjp" if counted.products else "")


def of_draws(
    guidance: Guidance, sampler: Sampler, mask: str, noise: str, evaluations: int, draws: int, start: float | None
) -> tuple[str, str]:
    """The cell and the cost of one sample."""
    one = scene(mask, noise)
    counted, many = Counted(one.prior.denoiser), repeated(one.measurement, draws)
    first = one.mean.expand_as(many.y) if start is None else local_mean(many.y, many.mask, 4)
    x = drawn(
        guidance(counted, many), first, evaluations, torch.Generator().manual_seed(1), sampler, sigma_max=10.0 if start is None else start
    )
    bias = ((x.mean(0) - one.mean[0]) / one.std[0]).square().mean().sqrt()
    ratio = (x.var(0) / one.std[0].square()).mean()
    return f"{bias:.3f}; {ratio:.2f}", cost(counted)


def of_mean(guidance: Guidance, mask: str, noise: str) -> tuple[str, str]:
    """The cell and the cost of one posterior mean."""
    many = scene(mask, noise, MEASUREMENTS)
    counted = Counted(many.prior.denoiser)
    mean = guidance(counted, many.measurement).mean
    assert mean is not None
    return f"{((mean() - many.mean) / many.std).square().mean().sqrt():.3f}; -", cost(counted)


def rows(names: list[str], budgets: list[int], draws: int, start: float | None) -> Iterator[list[str]]:
    for name in names:
        guidance = GUIDANCE[name]
        one = scene("rgb")
        known = guidance(one.prior.denoiser, one.measurement)
        if known.mean is not None:
            yield row(f"{name}, mean", [of_mean(guidance, mask, noise) for noise, mask in CASES])
        if known.draw is None and known.denoiser is None:
            continue
        for sampler, budget in product(["own"] if known.draw else FOLLOWING, budgets):
            follow = SAMPLERS.get(sampler, SAMPLERS["heun"])
            yield row(f"{name}, {sampler}", [of_draws(guidance, follow, mask, noise, budget, draws, start) for noise, mask in CASES])


def row(label: str, cells: list[tuple[str, str]]) -> list[str]:
    return [label, cells[0][1], *(cell for cell, _ in cells)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=sorted(GUIDANCE), default=sorted(GUIDANCE))
    parser.add_argument("--evaluations", nargs="+", type=int, default=[40, 100])
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--start", type=float)
    asked = parser.parse_args()
    head = ["method", "evaluations", *(f"{noise[:6]}. {mask}" for noise, mask in CASES)]
    floor = f"Sampling error of {asked.draws} draws: bias {asked.draws**-0.5:.3f}, variance of one site {(2 / asked.draws) ** 0.5:.3f}."
    print(floor)
    tables.head(*head)
    for cells in rows(asked.methods, asked.evaluations, asked.draws, asked.start):
        tables.row(*cells)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    main()
