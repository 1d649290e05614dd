"""How well a denoiser denoises: fixed images, fixed noise, fixed levels, so that curves can be compared."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.order import generator_for
from lowlight_kedro.diffusion.scaling import Scaling


@torch.no_grad()
def denoising_quality(denoiser: DenoiserFunction, tiles: Tensor, sigmas: Sequence[float], scaling: Scaling, seed: int) -> dict[str, float]:
    """PSNR and SSIM (data range 2, tile domain) at each `sigma` (network units), keyed `psnr_<sigma>`, `ssim_<sigma>`.

    tiles: (B, C, S, S) in the tile domain, on the denoiser's device.
    """
    x0 = scaling.to_network(tiles)
    figures = {}
    for sigma in sigmas:
        noise = standard_normal(x0.cpu(), generator_for("validate", seed, 0)).to(x0)
        level = torch.full((1, 1, 1, 1), sigma, device=x0.device)
        denoised = scaling.to_tile(denoiser(x0 + level * noise, level)).clamp(-1, 1)
        for name, metric in (("psnr", peak_signal_noise_ratio), ("ssim", structural_similarity_index_measure)):
            figures[f"{name}_{sigma:g}"] = torch.as_tensor(metric(denoised, tiles, data_range=2.0)).item()
    return figures
