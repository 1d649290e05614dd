"""From a denoiser to images: the same samplers draw from the prior and, with guidance, from the posterior."""

from collections.abc import Callable, Iterator
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
    """How many steps, at least 1, a sampler makes with so many evaluations of the denoiser; the last step takes 1."""
    per_step: int = getattr(sampler, "evaluations_per_step", 1)
    return max(1, (evaluations - 1) // per_step + 1)


def _level(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.to(x).reshape(1, 1, 1, 1)


def heun(denoiser: DenoiserFunction, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Second-order steps of the probability-flow ODE dx/dsigma = (x - D) / sigma (Karras et al. 2022, algorithm 1).

    2 evaluations a step, 1 in the last. `x` (B, C, H, W) holds noise of level sigmas[0]; yields x after each step.
    """
    del generator  # deterministic; the argument is what all samplers share
    for sigma, following in pairwise(sigmas):
        slope = (x - denoiser(x, _level(sigma, x))) / _level(sigma, x)
        ahead = x + (following - sigma).to(x) * slope
        if following > 0:
            slope = (slope + (ahead - denoiser(ahead, _level(following, x))) / _level(following, x)) / 2
            ahead = x + (following - sigma).to(x) * slope
        x = ahead
        yield x


heun.evaluations_per_step = 2  # type: ignore[attr-defined]


def ancestral(denoiser: DenoiserFunction, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Steps of the reverse SDE: x <- D + a (x - D) + sqrt(s'^2 (1 - a)) noise, a = (s' / s)^2.

    Exact where D does not change over a step; 1 evaluation a step. Yields x after each step.
    """
    for sigma, following in pairwise(sigmas):
        mean = denoiser(x, _level(sigma, x))
        keep = float(following / sigma) ** 2
        x = mean + keep * (x - mean)
        if following > 0:
            x = x + float(following) * (1 - keep) ** 0.5 * standard_normal(x, generator)
        yield x


def finish(states: Iterator[Tensor], on_step: Callable[[], object] = lambda: None) -> Tensor:
    """The last state of a sampler; `on_step` is called after each step."""
    for state in states:
        on_step()
        last = state
    return last


SAMPLERS: dict[str, Sampler] = {"heun": heun, "ancestral": ancestral}
