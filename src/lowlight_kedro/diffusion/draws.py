"""All randomness of training as a function of the seed and the image count: which image comes when, how it is cut, how it is made noisy.

So a run that was killed and resumed sees what it would have seen, and how a batch is cut into passes and over ranks changes no image.
Plug-ins (corruptions): (x0, draws) -> Corrupted, each image from its own draws.

"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lowlight_kedro.diffusion.scaling import Scaling


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


class Draws:
    """Random numbers of the images of a pass, image by image: those of image n are a function of (seed, n) alone.

    The few numbers that say how an image is cut and how loud it becomes come from the CPU everywhere, so they are the
    same on a GPU and need no wait for it; fields of noise are drawn on `device`.

    Args:
        images: their numbers in the run.
    """

    def __init__(self, seed: int, images: Iterable[int], device: torch.device | str = "cpu") -> None:
        numbers = list(images)
        self._pinned = torch.device(device).type == "cuda"  # so that the way to the GPU is not waited for
        self._few = [generator_for("train", seed, number) for number in numbers]
        self._fields = [generator_for("noise", seed, number, device) for number in numbers]

    def _stacked(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        drawn = torch.stack([draw(shape, generator=generator) for generator in self._few])
        return drawn.pin_memory() if self._pinned else drawn

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) in [0, 1), on the CPU."""
        return self._stacked(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) of mean 0 and variance 1, on the CPU."""
        return self._stacked(torch.randn, shape)

    def field(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape and type of `like` (B, ...), on `device`."""
        noise = torch.empty_like(like)
        for image, generator in zip(noise, self._fields, strict=True):
            image.normal_(generator=generator)
        return noise


class PassDraws(Draws):
    """Random numbers of a pass, all at once: a function of the seed, the pass's first image and its size.

    A few calls whatever the size, so that a fast GPU need not wait for them; how a batch is cut into passes changes its images.
    """

    def __init__(self, seed: int, images: Iterable[int], device: torch.device | str = "cpu") -> None:
        numbers = list(images)
        super().__init__(seed, numbers[:1], device)
        self._count = len(numbers)

    def _stacked(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        drawn = draw((self._count, *shape), generator=self._few[0])
        return drawn.pin_memory() if self._pinned else drawn

    def field(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape and type of `like` (B, ...), on `device`."""
        return torch.empty_like(like).normal_(generator=self._fields[0])


def augment(images: Tensor, crop: int | None, draws: Draws) -> Tensor:
    """Random square crops of side `crop` (None: whole images), then a random flip and quarter turn of each.

    Any type of number, on any device.

    Raises:
        ValueError: the crop is larger than the image.
    """
    crop = crop or images.shape[-1]
    if crop > images.shape[-1]:
        raise ValueError(f"crop must be at most the tile size {images.shape[-1]}, got crop={crop}")
    kind, images = images.dtype, images.view(torch.int16) if images.dtype == torch.uint16 else images  # torch cannot flip uint16
    room = images.shape[-1] - crop + 1
    out = []
    for image, (u, v, flip, turn) in zip(images, draws.uniform(4).tolist(), strict=True):
        top, left = int(u * room), int(v * room)
        part = image[:, top : top + crop, left : left + crop]
        part = part.flip(-1) if flip < 0.5 else part
        out.append(part.rot90(int(turn * 4), dims=(-2, -1)))
    return torch.stack(out).view(kind)


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
