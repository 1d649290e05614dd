"""Draws of the posterior by a prior on noise maps: their exact covariance on Gaussian priors, by method and evaluations.

    python benchmarks/reverse_sde.py [--prior smooth] [--mask bayer] [--noise 0.2 0.02] [--evaluations 10 20 40 100]

The 192-dimensional prior of the tests by default, s = 0.2 on the left half and 0.02 on the right. A draw is affine in its
noise, so its covariance is found without sampling: every unit of noise is sent through alone. In a cell: variance over
the exact one, mean of the left / the right half, and the least and most of all sites; the bias is in posterior standard
deviations. Methods: reverse_sde, the product; first order and second order (D averaged over both ends of a step, 2
evaluations), both with levels min(s, tau), unmeasured sites at 3 first; heun, the ODE of noise_map's denoiser.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import torch
from tables import head, row
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.diffusion.samplers import heun, karras_sigmas, steps_within
from lowlight_kedro.restoration.guidance import noise_map
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.diffusion.gaussian import Gaussian

MODULE = import_module("lowlight_kedro.restoration.guidance.noise_map")  # the package has the function under this name
SHAPE = (3, 8, 8)
COUNT = 192
Draw = Callable[[DenoiserFunction, Measurement, int, Callable[[], Tensor]], Tensor]


def last(states: Iterator[Tensor]) -> Tensor:
    *_, x = states
    return x


def product(denoiser: DenoiserFunction, one: Measurement, evaluations: int, noise: Callable[[], Tensor]) -> Tensor:
    MODULE.standard_normal = lambda like, generator: noise()
    draw = noise_map(denoiser, one).draw
    assert draw is not None
    return last(draw(one.y, evaluations, torch.Generator()))


def plain(denoiser: DenoiserFunction, one: Measurement, evaluations: int, noise: Callable[[], Tensor], order: int = 1) -> Tensor:
    """sigma = min(s, tau), tau geometric from the largest level to 0.002; unmeasured sites start at 3."""
    top = torch.where(one.mask > 0, one.s, 3.0)
    steps = (evaluations - 1) // order
    taus = torch.logspace(float(top.max().log10()), -2.7, steps + 1, dtype=torch.float64)
    x = torch.where(one.mask > 0, one.y, 3.0 * noise())
    for tau, following in pairwise(taus):
        sigma, ahead, eps = top.clamp(max=float(tau)), top.clamp(max=float(following)), noise()
        keep = (ahead / sigma).square()
        mean, jump = denoiser(x, sigma), ahead * (1 - keep).sqrt() * eps
        if order == 2:
            mean = (mean + denoiser(mean + keep * (x - mean) + jump, ahead)) / 2
        x = mean + keep * (x - mean) + jump
    return denoiser(x, top.clamp(max=float(taus[-1])))


def second(denoiser: DenoiserFunction, one: Measurement, evaluations: int, noise: Callable[[], Tensor]) -> Tensor:
    return plain(denoiser, one, evaluations, noise, order=2)


def ode(denoiser: DenoiserFunction, one: Measurement, evaluations: int, noise: Callable[[], Tensor]) -> Tensor:
    """Heun from the mean plus noise of level 2.5, which 1 evaluation finds, down to 0.002."""
    posterior = noise_map(denoiser, one)
    assert posterior.denoiser is not None
    assert posterior.mean is not None
    sigmas = karras_sigmas(steps_within(heun, evaluations - 1), 0.002, 2.5)
    return last(heun(posterior.denoiser, posterior.mean() + 2.5 * noise(), sigmas, torch.Generator()))


METHODS: dict[str, Draw] = {"reverse_sde": product, "first order": plain, "second order": second, "heun": ode}


def law(draw: Draw, prior: Gaussian, one: Measurement, evaluations: int) -> tuple[Tensor, Tensor]:
    """Mean (N,) and covariance (N, N) of the draws: each draw of noise is the unit of its own block of the batch."""
    used, blocks = 0, evaluations + 1
    batch = Measurement(one.y.expand(blocks * COUNT + 1, -1, -1, -1), one.mask, one.s)

    def impulses() -> Tensor:
        nonlocal used
        noise = torch.zeros(blocks * COUNT + 1, COUNT, dtype=torch.float64)
        noise[used * COUNT : (used + 1) * COUNT] = torch.eye(COUNT, dtype=torch.float64)
        used += 1
        return noise.reshape(-1, *SHAPE)

    answers = draw(prior.denoiser, batch, evaluations, impulses).flatten(1)
    responses = answers[:-1] - answers[-1]
    return answers[-1], responses.T @ responses


def falling(power: float) -> Gaussian:
    """A prior whose spectrum falls as 1 / f^power over a period of 32 pixels, channels correlated by 0.9; variance 0.25."""
    f = torch.fft.fftfreq(32, dtype=torch.float64)
    spectrum = torch.hypot(f[:, None], f[None]).clamp(min=1 / 32).pow(-power)
    row = torch.fft.ifft2(spectrum).real
    y, x = (g.flatten() for g in torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij"))
    space = row[(y[:, None] - y) % 32, (x[:, None] - x) % 32] / row[0, 0]
    channels = torch.full((3, 3), 0.9, dtype=torch.float64) + 0.1 * torch.eye(3, dtype=torch.float64)
    return Gaussian(torch.zeros(COUNT, dtype=torch.float64), 0.25 * torch.kron(channels, space), SHAPE)


PRIORS: dict[str, Callable[[], Gaussian]] = {
    "smooth": lambda: Gaussian.smooth(SHAPE),
    "white": lambda: Gaussian(torch.zeros(COUNT, dtype=torch.float64), 0.25 * torch.eye(COUNT, dtype=torch.float64), SHAPE),
    "f2": lambda: falling(2),
    "f3": lambda: falling(3),
}


def measure(prior: Gaussian, name: str, noise: tuple[float, float]) -> Measurement:
    generator = torch.Generator().manual_seed(0)
    mask = (
        torch.ones(1, *SHAPE) if name == "rgb" else torch.from_numpy(masks({"bayer": BAYER_RGGB, "xtrans": XTRANS}[name], SHAPE[1:]))[None]
    )
    s = torch.full((1, *SHAPE), noise[0], dtype=torch.float64)
    s[..., 4:] = noise[1]
    y = prior.sample(1, generator) + s * torch.randn(1, *SHAPE, dtype=torch.float64, generator=generator)
    return Measurement(mask.double() * y, mask.double(), s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", choices=PRIORS, default="smooth")
    parser.add_argument("--mask", choices=("rgb", "bayer", "xtrans"), nargs="+", default=("rgb", "bayer", "xtrans"))
    parser.add_argument("--noise", type=float, nargs=2, default=(0.2, 0.02))
    parser.add_argument("--evaluations", type=int, nargs="+", default=(10, 20, 40, 100))
    parser.add_argument("--method", choices=METHODS, nargs="+", default=list(METHODS))
    args = parser.parse_args()
    prior = PRIORS[args.prior]()
    head("mask", "method", *(f"{evaluations} evaluations" for evaluations in args.evaluations), "bias, largest")
    for name in args.mask:
        one = measure(prior, name, args.noise)
        exact, covariance = prior.posterior(one.y.flatten(1), (one.mask / one.s.square()).flatten())
        for method in args.method:
            cells, biases = [], []
            for evaluations in args.evaluations:
                mean, got = law(METHODS[method], prior, one, evaluations)
                ratio = (got.diag() / covariance.diag()).reshape(SHAPE)
                bias = ((mean - exact[0]).abs() / covariance.diag().sqrt()).max()
                halves = f"{float(ratio[..., :4].mean()):.3f} / {float(ratio[..., 4:].mean()):.3f}"
                cells.append(f"{halves} [{float(ratio.min()):.3f}, {float(ratio.max()):.3f}]")
                biases.append(float(bias))
            row(name, method, *cells, f"{max(biases):.1e}")


if __name__ == "__main__":
    main()
