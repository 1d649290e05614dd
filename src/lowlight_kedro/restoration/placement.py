"""Where the windows of a frame lie, how much of each counts, and how far a denoiser sees, measured on the frame itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.diffusion.memory import LiveBytes

SAFETY = 2.0  # the probe sees a small part of the frame: its largest error must be so much below the tolerance


def bytes_per_pixel(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, *, gradient: bool) -> float:
    """Memory of one evaluation of a window (B, C, H, W) over its pixels B H W, from tensors alone, without any scratch space.

    With `gradient`, what autograd keeps for the backward pass comes on top of what is in use at once.
    """
    x, kept = x.detach(), {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other tensor gets its place
        return tensor

    with torch.no_grad(), LiveBytes() as found:
        denoiser(x, sigma)
    if gradient:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            denoiser(x.clone().requires_grad_(), sigma)
    weights = {p.untyped_storage().data_ptr() for p in denoiser.parameters()} if isinstance(denoiser, torch.nn.Module) else set()
    saved = sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in weights)
    return (found.peak + saved) / x[:, 0].numel()


def rim_errors(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor) -> Tensor:
    """Largest change (W / 2,) of D by distance from a rim, when the window is cut in two; x, sigma (B, C, H, W)."""
    half = x.shape[-1] // 2
    whole = denoiser(x, sigma)
    left = (denoiser(x[..., :half], sigma[..., :half]) - whole[..., :half]).abs().amax((0, 1, 2))
    right = (denoiser(x[..., half:], sigma[..., half:]) - whole[..., half:]).abs().amax((0, 1, 2))
    return torch.maximum(left.flip(0), right)


def _places(length: int, size: int, multiple: int) -> list[int]:
    """First pixels of two pieces of `size`, in the two halves of `length`."""
    return [round((length - size) * fraction) // multiple * multiple for fraction in (0.25, 0.75)]


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


BLEND = 16  # pixels over which one window fades into the next; what differs there is below the tolerance already


class PlacementError(ValueError):
    """Windows that cannot be placed as asked."""


@dataclass(frozen=True)
class Span:
    """A window along one axis: it reads [start, stop) and counts in [first, last), pixels of the frame.

    `stop` may lie beyond the frame (see `reflected`). `weight` (last - first,) fades where the next window takes over:
    the weights of all spans of an axis add up to 1 at every pixel.
    """

    start: int
    stop: int
    first: int
    last: int
    weight: Tensor


@dataclass(frozen=True)
class Placement:
    """Windows of one size: every row span with every column span; `batch` of them go through the network together."""

    rows: list[Span]
    columns: list[Span]
    batch: int

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the windows."""
        return self.rows[0].stop - self.rows[0].start, self.columns[0].stop - self.columns[0].start

    @property
    def windows(self) -> list[tuple[Span, Span]]:
        """Row by row."""
        return [(row, column) for row in self.rows for column in self.columns]

    def batches(self) -> Iterator[list[tuple[Span, Span]]]:
        """The windows, `batch` at a time."""
        windows = self.windows
        yield from (windows[at : at + self.batch] for at in range(0, len(windows), self.batch))


def up_to(length: int, multiple: int) -> int:
    """`length` rounded up to a multiple."""
    return -(-length // multiple) * multiple


def reflected(span: Span, length: int) -> Tensor:
    """Indices (stop - start,) of the pixels that a window reads; beyond the frame it is mirrored at its last pixel.

    The last pixel itself is not repeated, so that pixel `length - 1 + k` shows `length - 1 - k`: of the same parity, and
    hence of the same colour in a Bayer mosaic. Other mosaics carry their colours in the noise map, mirrored with them.
    """
    period = max(2 * (length - 1), 1)
    index = torch.arange(span.start, span.stop) % period
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)


def side_of(length: int, count: int, overlap: int, multiple: int) -> int:
    """The shortest windows, `count` of them, that cover `length` with at least `overlap` between neighbours."""
    return up_to(-(-(up_to(length, multiple) + (count - 1) * overlap) // count), multiple)


def _risen(first: int, last: int, begin: int, blend: int) -> Tensor:
    """(last - first,): 0 before `begin`, 1 from begin + blend on, and no kink between: 3 t^2 - 2 t^3."""
    t = ((torch.arange(first, last, dtype=torch.float64) + 0.5 - begin) / max(blend, 1)).clamp(0, 1)
    return t * t * (3 - 2 * t) if blend else (t > 0).double()


def spans(length: int, count: int, overlap: int, multiple: int) -> list[Span]:
    """`count` windows over [0, length); all start at multiples of `multiple`, where strided layers see the same cells.

    Neighbours share at least `overlap` pixels; in the middle of what they share, at most `BLEND` pixels, one fades into the
    other, and the rest, (overlap - BLEND) / 2 at either rim, does not count.
    """
    side = side_of(length, count, overlap, multiple)
    slack = (up_to(length, multiple) - side) // multiple
    starts = [slack * n // max(count - 1, 1) * multiple for n in range(count)]
    blend = min(BLEND, overlap)
    begins = [0, *((after + before + side - blend) // 2 for before, after in pairwise(starts))]  # of the fades
    ends = [*(begin + blend for begin in begins[1:]), up_to(length, multiple)]
    found = []
    for number, (start, first, last) in enumerate(zip(starts, begins, ends, strict=True)):
        last = min(last, length)
        mine = _risen(first, last, first, blend) if number else torch.ones(max(0, last - first), dtype=torch.float64)
        if number + 1 < count:  # less what the next one takes: whatever the places, the sum of all is 1
            mine = mine - _risen(first, last, begins[number + 1], blend)
        found.append(Span(start, start + side, first, last, mine))
    return found


def _sides(length: int, overlap: int, multiple: int, most: int | None) -> list[tuple[int, int]]:
    """Sides that windows may have along one axis, and the fewest windows of each; blends must not meet in a window."""
    least = overlap + max(multiple, min(BLEND, overlap))
    counts = range(up_to(length, multiple) // multiple, 0, -1)
    fewest = {side_of(length, count, overlap, multiple): count for count in counts}
    return [(side, n) for side, n in fewest.items() if (n == 1 or side >= least) and (most is None or side <= most)]


def place(shape: tuple[int, int], *, pixels: int, overlap: int, multiple: int, most: int | None = None) -> Placement:
    """The placement of windows of at most `pixels` (and sides of at most `most`) that evaluates the fewest pixels.

    Raises:
        PlacementError: no window is that small, because `overlap` must be inside it.
    """
    heights, widths = (_sides(length, overlap, multiple, most) for length in shape)
    fitting = [
        (rows * height * columns * width, rows, columns, height * width)
        for height, rows in heights
        for width, columns in widths
        if height * width <= pixels
    ]
    if not fitting:
        least = min((height for height, _ in heights), default=0) * min((width for width, _ in widths), default=0)
        raise PlacementError(
            f"no windows can overlap by {overlap} and have at most {pixels} pixels{f' and sides of at most {most}' if most else ''}"
            f"{f': the smallest have {least}' if least else ''}; "
            f"raise inference.window.{'memory_mb' if least else 'size'}, or inference.window.tolerance for less overlap"
        )
    _, rows, columns, area = min(fitting)
    batch = max(1, pixels // area)
    return Placement(spans(shape[0], rows, overlap, multiple), spans(shape[1], columns, overlap, multiple), batch)
