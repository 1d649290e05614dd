"""Running means of the weights: by half-life (Karras et al. 2022), or with the power functions of EDM2 (Karras et al. 2024).

A plug-in returns how each of its means, by name, keeps its old value; the first is the one that is validated and exported.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor, nn

Keep = Callable[[int, int], float]  # (images after the update, images of the update) -> weight of the old mean, 0 to 1
POWER = "power_"  # name of a power-function mean: this and its sigma_rel
WIDEST = 12**-0.5  # sigma_rel of gamma = 0, the mean of all weights so far


def halflife(*, kimg: float, rampup: float) -> dict[str, Keep]:
    """One mean whose half-life is `kimg` thousand images, and at most `rampup` of the images seen, so that early weights are forgotten."""

    def keep(images: int, batch: int) -> float:
        return 0.5 ** (batch / min(kimg * 1000, max(images * rampup, 1e-8)))

    return {"halflife": keep}


def gamma_of(sigma_rel: float) -> float:
    """Exponent of the profile with this relative width: the root of (g + 2)^2 (g + 3) = (g + 1) / sigma_rel^2 (EDM2, equation 126).

    Raises:
        ValueError: wider than the mean of all weights, or not positive.
    """
    if not 0 < sigma_rel <= WIDEST:
        raise ValueError(f"sigma_rel must be in (0, {WIDEST:.4f}], got sigma_rel={sigma_rel}; EDM2 uses 0.05 and 0.10")
    cubic = Polynomial([2, 1]) ** 2 * Polynomial([3, 1]) - Polynomial([1, 1]) * sigma_rel**-2
    return max(0.0, float(cubic.roots().real.max()))


def power(*, sigma_rel: Sequence[float]) -> dict[str, Keep]:
    """Means of width sigma_rel * (images so far): beta = (1 - 1/t)^(gamma + 1) at update t (EDM2, equation 127).

    A weight at time tau <= t counts in proportion to tau^gamma. From stored means of two widths any other is made by `reconstruction`.

    Raises:
        ValueError: no width, one of them twice, or one out of range.
    """
    if not sigma_rel or len(set(sigma_rel)) < len(sigma_rel):
        raise ValueError(f"sigma_rel must hold different widths, at least one, got sigma_rel={list(sigma_rel)}")

    def keeping(exponent: float) -> Keep:
        return lambda images, batch: max(1 - batch / images, 0.0) ** exponent

    return {f"{POWER}{width}": keeping(gamma_of(width) + 1) for width in sigma_rel}


EMAS: dict[str, Callable[..., dict[str, Keep]]] = {"halflife": halflife, "power": power}


@torch.no_grad()
def follow(averages: Mapping[str, nn.Module], module: nn.Module, keeps: Mapping[str, float]) -> None:
    """Move each mean towards the weights of `module`, in place: mean = keep * mean + (1 - keep) * weights."""
    weights: list[Tensor] = list(module.parameters())
    for name, keep in keeps.items():
        means: list[Tensor] = list(averages[name].parameters())
        torch._foreach_lerp_(means, weights, 1 - keep)


def inner_products(t_a: np.ndarray, gamma_a: np.ndarray, t_b: np.ndarray, gamma_b: np.ndarray) -> np.ndarray:
    """Integral of p_a p_b over time, p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1) up to t and 0 after (EDM2, appendix C.3).

    With m = min(t_a, t_b): (ga + 1) (gb + 1) / (ga + gb + 1) * m^(ga + gb + 1) / (t_a^(ga + 1) t_b^(gb + 1)), by logarithms.
    """
    exponent = gamma_a + gamma_b + 1
    powers = exponent * np.log(np.minimum(t_a, t_b)) - (gamma_a + 1) * np.log(t_a) - (gamma_b + 1) * np.log(t_b)
    return (gamma_a + 1) * (gamma_b + 1) / exponent * np.exp(powers)


def reconstruction(times: Sequence[float], widths: Sequence[float], time: float, sigma_rel: float) -> np.ndarray:
    """Coefficients with which stored means come nearest to that of `sigma_rel` at `time`; times in any unit.

    Least squares between profiles: A c = b, A_ij = <p_i, p_j>, b_i = <p_i, p> (EDM2, algorithm 3).
    `times` and `widths` are those of the stored means.
    """
    t = np.asarray(times, np.float64) / time
    gamma = np.array([gamma_of(width) for width in widths])
    products = inner_products(t[:, None], gamma[:, None], t, gamma)
    scale = np.sqrt(np.diag(products))  # profiles of length 1: early, narrow ones are tall, which would spoil the rank
    wanted = inner_products(t, gamma, np.float64(1), np.float64(gamma_of(sigma_rel)))
    fractions = np.linalg.lstsq(products / np.outer(scale, scale), wanted / scale, rcond=None)[0] / scale
    return fractions / fractions.sum()  # a weight that never changed stays what it is
