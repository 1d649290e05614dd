"""How a clean image is made noisy in training. Plug-ins: (x0, draws) -> Corrupted, each image from its own draws."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lowlight_kedro.diffusion.order import Draws
from lowlight_kedro.diffusion.scaling import Scaling


@dataclass(frozen=True)
class Corrupted:
    """`x` (B, C, H, W) with noise of level `sigma` (broadcastable), and the weight of each pixel's loss."""

    x: Tensor
    sigma: Tensor
    weight: Tensor | float = 1.0


Corruption = Callable[[Tensor, Draws], Corrupted]


def lognormal_sigma(x0: Tensor, draws: Draws, p_mean: float, p_std: float) -> Tensor:
    """One level per image, ln sigma ~ N(P_mean, P_std^2), shape (B, 1, 1, 1)."""
    return (draws.normal(1, 1, 1) * p_std + p_mean).exp().to(x0, non_blocking=True)


def uniform(*, P_mean: float, P_std: float, scaling: Scaling) -> Corruption:  # noqa: N803 - the paper's names
    """The unconditional EDM prior: one noise level for the whole image (Karras et al. 2022, equation 2)."""
    del scaling  # levels are in network units; the argument is what all corruptions share

    def corrupt(x0: Tensor, draws: Draws) -> Corrupted:
        sigma = lognormal_sigma(x0, draws, P_mean, P_std)
        return Corrupted(x0 + sigma * draws.field(x0), sigma)

    return corrupt


CORRUPTIONS: dict[str, Callable[..., Corruption]] = {"uniform": uniform}
