"""Metrics of one image against another where they may be compared; images (3, H, W) in [0, 1], data_range 1."""

from collections.abc import Callable

import torch
from numpy.typing import NDArray
from torch import Tensor

Metric = Callable[[Tensor, Tensor, Tensor], Tensor]

BORDER = 5  # of the SSIM window, pixels
HALO = 2 * BORDER  # rows beyond a strip: the window, and its mirrored margin
STRIP = 128  # rows


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


METRICS: dict[str, Metric] = {"psnr": psnr, "ssim": ssim}


def measure(image: NDArray, truth: NDArray, metrics: dict[str, Metric], mask: NDArray | None = None) -> dict[str, float]:
    """All `metrics` of `image` against `truth`, both clipped to [0, 1], over `mask` (H, W); nan where it is empty."""
    here, there = (torch.from_numpy(part).float().clamp(0, 1)[None] for part in (image, truth))
    where = torch.ones(image.shape[1:], dtype=torch.bool) if mask is None else torch.from_numpy(mask)
    return {name: float(metric(here, there, where)) for name, metric in metrics.items()}
