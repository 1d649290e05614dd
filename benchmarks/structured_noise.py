"""Row noise, black level, clipping and outliers, handled or not: `python benchmarks/structured_noise.py`, from the root of the repository.

Priors are Gaussians N(m, C) whose denoiser is exact, so that the posterior mean of the light is known, offsets integrated
out: row noise in closed form, clipping by Gibbs sampling, outliers by leaving them out. Each table says how far a way of
restoring is from it, in posterior standard deviations, root mean square. Three tables (`--tables`):

    offsets: the search for row offsets and black level alone, 16 x 24 pixels, Bayer, white balance 2, 1, 1.6
    restoration: `posterior_mean` as a whole, 12 x 14 pixels, Bayer, white balance 1.25, 1, 1.5, s = 0.1 on green
    tails: the factor on s^2 of one outlier, in closed form and at its fixed point

The scenes are those of the tests, so pytest has to be installed.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import tables
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from lowlight_kedro.restoration import saturation
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.restoration.observation import Observation
from lowlight_kedro.restoration.offsets import Spread, shift
from lowlight_kedro.restoration.passes import LOCAL_REACH
from lowlight_kedro.restoration.residuals import student_factor
from lowlight_kedro.restoration.settings import Structure
from lowlight_kedro.sensor.cfa import BAYER_RGGB, masks
from lowlight_kedro.sensor.noise import CameraNoise
from tests.restoration import test_restore as bed
from tests.restoration.test_offsets import GAINS, MASK, Scene, design

STEPS = (1, 2, 3)
WHITE = 0.65  # clipping level of the restoration table, signal units: a fifth of the photosites
HOT, OUTLYING = 30.0, 0.01  # outliers: standard deviations, fraction of the photosites
NU = 4.0


# the search for offsets


def counted(scene: Scene) -> Tensor:
    """Offsets as noise of each photosite."""
    variance = scene.spread.variance(scene.s)
    return scene.denoised(scene.y, extra=GAINS.square() * (variance[0] + variance[-1]))


def alternated(scene: Scene, others: float, steps: int) -> Tensor:
    """b <- sum g (y - D) w / (1 / T + sum g^2 w), w = 1 / (r^2 + s^2), r^2 of a prior of variance `others` on single values."""
    g, variance = design(), scene.spread.variance(scene.s)
    s2 = scene.s.square()
    weight = (1 / (s2 + s2 * others / (s2 + others))).flatten()
    b, x = torch.zeros(len(scene.y), len(variance), dtype=g.dtype), scene.denoised(scene.y)
    for _ in range(steps):
        b = ((scene.y - x).flatten(1) * weight) @ g / (1 / variance + (g.square() * weight[:, None]).sum(0))
        x = scene.denoised(scene.y - torch.cat([MASK * shift(one, GAINS) for one in b]))
    return x


def offset_rows(draws: int) -> Iterator[list[str]]:
    scenes = [
        Scene(Spread(rows=0.1), draws=draws),
        Scene(Spread(rows=0.1), left=0.3, right=0.3, reach=3.0, draws=draws),
        Scene(Spread(rows=0.1, black=0.2), draws=draws),
        Scene(Spread(black=0.2), reach=1.0, draws=draws),
    ]
    yield [
        "offsets",
        "rows 0.1, s 0.3 / 0.05 by half",
        "rows 0.1, s 0.3, smoother prior",
        "rows 0.1 + black 0.2",
        "black 0.2, rougher prior",
    ]
    yield ["counted per photosite", *(f"{scene.bias(counted(scene)):.2f}" for scene in scenes)]
    ways: dict[str, Callable[[Scene, int], Tensor]] = {
        "alternation, weights 1 / (r^2 + s^2)": lambda scene, steps: alternated(scene, 0.25, steps),
        "alternation, weights 1 / s^2": lambda scene, steps: alternated(scene, 0.0, steps),
        "score over 1 / T + k, then conjugate gradients": lambda scene, steps: scene.estimated(steps)[0],
    }
    for name, way in ways.items():
        cells = [" / ".join(f"{scene.bias(way(scene, steps)):.2f}" for steps in STEPS) for scene in scenes]
        yield [f"{name}, {' / '.join(map(str, STEPS))} steps", *cells]


# whole restorations


@dataclass(frozen=True)
class Shot:
    """A signal (H, W), its noise model, the exact mean and standard deviation (3, H, W), and by name the values that are compared."""

    signal: NDArray
    noise: CameraNoise
    mean: NDArray
    std: NDArray
    places: dict[str, NDArray]

    @property
    def observation(self) -> Observation:
        return Observation(bed.exposure_of(self.signal, self.noise), bed.SCALING, bed.CPU, bed.FULL)

    def bias(self, x: NDArray, place: str) -> float:
        """Mean square of the error in standard deviations."""
        return float(np.square((x - self.mean) / self.std)[self.places[place]].mean())


Way = Callable[[Shot], NDArray]
EVERYWHERE = {"all values": np.ones(bed.SHAPE, bool)}


def with_offsets(spread: Spread, frames: int, rng: np.random.Generator) -> Iterator[Shot]:
    noise = bed.camera(row_noise=spread.rows, black_error=spread.black)
    channels, (gain, std) = masks(BAYER_RGGB, bed.SHAPE[1:]).argmax(0), bed.joint(spread)
    for truth in bed.truths(frames):
        signal = noise.sample(bed.OPERATOR.signal(truth).numpy(), rng, channels)
        yield Shot(signal, noise, bed.exact_mean(signal, gain), std.reshape(bed.SHAPE), EVERYWHERE)


def with_clipping(frames: int, rng: np.random.Generator) -> Iterator[Shot]:
    """Three places: clipped photosites, values that are raised because all sites around are clipped, and the others."""
    noise = bed.camera(white=WHITE)
    for truth in bed.truths(frames):
        signal = noise.sample(bed.OPERATOR.signal(truth).numpy(), rng)
        exact, std, hit = bed.sampled_truncation(signal, WHITE, rng)
        shot = Shot(signal, noise, exact, std, {"clipped values": np.isin(np.arange(exact.size), hit).reshape(exact.shape)})
        raised = shot.observation.project(torch.full((1, *bed.SHAPE), -torch.inf))[0].numpy() > -np.inf
        shot.places.update({"raised values": raised & ~shot.places["clipped values"], "other values": ~raised})
        yield shot


def with_outliers(fraction: float, frames: int, rng: np.random.Generator) -> Iterator[Shot]:
    """The exact answer is told which photosites are hot."""
    noise = bed.camera()
    s = bed.GAINS * noise.read_noise
    for truth in bed.truths(frames):
        signal = noise.sample(bed.OPERATOR.signal(truth).numpy(), rng)
        hot = rng.uniform(size=signal.shape) < fraction
        y = bed.OPERATOR.embed(torch.from_numpy(signal))[None]
        precision = torch.from_numpy(masks(BAYER_RGGB, signal.shape) & ~hot) / s.square()
        mean, covariance = bed.PRIOR.posterior(y.flatten(1), precision.flatten())
        std = covariance.diag().sqrt().reshape(bed.SHAPE).numpy()
        yield Shot(signal + hot * HOT * noise.read_noise, noise, mean.reshape(bed.SHAPE).numpy(), std, EVERYWHERE)


def whole(refreshes: int, structure: Structure) -> Way:
    return lambda shot: bed.restored(bed.exposure_of(shot.signal, shot.noise), refreshes, structure)


def raised(x: Tensor, shot: Shot) -> NDArray:
    """`x` at least at the clipping level at the clipped photosites, and only there."""
    places, levels = shot.observation.places, bed.OPERATOR.embed(torch.from_numpy(shot.signal)).flatten()
    x = x.double().flatten()
    x[places] = x[places].maximum(levels[places])
    return x.reshape(bed.SHAPE).numpy()


def as_unmeasured(shot: Shot) -> NDArray:
    """The clipped photosites tell nothing but their bound, after everything."""
    observation = shot.observation
    measurement = observation.measurement(observation.first(LOCAL_REACH))
    measurement.mask.view(-1)[observation.places] = 0
    sigma = torch.where(measurement.mask > 0, measurement.s, SIGMA_UNKNOWN)
    return raised(bed.denoiser(measurement.y * measurement.mask, sigma), shot)


def with_exact_cavities(updates: int) -> Way:
    """Expectation propagation where r^2 and c come from the exact posterior instead of the leverage."""

    def way(shot: Shot) -> NDArray:
        y, hit = bed.OPERATOR.embed(torch.from_numpy(shot.signal)).flatten(), shot.observation.places
        s = (bed.GAINS * shot.noise.read_noise).expand(1, *bed.SHAPE).flatten()
        mask, value, level = torch.from_numpy(masks(BAYER_RGGB, bed.SHAPE[1:])).flatten(), y.clone(), s.clone()
        for _ in range(updates):
            mean, covariance = bed.PRIOR.posterior(value[None], mask / level.square())
            variance = covariance.diag()[hit]
            others = 1 / (1 / variance - 1 / level[hit].square())
            centre = others * (mean[0, hit] / variance - value[hit] / level[hit].square())
            value[hit], level[hit] = saturation.one_sided(y[hit], s[hit], centre, others)
        return raised(bed.PRIOR.posterior(value[None], mask / level.square())[0], shot)

    return way


def restoration_rows(frames: int) -> Iterator[list[str]]:
    """Not handled is with two refreshes that learn nothing but the noise level."""
    yield ["restored by posterior_mean", "not handled", *(f"{count} refresh{'es' * (count > 1)}" for count in STEPS)]
    student, full = Structure(tails_nu=NU), bed.FULL
    clipped = list(with_clipping(frames, np.random.default_rng(0)))
    cases: dict[str, tuple[Iterable[Shot], list[Way]]] = {
        name: (shots, [whole(2, bed.PLAIN), *(whole(count, structure) for count in STEPS)])
        for name, shots, structure in (
            ("rows 0.05", with_offsets(Spread(rows=0.05), frames, np.random.default_rng(0)), full),
            ("rows 0.03, black 0.05", with_offsets(Spread(rows=0.03, black=0.05), frames, np.random.default_rng(0)), full),
            (
                f"{OUTLYING:.0%} outliers of {HOT:.0f} s, tails_nu {NU:.0f}",
                with_outliers(OUTLYING, frames, np.random.default_rng(0)),
                student,
            ),
            (f"no outliers, tails_nu {NU:.0f}", with_outliers(0.0, frames, np.random.default_rng(0)), student),
            ("clipped", clipped, full),
        )
    }
    cases["clipped, exact r^2, updates instead"] = clipped, [with_exact_cavities(count) for count in (0, *STEPS)]
    cases["clipped, as unmeasured"] = clipped, [as_unmeasured]
    for name, (shots, ways) in cases.items():
        found = [(shot, [way(shot) for way in ways]) for shot in shots]
        for place in found[0][0].places:
            biases = np.array([[shot.bias(x, place) for x in results] for shot, results in found if shot.places[place].any()])
            yield [f"{name}: {place}", *(f"{bias:.2f}" for bias in np.sqrt(biases.mean(0)))]


# the factor of one outlier


def tail_rows() -> Iterator[list[str]]:
    yield ["residual / s", "r / s", "f = (nu + e^2 / (r^2 + s^2)) / (nu + 1)", "fixed point"]
    for residual, r in product((3.0, 10.0, 30.0), (0.5, 1.0, 2.6)):
        h = r**2 / (1 + r**2)
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        found = student_factor(Measurement(0 * one, one, one), -residual * (1 - h) * one, h, NU)
        yield [f"{residual:.0f}", f"{r}", f"{(NU + residual**2 / (r**2 + 1)) / (NU + 1):.1f}", f"{float(found):.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=["offsets", "restoration", "tails"], default=["offsets", "restoration", "tails"])
    parser.add_argument("--draws", type=int, default=200, help="of the table `offsets`")
    parser.add_argument("--frames", type=int, default=12, help="of the table `restoration`")
    asked = parser.parse_args()
    printed = {"offsets": lambda: offset_rows(asked.draws), "restoration": lambda: restoration_rows(asked.frames), "tails": tail_rows}
    for name in asked.tables:
        for line, cells in enumerate(printed[name]()):
            (tables.row if line else tables.head)(*cells)


if __name__ == "__main__":
    main()
