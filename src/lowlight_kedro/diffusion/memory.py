"""What a training pass costs in memory and operations, counted on tensors without values."""

import weakref
from collections.abc import Iterator
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

from lowlight_kedro.diffusion.compute import holding, network_precision
from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_loss

FP32 = 4  # bytes
CPU = torch.device("cpu")


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations made within the block: alive `now`, and the `peak`; `moved`: read and written by all.

    `flops` as torch counts them. Its own `FlopCounterMode` holds tensors longer than they live, so it cannot stand around this.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.moved = self.flops = 0
        self._held: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, made = ([t for t in tree_leaves(part) if isinstance(t, Tensor)] for part in ((args, kwargs), out))
        for tensor in made:
            self._hold(tensor.untyped_storage())
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
        return denoising_loss(denoiser, x0, x0 + sigma * torch.randn_like(x0), sigma).mean()


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
