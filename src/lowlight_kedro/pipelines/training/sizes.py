"""Whether images of these sizes go through the network, asked before anything is trained."""

from torch import nn


def require_sizes(network: nn.Module, tile_size: int, crop: int | None, validation_crop: int) -> None:
    """Sides in pixels; `crop` None: whole tiles. A network that names no `multiple` takes every size.

    Raises:
        ValueError: the crop is larger than the tiles, or the network cannot halve a side as often as it does.
    """
    if crop is not None and crop > tile_size:
        raise ValueError(
            f"training.crop must be at most the tile size {tile_size}, got crop={crop}; set training.crop={tile_size}, or null for "
            "whole tiles, or make larger tiles (tile_size in globals.yml)"
        )
    multiple = getattr(network, "multiple", 1)
    sides = {"training.crop": crop or tile_size, "training.validate.crop": min(validation_crop, tile_size)}
    for name, side in sides.items():
        if side % multiple:
            fits = f"set {name}={side // multiple * multiple}, or take " if side > multiple else "take "
            raise ValueError(
                f"{name} must be a multiple of {multiple} for this network to halve the image, got {side} (tiles of {tile_size}); "
                f"{fits}a network of fewer levels"
            )
