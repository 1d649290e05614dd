"""A denoiser for frames of any size: overlapping windows, blended inside every evaluation."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.sensor.tiles import starts


def blend_weight(size: int, overlap: int, like: Tensor) -> Tensor:
    """(size, size) weights: 1 inside, falling linearly to near 0 at the rim over `overlap` pixels."""
    distance = torch.minimum(torch.arange(size), torch.arange(size).flip(0)) + 0.5
    ramp = (distance / max(overlap, 1)).clamp(max=1).to(like)
    return ramp[:, None] * ramp[None, :]


def _windows(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, size: int, overlap: int) -> Tensor:
    weight = blend_weight(size, overlap, x)
    total, norm = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
    for top in starts(x.shape[-2], size, size - overlap):
        for left in starts(x.shape[-1], size, size - overlap):
            where = (..., slice(top, top + size), slice(left, left + size))
            if torch.is_grad_enabled() and x.requires_grad:
                part = checkpoint(denoiser, x[where], sigma[where], use_reentrant=False)
            else:
                part = denoiser(x[where], sigma[where])
            total[where] += weight * part
            norm[where] += weight
    return total / norm


def windowed(
    denoiser: DenoiserFunction, *, size: int, overlap: int, multiple: int, on_evaluation: Callable[[], object] = lambda: None
) -> DenoiserFunction:
    """`denoiser` for frames (B, C, H, W) of any H and W; memory is that of one window plus the frame.

    The frame is padded by reflection to a multiple of `multiple`; a frame no larger than `size` is one window.
    Because windows are blended inside the denoiser, any sampler over it has one global state and no seams. Under
    autograd each window is evaluated again in the backward pass instead of keeping its activations.

    Args:
        size, overlap: of the square windows, pixels; both multiples of `multiple`.
        multiple: sides that the network accepts.
        on_evaluation: called once per evaluation of the whole frame.

    Raises:
        ValueError: overlap is not in [0, size), or a number is no multiple of `multiple`.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be in [0, size), got overlap={overlap}, size={size}")
    if size % multiple or overlap % multiple:
        raise ValueError(f"window size and overlap must be multiples of {multiple}, got size={size}, overlap={overlap}")

    def whole(x: Tensor, sigma: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        pad = (0, -width % multiple, 0, -height % multiple)
        x, sigma = (F.pad(t.expand(x.shape), pad, mode="reflect") for t in (x, sigma))
        if max(x.shape[-2:]) <= size:
            out = denoiser(x, sigma)
        else:
            extra = (0, max(0, size - x.shape[-1]), 0, max(0, size - x.shape[-2]))
            x, sigma = (F.pad(t, extra, mode="replicate") for t in (x, sigma))
            out = _windows(denoiser, x, sigma, size, overlap)
        on_evaluation()
        return out[..., :height, :width]

    return whole
