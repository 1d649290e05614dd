"""From a denoiser to images: the same samplers draw from the prior and, with guidance, from the posterior."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal

Sampler = Callable[..., Iterator[Tensor]]


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Noise levels from `sigma_max` to `sigma_min`, then 0: (steps + 1,) (Karras et al. 2022, equation 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])


def steps_within(sampler: Sampler, evaluations: int) -> int:
    """How many steps, at least 1, a sampler makes with so many evaluations of the denoiser; the last step takes 1.

    A sampler with options bound, `functools.partial(edm, churn=10)`, counts as the sampler.
    """
    while isinstance(sampler, partial):
        sampler = sampler.func
    per_step: int = getattr(sampler, "evaluations_per_step", 1)
    return max(1, (evaluations - 1) // per_step + 1)


def _level(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.to(x).reshape(1, 1, 1, 1)


def heun_step(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
    """From level `sigma` to `following`: the mean of the slopes at both ends; to level 0 Euler, because D(x; 0) is not known."""
    slope = (x - denoiser(x, sigma)) / sigma
    ahead = x + (following - sigma) * slope
    if following > 0:
        slope = (slope + (ahead - denoiser(ahead, following)) / following) / 2
        ahead = x + (following - sigma) * slope
    return ahead


def heun(denoiser: DenoiserFunction, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Second-order steps of the probability-flow ODE dx/dsigma = (x - D) / sigma (Karras et al. 2022, algorithm 1).

    2 evaluations a step, 1 in the last. `x` (B, C, H, W) holds noise of level sigmas[0]; yields x after each step.
    """
    del generator  # deterministic; the argument is what all samplers share
    for sigma, following in pairwise(sigmas):
        x = heun_step(denoiser, x, _level(sigma, x), _level(following, x))
        yield x


heun.evaluations_per_step = 2  # type: ignore[attr-defined]


def edm(
    denoiser: DenoiserFunction, x: Tensor, sigmas: Tensor, generator: torch.Generator, *, churn: float = 5.0,
    churn_min: float = 0.0, churn_max: float = float("inf"), inflation: float = 1.0,
) -> Iterator[Tensor]:  # fmt: skip
    """The stochastic sampler of EDM (Karras et al. 2022, algorithm 2): fresh noise before each Heun step.

    sigma' = (1 + gamma) sigma, gamma = min(churn / steps, sqrt(2) - 1) for sigma in [churn_min, churn_max], else 0;
    x <- x + inflation sqrt(sigma'^2 - sigma^2) noise; then `heun_step` from sigma'. Theirs are S_churn, S_tmin, S_tmax
    and S_noise. The noise forgets earlier errors of denoiser and solver and adds errors of its own, because every step
    becomes longer; churn = 0 is `heun`. 2 evaluations a step, 1 in the last; yields x after each step.
    """
    most = min(churn / (len(sigmas) - 1), 2**0.5 - 1)
    for sigma, following in pairwise(sigmas):
        gamma = most if churn_min <= sigma <= churn_max else 0.0
        level = _level((1 + gamma) * sigma, x)
        x = x + inflation * (level.square() - _level(sigma, x).square()).clamp(min=0).sqrt() * standard_normal(x, generator)
        x = heun_step(denoiser, x, level, _level(following, x))
        yield x


edm.evaluations_per_step = 2  # type: ignore[attr-defined]


def ancestral_step(x: Tensor, mean: Tensor, sigma: Tensor, following: Tensor, generator: torch.Generator) -> Tensor:
    """P(x at `following` | x at `sigma`, x0 = mean): D + a (x - D) + sqrt(s'^2 (1 - a)) noise, a = (s' / s)^2."""
    keep = (following / sigma).square()
    x = mean + keep * (x - mean)
    if following > 0:
        x = x + following * (1 - keep).sqrt() * standard_normal(x, generator)
    return x


def ancestral(denoiser: DenoiserFunction, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Steps of the reverse SDE, `ancestral_step`, with D in place of x0.

    Exact where D does not change over a step; 1 evaluation a step. Yields x after each step.
    """
    for sigma, following in pairwise(sigmas):
        x = ancestral_step(x, denoiser(x, _level(sigma, x)), _level(sigma, x), _level(following, x), generator)
        yield x


def finish(states: Iterator[Tensor], on_step: Callable[[], object] = lambda: None) -> Tensor:
    """The last state of a sampler; `on_step` is called after each step."""
    for state in states:
        on_step()
        last = state
    return last


SAMPLERS: dict[str, Sampler] = {"ancestral": ancestral, "edm": edm, "heun": heun}
