"""What a training pass costs in memory and operations, counted on tensors without values; the largest pass that fits."""

import gc
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lowlight_kedro.diffusion.compute import PassLimits, holding, network_precision
from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_losses

FP32 = 4  # bytes
CPU = torch.device("cpu")


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations made within the block, without those from before it: alive `now`, and the `peak`.

    `moved`: read and written by all operations. `flops` as torch counts them. Its own `FlopCounterMode` holds tensors longer than
    they live, so it cannot stand around this.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.moved = self.flops = 0
        self._held: dict[int, weakref.finalize] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: nothing is compiled within it, and torch would import its compiler for it, two seconds in each process that restores."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, made = ([t for t in tree_leaves(part) if isinstance(t, Tensor)] for part in ((args, kwargs), out))
        given = {id(tensor.untyped_storage()) for tensor in read}
        for tensor in made:
            storage = tensor.untyped_storage()
            if id(storage) not in given:  # else a view, or written in place
                self._hold(storage)
        self.peak = max(self.peak, self.now)
        packet = getattr(func, "overloadpacket", None)
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        if not getattr(func, "is_view", False):
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in read + made)
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()  # a storage keeps its Python object as long as it lives
        if key not in self._held:
            self._held[key] = weakref.finalize(storage, self._drop, key, size)
            self.now += size

    def _drop(self, key: int, size: int) -> None:
        self.now -= size
        del self._held[key]


@contextmanager
def group_norm_as_on_gpu() -> Iterator[None]:
    """Within the block group norm is computed and kept in fp32 under autocast: on a GPU it is, on a CPU it stays in bf16."""
    before = F.group_norm

    def in_fp32(x: Tensor, *rest: Any, **named: Any) -> Tensor:
        return before(x.float() if torch.is_autocast_enabled("cpu") else x, *rest, **named)

    with holding(F, "group_norm", in_fp32):
        yield


def loss_of_noise(denoiser: Denoiser, images: int, channels: int, side: int, device: torch.device, precision: str) -> Tensor:
    """The training loss of a pass of made-up images: it costs what a real one costs."""
    x0 = torch.randn(images, channels, side, side, device=device)
    sigma = torch.full((images, 1, 1, 1), 0.5, device=device)
    with network_precision(precision, device):
        mean, spread = denoising_losses(denoiser, x0, x0 + sigma * torch.randn_like(x0), sigma)
        return (mean + spread).mean()


@dataclass(frozen=True)
class PassCost:
    """Of a pass of `images` images, all in bytes but `flops` (1 multiply-add = 2), `parameters` and `images`.

    Attributes:
        activations: alive when the backward pass begins. working: the peak beyond weights and gradients.
        moved: read and written by all operations, as if none were fused.
    """

    images: int
    parameters: int
    activations: int
    working: int
    flops: int
    moved: int

    def total(self, means: int = 1) -> int:
        """Working memory, and weights, gradients, two moments of Adam and `means` running means in fp32."""
        return self.working + FP32 * self.parameters * (4 + means)


def parameter_count(module: nn.Module) -> int:
    """Numbers in all weights."""
    return sum(weights.numel() for weights in module.parameters())


def _on_cpu(network: nn.Module) -> None:
    """Weights without values, from wherever they are, `meta` too."""
    for module in network.modules():
        for name, weights in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty_like(weights, device=CPU)))
        for name, values in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty_like(values, device=CPU))


def count_pass(denoiser: Denoiser, images: int, side: int, precision: str, *, channels: int = 3, as_on_gpu: bool = False) -> PassCost:
    """Count a pass that adds to gradients of an earlier one, on tensors without values: exact sizes in a second or two.

    The denoiser may be on any device; on `meta` it costs nothing to make. Left out: what a library takes
    for itself (workspaces, fragmentation, a GPU's context), hence a margin for users of the figure.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.random.fork_rng(devices=[]):
        twin = deepcopy(denoiser)
        _on_cpu(twin)
        for weights in twin.parameters():
            weights.grad = torch.empty_like(weights)
        with LiveBytes() as live, group_norm_as_on_gpu() if as_on_gpu else nullcontext():
            loss = loss_of_noise(twin, images, channels, side, CPU, precision)
            activations = live.now
            loss.backward()
    return PassCost(images, parameter_count(denoiser), activations, live.peak, live.flops, live.moved)


Trial = Callable[[int], int]


def candidates(batch_size: int) -> list[int]:
    """Powers of two that divide `batch_size`, ascending."""
    return [2**k for k in range(batch_size.bit_length()) if batch_size % 2**k == 0]


def largest_pass(sizes: Sequence[int], trial: Trial, available: int) -> int:
    """The largest of ascending `sizes` whose pass takes at most `available` bytes.

    They are tried in order until one does not fit, so nothing far too large is ever started.

    Args:
        trial: images of a pass -> bytes that it took at its peak; may raise torch.OutOfMemoryError.

    Raises:
        ValueError: one image does not fit.
    """
    best = 0
    for images in sizes:
        try:
            needed = trial(images)
        except torch.OutOfMemoryError:
            break
        if needed > available:
            break
        best = images
    if not best:
        raise ValueError(
            f"batch_gpu: auto: not even one image fits in {available / 2**30:.1f} GiB; take a smaller network or crop, "
            "compute.checkpointing=true or compute.precision=bf16"
        )
    return best


def run_pass(denoiser: Denoiser, images: int, channels: int, side: int, precision: str) -> None:
    """Two passes of made-up images, the second on top of the gradients of the first; gradients are dropped after them.

    The state of the global random generators is left as it was. Raises torch.OutOfMemoryError where it does not fit.
    """
    device = next(denoiser.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            for _ in range(2):
                loss_of_noise(denoiser, images, channels, side, device, precision).backward()
        finally:
            denoiser.zero_grad(set_to_none=True)


def gpu_trial(denoiser: Denoiser, channels: int, side: int, precision: str, moments: int) -> Trial:
    """Bytes that the allocator had reserved at the peak of a real pass, and `moments` bytes that Adam has yet to take."""
    device = next(denoiser.parameters()).device

    def trial(images: int) -> int:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            run_pass(denoiser, images, channels, side, precision)
            return torch.cuda.max_memory_reserved(device) + moments
        finally:
            gc.collect()
            torch.cuda.empty_cache()

    return trial


def machine_memory() -> int:
    """Bytes of memory that this machine has, in all.

    Raises:
        ValueError: the system does not tell.
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError) as error:
        raise ValueError("batch_gpu: auto: this system does not tell how much memory it has; set batch_gpu to a number") from error


def fitting_pass(
    denoiser: Denoiser, batch_size: int, channels: int, side: int, precision: str, limits: PassLimits, *, has_moments: bool = False
) -> int:
    """`batch_gpu: auto`, for a denoiser on its device, prepared but not compiled, without gradients.

    On a GPU passes are run; elsewhere they are counted, which depends on nothing but machine and options.

    Args:
        has_moments: Adam's moments are in memory already, as in a run that goes on.
    """
    device = next(denoiser.parameters()).device
    if device.type == "cuda":
        moments = 0 if has_moments else 2 * FP32 * parameter_count(denoiser)
        free, _ = torch.cuda.mem_get_info(device)
        ours = free + torch.cuda.memory_reserved(device)
        return largest_pass(
            candidates(batch_size), gpu_trial(denoiser, channels, side, precision, moments), int(limits.gpu_fraction * ours)
        )

    def counted(images: int) -> int:
        return count_pass(denoiser, images, side, precision, channels=channels).total()

    sizes = [size for size in candidates(batch_size) if size <= limits.cpu_images]
    return largest_pass(sizes, counted, int(limits.cpu_fraction * machine_memory()))
