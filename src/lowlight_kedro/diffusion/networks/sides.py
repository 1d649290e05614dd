"""What a network that halves its image asks of the image."""

from torch import Tensor


def check_sides(x: Tensor, multiple: int) -> None:
    """Raise a ValueError where H or W of `x` (B, C, H, W) is no multiple of `multiple`."""
    if x.shape[-1] % multiple or x.shape[-2] % multiple:
        raise ValueError(f"image sides must be multiples of {multiple} for this network, got {tuple(x.shape[-2:])}")
