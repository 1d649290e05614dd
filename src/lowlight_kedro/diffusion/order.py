"""Which image comes when, and with which randomness: a function of the seed and the image count alone.

So a run that was killed and resumed sees what it would have seen, whatever the batch size of its data loader.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def generator_for(purpose: str, seed: int, count: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator for `purpose` at image number `count`."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{count}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def index_batches(length: int, seed: int, start: int, batch: int, stop: int) -> Iterator[list[int]]:
    """Indices into a data set of `length`, batch by batch, from image number `start` up to `stop`.

    Epoch e is a permutation drawn from (seed, e).
    """
    epoch, order = -1, torch.empty(0)
    for first in range(start, stop, batch):
        indices = []
        for image in range(first, first + batch):
            if image // length != epoch:
                epoch = image // length
                order = torch.randperm(length, generator=generator_for("order", seed, epoch))
            indices.append(int(order[image % length]))
        yield indices


def augment(images: Tensor, crop: int | None, generator: torch.Generator) -> Tensor:
    """Random square crops of side `crop` (None: whole images), then a random flip and quarter turn of each.

    Any type of number, on any device; the draws are made where the generator is.

    Raises:
        ValueError: the crop is larger than the image.
    """
    crop = crop or images.shape[-1]
    if crop > images.shape[-1]:
        raise ValueError(f"crop must be at most the tile size {images.shape[-1]}, got crop={crop}")
    kind, images = images.dtype, images.view(torch.int16) if images.dtype == torch.uint16 else images  # torch cannot flip uint16
    draws = torch.rand(len(images), 4, generator=generator, device=generator.device).tolist()
    room = images.shape[-1] - crop + 1
    out = []
    for image, (u, v, flip, turn) in zip(images, draws, strict=True):
        top, left = int(u * room), int(v * room)
        part = image[:, top : top + crop, left : left + crop]
        part = part.flip(-1) if flip < 0.5 else part
        out.append(part.rot90(int(turn * 4), dims=(-2, -1)))
    return torch.stack(out).view(kind)
