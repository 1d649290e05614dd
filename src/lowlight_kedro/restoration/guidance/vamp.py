"""The posterior mean in a few evaluations of a prior that knows uniform levels only."""

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.guidance.posterior import Posterior, Table, interpolate
from lowlight_kedro.restoration.measurement import Measurement, local_mean

PROBE = 0.1  # step of the difference quotient over sigma: small for the denoiser, large for single precision
GAIN_LIMITS = (1e-3, 1 - 1e-3)  # of alpha: at 0 and 1 the next precision would be infinite or 0


def mean_gain(denoiser: DenoiserFunction, x: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Mean of the diagonal of J = dD/dx per image, (B, 1, 1, 1), by random signs (Hutchinson). 1 evaluation.

    The signs are the same for all images and calls: the result is a function of its input.
    """
    generator = torch.Generator(device=x.device).manual_seed(0)
    sign = 2.0 * torch.randint(0, 2, x.shape[1:], generator=generator, device=x.device).to(x) - 1
    moved = denoiser(x + PROBE * sigma * sign, sigma)
    return (sign * (moved - mean)).mean(dim=(1, 2, 3), keepdim=True) / (PROBE * sigma)


def vamp(
    denoiser: DenoiserFunction, measurement: Measurement, *, iterations: int = 3, damping: float = 0.8, sigma_data: float = 0.5,
    gain: Table | None = None, reach: int = 4,
) -> Posterior:  # fmt: skip
    """E[x0 | y] by vector approximate message passing with a diagonal likelihood (Rangan et al. 2019).

    Likelihood and prior pass each other a mean and one precision per image, without what came from the other:
        p = 1/s^2 + g1 (g1 alone where nothing was measured),  xh = (y/s^2 + g1 r) / p,  c = 1 / mean(1/p)
        g2 = c - g1,  q = (c xh - g1 r) / g2,  d = D(q; g2^-1/2),  g' = g2 / alpha,  alpha = mean diag dD/dx
        g1 <- g' - g2,  r <- (g' d - g2 q) / g1, both damped after the first time: new = damping new + (1 - damping) old
    and xh is the result. Begins at r = the local mean of y and g1 = sigma_data^-2. For Gaussian priors every fixed point is
    the exact posterior mean, whatever alpha and damping are (derived: there C^-1 (m - x) + S^-1 (y - x) = 0).

    Args:
        iterations: each 1 evaluation, and 1 more for alpha if there is no table.
        damping: in (0, 1]; 1 is plain, smaller is slower and safer.
        gain: pairs (sigma, alpha); None measures alpha by `mean_gain`.
        reach: half the side of the windows of the local mean, pixels.
    """
    y, precision = measurement.y, measurement.mask / measurement.s.square()

    def mean() -> Tensor:
        r, g1 = local_mean(y, measurement.mask, reach), torch.full_like(y[:, :1, :1, :1], sigma_data**-2)
        fused = r
        for iteration in range(iterations + 1):
            p = precision + g1
            fused = (precision * y + g1 * r) / p
            if iteration == iterations:
                break
            # a frame without information: 1 / mean(1/p) may fall to g1, and q be of infinite variance
            total = torch.maximum(1 / (1 / p).mean(dim=(1, 2, 3), keepdim=True), (1 + 1e-6) * g1)
            g2 = total - g1
            q, sigma = (total * fused - g1 * r) / g2, g2.rsqrt()
            d = denoiser(q, sigma)
            alpha = (mean_gain(denoiser, q, d, sigma) if gain is None else interpolate(gain, sigma)).clamp(*GAIN_LIMITS)
            keep = 0.0 if iteration == 0 else 1 - damping
            following = g2 / alpha - g2
            r = keep * r + (1 - keep) * (d - alpha * q) / (1 - alpha)
            g1 = keep * g1 + (1 - keep) * following
        return fused

    return Posterior(mean=mean, mean_evaluations=iterations * (2 if gain is None else 1))
