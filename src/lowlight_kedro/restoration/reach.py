"""What a denoiser costs and how far it sees, measured on the frame it is to restore."""

import weakref
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lowlight_kedro.diffusion.denoiser import DenoiserFunction

SAFETY = 2.0  # the probe sees a small part of the frame: its largest error must be so much below the tolerance


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors made inside: `live` now, and `peak` at once."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: Counter[int] = Counter()
        self.live = self.peak = 0

    def _release(self, pointer: int, size: int) -> None:
        self.owners[pointer] -= 1
        if not self.owners[pointer]:
            self.live -= size

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        pointer, size = storage.data_ptr(), storage.nbytes()
        if not self.owners[pointer]:
            self.live += size
            self.peak = max(self.peak, self.live)
        self.owners[pointer] += 1
        weakref.finalize(tensor, self._release, pointer, size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and take note of the tensors it returns."""
        del types
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        return out


def bytes_per_pixel(denoiser: DenoiserFunction, like: Tensor, side: int, *, gradient: bool) -> float:
    """Memory of one evaluation over the pixels of its window (side, side), from tensors alone, without any scratch space.

    With `gradient`, what autograd keeps for the backward pass comes on top of what is in use at once.
    """
    x = torch.zeros(1, like.shape[1], side, side, dtype=like.dtype, device=like.device)
    sigma, kept = torch.ones_like(x), {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other tensor gets its place
        return tensor

    with torch.no_grad(), LiveBytes() as found:
        denoiser(x, sigma)
    if gradient:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            denoiser(x.requires_grad_(), sigma)
    weights = {p.untyped_storage().data_ptr() for p in denoiser.parameters()} if isinstance(denoiser, torch.nn.Module) else set()
    saved = sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in weights)
    return (found.peak + saved) / side**2


def rim_errors(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor) -> Tensor:
    """Largest change (W / 2,) of D by distance from a rim, when the window is cut in two; x, sigma (B, C, H, W)."""
    half = x.shape[-1] // 2
    whole = denoiser(x, sigma)
    left = (denoiser(x[..., :half], sigma[..., :half]) - whole[..., :half]).abs().amax((0, 1, 2))
    right = (denoiser(x[..., half:], sigma[..., half:]) - whole[..., half:]).abs().amax((0, 1, 2))
    return torch.maximum(left.flip(0), right)


def _places(length: int, size: int, multiple: int) -> list[int]:
    """First pixels of two pieces of `size`, in the two halves of `length`."""
    return [round((length - size) * share) // multiple * multiple for share in (0.25, 0.75)]


def effective_reach(
    denoiser: DenoiserFunction, cut: Callable[[slice, slice], tuple[Tensor, Tensor]], shape: tuple[int, int], *,
    most: int, multiple: int, tolerance: float,
) -> int:  # fmt: skip
    """Distance from a rim, a multiple of `multiple` and at most `most`, beyond which D changes by less than `tolerance`.

    Measured at four places of the frame, with the state and the noise level of this very evaluation: how far a network
    really looks depends on both. `SAFETY` stands for the rest of the frame.

    Args:
        cut: (rows, columns) -> x and sigma there. shape: of the frame. tolerance: network units.
    """
    most = -(-most // multiple) * multiple
    height, width = (min(2 * most, length // multiple * multiple) for length in shape)
    width -= width % (2 * multiple)
    if not height or not width:
        return most
    pieces = [
        cut(slice(top, top + height), slice(left, left + width))
        for top, left in product(_places(shape[0], height, multiple), _places(shape[1], width, multiple))
    ]
    errors = torch.stack([rim_errors(denoiser, *piece) for piece in pieces]).amax(0).tolist()
    beyond = max((distance for distance, error in enumerate(errors, 1) if not error <= tolerance / SAFETY), default=0)
    return most if beyond == len(errors) else min(most, -(-beyond // multiple) * multiple)
