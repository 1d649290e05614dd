"""Metrics of one image against another where they may be compared; images (3, H, W) in [0, 1], data_range 1."""

from collections.abc import Callable

import torch
from numpy.typing import NDArray
from torch import Tensor

Metric = Callable[[Tensor, Tensor, Tensor], Tensor]

BORDER = 5  # of the SSIM window, pixels
HALO = 2 * BORDER  # rows beyond a strip: the window, and its mirrored margin
STRIP = 128  # rows
MS_SSIM_LEAST = 11 * 2**4  # pixels: four halvings must leave a whole window


def psnr(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over `mask`, dB, data_range 1; images (1, 3, H, W), mask (H, W)."""
    return -10 * torch.log10((image - truth).square()[..., mask].mean())


def ssim(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004: 11x11 Gaussian window, sigma 1.5), data_range 1; images (1, 3, H, W).

    The mean of its map over `mask` (H, W), without the border of the image, where the window does not fit; a window on
    the mask's edge looks up to 5 pixels beyond it. nan where nothing is left. A strip of rows at a time: of a whole frame the
    moments alone take 700 bytes a pixel.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # a second, in every worker and command

    inside = torch.zeros_like(mask)
    inside[BORDER:-BORDER, BORDER:-BORDER] = mask[BORDER:-BORDER, BORDER:-BORDER]
    total = image.new_zeros(())
    for top in range(0, image.shape[-2], STRIP):
        first = max(top - HALO, 0)
        rows, own = slice(first, top + STRIP + HALO), slice(top - first, top - first + STRIP)
        _, full = structural_similarity_index_measure(image[..., rows, :], truth[..., rows, :], data_range=1.0, return_full_image=True)
        total += full[..., own, :][..., inside[top : top + STRIP]].sum()
    return total / (image.shape[1] * inside.sum())


class MetricUnavailableError(ValueError):
    """This metric cannot be had here; the message says why and how it can. The others can."""


def _still(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """`image` with the truth outside the mask, for metrics that know no mask: what is masked counts as equal."""
    return torch.where(mask, image, truth)


def ms_ssim(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003, five scales), data_range 1; images (1, 3, H, W).

    What `mask` (H, W) leaves out counts as equal, so the value is an upper bound where much is left out.

    Raises:
        MetricUnavailableError: a side is too short for five scales.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    if min(image.shape[-2:]) < MS_SSIM_LEAST:
        raise MetricUnavailableError(
            f"ms_ssim needs sides of at least {MS_SSIM_LEAST} pixels for its five scales, got {tuple(image.shape[-2:])}"
        )
    return multiscale_structural_similarity_index_measure(_still(image, truth, mask), truth, data_range=1.0)


def lpips(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018, AlexNet), 0 = equal; images (1, 3, H, W). Outside `mask` they count as equal.

    Raises:
        MetricUnavailableError: its package or the weights of AlexNet are missing.
    """
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    try:
        return learned_perceptual_image_patch_similarity(_still(image, truth, mask), truth, net_type="alex", normalize=True)
    except (ImportError, OSError) as error:
        raise MetricUnavailableError(
            f"lpips needs AlexNet's ImageNet weights ({error}): pip install lowlight-kedro[lpips], then once, with a network, "
            "python -c \"import torchvision; torchvision.models.alexnet(weights='DEFAULT')\" (233 MB into torch's cache)"
        ) from error


METRICS: dict[str, Metric] = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim, "lpips": lpips}


def measure(image: NDArray, truth: NDArray, metrics: dict[str, Metric], mask: NDArray | None = None) -> dict[str, float]:
    """All `metrics` of `image` against `truth`, both clipped to [0, 1], over `mask` (H, W); nan where it is empty."""
    here, there = (torch.from_numpy(part).float().clamp(0, 1)[None] for part in (image, truth))
    where = torch.ones(image.shape[1:], dtype=torch.bool) if mask is None else torch.from_numpy(mask)
    return {name: float(metric(here, there, where)) for name, metric in metrics.items()}
