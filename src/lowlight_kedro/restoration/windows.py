"""A denoiser for frames of any size: overlapping windows, blended inside every evaluation."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lowlight_kedro.diffusion.compute import network_precision
from lowlight_kedro.diffusion.denoiser import Denoiser, DenoiserFunction
from lowlight_kedro.restoration.equivariance import Symmetric
from lowlight_kedro.restoration.placement import (
    BLEND,
    Placement,
    PlacementError,
    Span,
    bytes_per_pixel,
    effective_reach,
    place,
    reflected,
    up_to,
)

UNKNOWN_REACH = 128  # pixels, for networks that do not tell how far they see
PROBE = 64  # side of the window on which the memory of an evaluation is measured, pixels
UNBOUNDED = 2**62  # pixels
PIECE_PIXELS = 2**19  # at a time, for what is told of a frame in pieces
SECOND = 0.3  # of the time of an evaluation, where there are second opinions
SCRATCH = 2.0  # memory of an evaluation over that of its tensors: what convolutions and the allocator take besides

Window = tuple[Span, Span]  # along rows, along columns


def _read(window: Window, shape: torch.Size) -> tuple[Any, ...]:
    """Index of the pixels that a window reads: slices, or mirrored indices where it sticks out of the frame."""
    row, column = window
    if row.stop <= shape[-2] and column.stop <= shape[-1]:
        return ..., slice(row.start, row.stop), slice(column.start, column.stop)
    return ..., reflected(row, shape[-2])[:, None], reflected(column, shape[-1])


def _cut(x: Tensor, windows: Sequence[Window]) -> Tensor:
    return torch.cat([x[_read(window, x.shape)] for window in windows])


def _core(window: Window, like: Tensor) -> tuple[tuple[Any, ...], tuple[Any, ...], Tensor]:
    """Where a window counts, in the frame and in itself, and its weight there."""
    row, column = window
    frame = (..., slice(row.first, row.last), slice(column.first, column.last))
    own = (..., *(slice(span.first - span.start, span.last - span.start) for span in window))
    return frame, own, (row.weight[:, None] * column.weight).to(like)


def _blend(out: Tensor, windows: Sequence[Window], parts: Tensor) -> None:
    """Add to the frames `out` what was answered of `windows`, as `_cut` put them together, each where it counts."""
    for window, part in zip(windows, parts.split(len(out)), strict=True):
        frame, own, weight = _core(window, part)
        out[frame] += weight * part[own]


@dataclass
class WholeFrames:
    """A denoiser of whole frames; see `windowed`. `pixels` shrinks when memory runs out, and stays so.

    Attributes:
        second: what the answer goes through before it is one, or None; before that it is what second opinions are asked of.
        plain: D as it is, for those who want no second opinions.
        spread: (x, sigma, D) -> standard deviation for whole frames, or None.
    """

    denoiser: DenoiserFunction
    plain: DenoiserFunction
    multiple: int
    size: int | None
    overlap: int | None
    reach: int
    memory_mb: float | None
    tolerance: float | None
    device: torch.device | None
    precision: str
    on_fraction: Callable[[float], object]
    on_evaluation: Callable[[], object]
    second: "WholeFrames | None"
    spread: Callable[[Tensor, Tensor, Tensor], Tensor] | None
    pixels: dict[bool, int] = field(default_factory=dict)  # with and without a gradient
    shrunk: bool = False

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D of the frames x (B, C, H, W); sigma is broadcastable to them."""
        sigma = sigma.expand(x.shape)
        if torch.is_grad_enabled() and x.requires_grad:
            out: Tensor = _Windowed.apply(x, sigma, self)  # type: ignore[no-untyped-call]
        else:
            with torch.no_grad():
                out = self.retried(lambda placement: self.evaluate(x, sigma, placement), x, sigma, gradient=False)
        if self.second is not None:
            out = self.second(out, sigma)
        self.on_evaluation()
        return out

    def first(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D before second opinions."""
        if self.second is None:
            return self(x, sigma)
        return replace(self, denoiser=self.plain, second=None, on_fraction=lambda done: self.on_fraction(done / (1 - SECOND)))(x, sigma)

    def denoise(self, x: Tensor, sigma: Tensor, *, full: bool = False) -> Tensor:
        """One batch of windows, on the device and in the precision asked for, or `full`; the result lies where `x` lies."""
        device = self.device or x.device
        with network_precision("fp32" if full else self.precision, device):
            return self.denoiser(x.to(device), sigma.to(device)).to(x)

    def allowed(self, x: Tensor, sigma: Tensor, gradient: bool) -> int:
        """Pixels that may go through the network at once, by what it needs for a piece of the frame and for one measured everywhere."""
        if gradient not in self.pixels:
            self.pixels[gradient] = self.size**2 if self.size else UNBOUNDED
            if self.memory_mb is not None:
                side = up_to(PROBE, self.multiple)
                corner = (Span(0, side, 0, side, torch.ones(1)),) * 2
                pieces = _cut(x[:1], [corner]), _cut(sigma[:1], [corner])
                everywhere = torch.zeros_like(pieces[0]), torch.ones_like(pieces[1])
                each = SCRATCH * max(bytes_per_pixel(self.denoise, *probe, gradient=gradient) for probe in (pieces, everywhere))
                self.pixels[gradient] = int(self.memory_mb * 2**20 / max(each, 1))
        return self.pixels[gradient]

    def overlap_for(self, x: Tensor, sigma: Tensor) -> int:
        """What neighbours must share: the margins at both rims, measured where a tolerance is given, and the blend."""
        if self.overlap is not None:
            return self.overlap
        margin = self.reach
        if self.tolerance is not None:
            margin = effective_reach(
                partial(self.denoise, full=True),  # rounding to bf16 would pass for what a rim does
                lambda rows, columns: (x[..., rows, columns], sigma[..., rows, columns]), (x.shape[-2], x.shape[-1]),
                most=self.reach, multiple=self.multiple, tolerance=self.tolerance,
            )  # fmt: skip
        return up_to(2 * margin + BLEND, self.multiple)

    def place(self, x: Tensor, sigma: Tensor, gradient: bool) -> Placement:
        """One window where the frame allows it; only then nothing needs to be measured."""
        shape, pixels = (x.shape[-2], x.shape[-1]), self.allowed(x, sigma, gradient)
        height, width = (up_to(length, self.multiple) for length in shape)
        single = height * width <= pixels and (self.size is None or max(height, width) <= self.size)
        overlap = 0 if single else self.overlap_for(x, sigma)
        try:
            return place(shape, pixels=pixels, overlap=overlap, multiple=self.multiple, most=self.size)
        except PlacementError as error:
            if self.shrunk:
                raise torch.OutOfMemoryError(f"the device has no memory for even the smallest windows: {error}") from error
            raise

    def retried(
        self, run: Callable[[Placement], Tensor], x: Tensor, sigma: Tensor, gradient: bool, first: Placement | None = None
    ) -> Tensor:  # fmt: skip
        """`run` with the windows `first`, if given, then with smaller and smaller ones until they fit into the device's memory."""
        placement = first or self.place(x, sigma, gradient)
        try:
            return run(placement)
        except torch.OutOfMemoryError:
            self.shrink(gradient, placement)
        return self.retried(run, x, sigma, gradient)  # out of the except clause, which holds on to the tensors of `run`

    def shrink(self, gradient: bool, placement: Placement) -> None:
        """Half the pixels, from now on."""
        height, width = placement.side
        before = height * width * min(placement.batch, len(placement.windows))
        self.pixels[gradient], self.shrunk = before // 2, True
        torch.cuda.empty_cache()
        warnings.warn(f"out of memory with {before / 1e6:.3g} megapixels at once; going on with half as many", stacklevel=2)

    def evaluate(self, x: Tensor, sigma: Tensor, placement: Placement) -> Tensor:
        """D of the frame, window by window; nothing of the size of the frame is made but the result."""
        out, done, fraction = torch.zeros_like(x), 0.0, 1 / len(placement.windows)
        try:
            for windows in placement.batches():
                parts = self.denoise(_cut(x, windows), _cut(sigma, windows))
                _blend(out, windows, parts)
                self.on_fraction(fraction * len(windows))
                done += fraction * len(windows)
        except torch.OutOfMemoryError:
            self.on_fraction(-done)
            raise
        return out

    def pull_back(self, x: Tensor, sigma: Tensor, cotangent: Tensor, placement: Placement) -> Tensor:
        """The vector-Jacobian product of `evaluate` at x: every window is evaluated again, so that none is kept."""
        gradient = torch.zeros_like(x)
        for windows in placement.batches():
            with torch.enable_grad():
                pieces = _cut(x, windows).requires_grad_()
                parts = self.denoise(pieces, _cut(sigma, windows))
            seeds = torch.zeros_like(parts)
            for window, seed in zip(windows, seeds.split(len(x)), strict=True):
                frame, own, weight = _core(window, seed)
                seed[own] = weight * cotangent[frame]
            pulled = torch.autograd.grad(parts, pieces, seeds)[0]
            for window, part in zip(windows, pulled.split(len(x)), strict=True):
                _add(gradient, _read(window, x.shape), part)
        return gradient


def _add(total: Tensor, where: tuple[Any, ...], part: Tensor) -> None:
    """total[where] += part, also where an index occurs twice."""
    if isinstance(where[-1], slice):
        total[where] += part
    else:
        every = [torch.arange(length)[(...,) + (None,) * (3 - axis)] for axis, length in enumerate(total.shape[:2])]
        total.index_put_((*every, *where[1:]), part, accumulate=True)


class _Windowed(torch.autograd.Function):
    """`WholeFrames` as one differentiable function of x; sigma is taken as given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: Tensor, frames: WholeFrames) -> Tensor:
        def run(placement: Placement) -> Tensor:
            ctx.placement = placement
            return frames.evaluate(x, sigma, placement)

        out = frames.retried(run, x, sigma, gradient=True)
        ctx.frames = frames
        ctx.save_for_backward(x, sigma)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        x, sigma = ctx.saved_tensors

        def run(placement: Placement) -> Tensor:
            return ctx.frames.pull_back(x, sigma, cotangent, placement)

        return ctx.frames.retried(run, x, sigma, gradient=True, first=ctx.placement), None, None


@torch.no_grad()
def in_pieces(
    spread: nn.Module, x: Tensor, sigma: Tensor, mean: Tensor, *, device: torch.device | None = None, precision: str = "fp32"
) -> Tensor:  # fmt: skip
    """What `spread` tells of whole frames (B, C, H, W): windows with as much around them as it sees, so that all of it is exact."""
    multiple, device, out = int(spread.multiple), device or x.device, torch.zeros_like(x)  # type: ignore[arg-type]
    overlap, sigma = up_to(2 * int(spread.reach) + BLEND, multiple), sigma.expand(x.shape)  # type: ignore[arg-type]
    placement = place((x.shape[-2], x.shape[-1]), pixels=max(PIECE_PIXELS, (2 * overlap) ** 2), overlap=overlap, multiple=multiple)
    for window in placement.windows:
        with network_precision(precision, device):
            part = spread(*(_cut(tensor, [window]).to(device) for tensor in (x, sigma, mean))).to(out)
        _blend(out, [window], part)
    return out


def windowed(
    denoiser: DenoiserFunction, *, multiple: int, size: int | None = None, overlap: int | None = None,
    reach: int | None = None, memory_mb: float | None = None, tolerance: float | None = None,
    device: torch.device | None = None, precision: Literal["fp32", "bf16"] = "fp32",
    on_evaluation: Callable[[], object] = lambda: None, on_fraction: Callable[[float], object] = lambda _: None,
    second: WholeFrames | None = None, plain: DenoiserFunction | None = None, spread: nn.Module | None = None,
) -> WholeFrames:  # fmt: skip
    """`denoiser` for frames (B, C, H, W) of any H and W; its memory is bounded, and its result one for all placements.

    Windows are blended inside the denoiser, so that any sampler over it has one global state and no seams. A pixel near a
    window's rim, where D lacks its neighbours, does not count; the rim of the frame itself is no such rim. Under autograd
    every window is evaluated again in the backward pass instead of keeping its activations. Where the device runs out of
    memory, windows of half the pixels take over, with a warning.

    Args:
        multiple: sides that the network accepts; the frame is mirrored up to it, and windows start at multiples of it.
        size: largest side of a window, pixels, a multiple of `multiple`; None: as large as memory allows.
        overlap: of neighbouring windows, a multiple of `multiple`; None: as `reach` and `tolerance` tell.
        reach: pixels that the network sees in each direction, if it tells.
        memory_mb: of what the network works with, beyond x, sigma and the result; without it `size` alone tells.
        tolerance: of the result, network units, before margins shorter than `reach` are taken; None: exact.
        device: where windows are evaluated; x, sigma and the result stay where they are.
        precision: of the network; bf16 is autocast.
        on_evaluation: called once per evaluation of the whole frame.
        on_fraction: called with the fraction of an evaluation that has just been done; negative when it is begun anew.
        second: (D, sigma) -> D of whole frames, `windowed` as well: what looks at the answer once more has windows of its own, so
            that those of the denoiser need no wider margins. It is asked of what `denoiser` says.
        plain: the denoiser before second opinions, where it says something else to be asked of.
        spread: of the denoiser, see `networks.pyramid.Spread`.

    Raises:
        ValueError: overlap is not in [0, size), or a number is no multiple of `multiple`.
    """
    if overlap is not None and not 0 <= overlap < (size or UNBOUNDED):
        raise ValueError(f"overlap must be in [0, size), got overlap={overlap}, size={size}")
    if (size or 0) % multiple or (overlap or 0) % multiple:
        raise ValueError(f"window size and overlap must be multiples of {multiple}, got size={size}, overlap={overlap}")
    most = UNKNOWN_REACH if reach is None else reach
    whole_spread = None if spread is None else partial(in_pieces, spread, device=device, precision=precision)
    if second is None:
        parts = on_fraction
    else:
        second, parts = replace(second, on_fraction=lambda done: on_fraction(SECOND * done)), lambda done: on_fraction((1 - SECOND) * done)
    return WholeFrames(
        denoiser, plain or denoiser, multiple, size, overlap, most, memory_mb, tolerance, device, precision, parts, on_evaluation, second,
        whole_spread,
    )  # fmt: skip


def in_windows(
    denoiser: Denoiser, symmetries: int = 1, *, on_evaluation: Callable[[], object] = lambda: None,
    on_fraction: Callable[[float], object] = lambda _: None, **options: Any,
) -> WholeFrames:  # fmt: skip
    """A denoiser for frames, `windowed` as its network tells, `Symmetric` by `symmetries`; `options` of `windowed`."""
    network, second, again = denoiser.network, denoiser.second, None
    if second is not None:
        multiple, size = int(second.multiple), options.get("size")  # type: ignore[arg-type]
        own = options | {"size": size and size // multiple * multiple, "overlap": None}
        again = windowed(Symmetric(second, symmetries), multiple=multiple, reach=int(second.reach), **own)  # type: ignore[arg-type]
    return windowed(
        Symmetric(denoiser.asked, symmetries), multiple=getattr(network, "multiple", 1), reach=getattr(network, "reach", None),
        second=again, plain=Symmetric(denoiser.first, symmetries), spread=denoiser.spread, on_evaluation=on_evaluation,
        on_fraction=on_fraction, **options,
    )  # fmt: skip
