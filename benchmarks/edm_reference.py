"""This package's mathematics and training step against NVlabs/edm, from the user's own checkout of it.

    git clone https://github.com/NVlabs/edm PATH
    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/edm_reference.py --edm PATH [--widths 32 96] [--rounds 5]

Their code (CC BY-NC-SA 4.0) is imported from PATH, never copied. Agreement: their EDMLoss, EDMPrecond and networks beside
ours on the same weights, images and noise: loss and gradients, and our `ddpmpp` and `adm` with their weights in place.
Speed: training steps interleaved in one process, network and batch equal: theirs as their loop makes it, their network in
our step, our networks in our step.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tables
import torch
from torch import Tensor, nn

from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_loss
from lowlight_kedro.diffusion.draws import CORRUPTIONS, Corrupted
from lowlight_kedro.diffusion.ema import halflife
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.training import Schedule, State, train_step

SIDE, SD = 64, 0.5
MULTIPLIERS = (1, 2, 2)
SCALING = Scaling(0.0, 1.0)  # images in [-1, 1] are the network's units, as there
CORRUPTION = CORRUPTIONS["uniform"](P_mean=-1.2, P_std=1.2, scaling=SCALING)
THEIR_NAME = {"ddpmpp": "SongUNet", "adm": "DhariwalUNet"}
THEIR_ATTENTION = {"ddpmpp": [16], "adm": [32, 16]}  # resolutions, of images of SIDE
OUR_ATTENTION = {"ddpmpp": [2], "adm": [1, 2]}  # the same as levels


@dataclass(frozen=True)
class Theirs:
    """Their modules, and one update as training/training_loop.py makes it."""

    networks: Any
    loss: Any

    @classmethod
    def imported(cls, path: Path) -> "Theirs":
        """Raises SystemExit where `path` is no checkout."""
        if not (path / "training" / "networks.py").is_file():
            raise SystemExit(f"--edm must be a checkout of github.com/NVlabs/edm, got {path} without training/networks.py")
        sys.path.insert(0, str(path))
        from training import loss, networks  # type: ignore[import-not-found]

        return cls(networks, loss.EDMLoss())

    def network(self, name: str, width: int, blocks: int, dropout: float, fp16: bool = False) -> nn.Module:
        torch.manual_seed(0)
        net = self.networks.EDMPrecond(
            SIDE, 3, use_fp16=fp16, sigma_data=SD, model_type=THEIR_NAME[name], model_channels=width, channel_mult=list(MULTIPLIERS),
            num_blocks=blocks, attn_resolutions=THEIR_ATTENTION[name], dropout=dropout,
        )  # fmt: skip
        return net.train().requires_grad_(True)


class AsOurs(nn.Module):
    """Their network under our contract F(scaled, c_noise map)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, scaled: Tensor, c_noise: Tensor) -> Tensor:
        return self.model(scaled, c_noise[:, 0, 0, 0], class_labels=None)


def enliven(net: nn.Module) -> None:
    """Their last layers begin at about 0: give every convolution something to say."""
    for weights in net.parameters():
        if weights.ndim == 4:
            nn.init.normal_(weights, std=0.7 / weights[0].numel() ** 0.5)


def transplanted(name: str, theirs: nn.Module, width: int, blocks: int) -> nn.Module:
    """Our network with their weights; both list them in the order in which they are used.

    Ours has the map's channels besides (0 here), their attention interleaves query, key and value.
    """
    ours = NETWORKS[name](widths=[width * times for times in MULTIPLIERS], blocks=blocks, attention=OUR_ATTENTION[name])
    for (path, mine), given in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        value = given.detach().clone()
        if path == "embedding.layers.0.weight" and name == "adm":  # cosines first there
            value = torch.cat(value.chunk(2, dim=1)[::-1], dim=1)
        if ".qkv." in path:
            heads = ours.get_submodule(path.rsplit(".", 2)[0]).heads
            value = value.unflatten(0, (heads, -1, 3)).movedim(2, 0).flatten(0, 2)
        if path == "first.weight":
            value = torch.cat([value, torch.zeros_like(value)], dim=1)
        mine.data.copy_(value)
    return ours


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a - b).norm() / b.norm())


def flat_gradient(loss: Tensor, net: nn.Module) -> Tensor:
    net.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([weights.grad.flatten() for weights in net.parameters() if weights.grad is not None])


def agreement(theirs: Theirs, name: str, width: int, blocks: int) -> None:
    """Relative distances between what they and we compute from the same weights, images and noise, in fp32."""
    net = theirs.network(name, width, blocks, dropout=0.0)
    enliven(net)
    x0 = torch.rand(4, 3, SIDE, SIDE) * 2 - 1
    torch.manual_seed(1)
    their_loss = theirs.loss(net, x0).mean(dim=(1, 2, 3))
    torch.manual_seed(1)  # their draws in their order
    sigma = (torch.randn(len(x0), 1, 1, 1) * 1.2 - 1.2).exp()
    noisy = Corrupted(x0 + sigma * torch.randn_like(x0), sigma)
    wrapped = Denoiser(AsOurs(net.model), SD)
    our_loss = denoising_loss(wrapped, x0, noisy.x, noisy.sigma)
    gradient = flat_gradient(their_loss.mean(), net)
    with torch.autocast("cpu", torch.bfloat16):
        bf16 = denoising_loss(wrapped, x0, noisy.x, noisy.sigma)
    ours = Denoiser(transplanted(name, net.model, width, blocks), SD)
    with torch.no_grad():
        answers = ours(noisy.x, noisy.sigma), net(noisy.x, noisy.sigma)
    own_loss = denoising_loss(ours, x0, noisy.x, noisy.sigma)
    figures = {
        "loss, their network": distance(our_loss.detach(), their_loss.detach()),
        "its gradient": distance(flat_gradient(our_loss.mean(), net), gradient),
        "its gradient in bf16": distance(flat_gradient(bf16.mean(), net), gradient),
        "D, our network": distance(*answers),
        "its loss": distance(own_loss.detach(), their_loss.detach()),
        "norm of its gradient": abs(float(flat_gradient(own_loss.mean(), ours).norm() / gradient.norm()) - 1),
    }
    tables.row(f"{name} {width}", *(f"{value:.1e}" for value in figures.values()))


AGREEMENT_COLUMNS = ("loss, their network", "its gradient", "its gradient in bf16", "D, our network", "its loss", "norm of its gradient")


def their_step(theirs: Theirs, net: nn.Module, learning_rate: float = 1e-4) -> Callable[[Tensor], Tensor]:
    """Loss summed, backward, nan_to_num of each gradient, Adam, EMA parameter by parameter."""
    ema = deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate, betas=(0.9, 0.999), eps=1e-8)

    def step(tiles: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = theirs.loss(net, tiles.to(torch.float32) / 127.5 - 1)
        loss.sum().mul(1 / len(tiles)).backward()
        for weights in net.parameters():
            if weights.grad is not None:
                torch.nan_to_num(weights.grad, nan=0, posinf=1e5, neginf=-1e5, out=weights.grad)
        optimizer.step()
        for kept, weights in zip(ema.parameters(), net.parameters(), strict=True):
            kept.copy_(weights.detach().lerp(kept, 0.999))
        return loss.mean().detach()

    return step


def our_step(
    network: nn.Module, precision: str, batch: int, device: torch.device, *, channels_last: bool, learning_rate: float = 1e-4
) -> Callable[[Tensor], Tensor]:
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    state = State.fresh(Denoiser(network, SD).to(device))
    plan = Schedule(
        total_kimg=1000, batch_size=batch, batch_gpu=batch, learning_rate=learning_rate, ramp_kimg=0, cooldown=0,
        averages=halflife(kimg=500, rampup=0.05), decay_kimg=None, check_updates=50, kimg_per_tick=1, snapshot_ticks=1, max_gradient=None,
        crop=None, precision=precision, seed=0,
    )  # fmt: skip
    return lambda tiles: (
        train_step(state, [tiles], plan, SCALING, CORRUPTION, device, lambda stored: stored.to(torch.float32) / 127.5 - 1).loss
    )


def candidates(
    theirs: Theirs, name: str, width: int, blocks: int, batch: int, layouts: Sequence[bool], device: torch.device
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Steps by name; the first is what the others are compared with."""

    def wrapped() -> nn.Module:
        return AsOurs(theirs.network(name, width, blocks, 0.0).model)

    def own() -> nn.Module:
        return NETWORKS[name](widths=[width * times for times in MULTIPLIERS], blocks=blocks, attention=OUR_ATTENTION[name])

    steps = {
        f"EDM, dropout {dropout}": their_step(theirs, theirs.network(name, width, blocks, dropout).to(device)) for dropout in (0.0, 0.1)
    }
    if device.type == "cuda":
        steps["EDM, fp16"] = their_step(theirs, theirs.network(name, width, blocks, 0.0, fp16=True).to(device))
    for label, network in (("their network, our step", wrapped), ("our network, our step", own)):
        for precision in ("fp32", "bf16"):
            for channels_last in layouts:
                layout = ", channels_last" if channels_last else ""
                steps[f"{label}, {precision}{layout}"] = our_step(network(), precision, batch, device, channels_last=channels_last)
    return steps


def speed(
    theirs: Theirs, name: str, width: int, blocks: int, batch: int, rounds: int, layouts: Sequence[bool], clock: Callable[[], float],
    device: torch.device,
) -> None:  # fmt: skip
    """Median of interleaved rounds after one to warm up; the ratio is the median of the rounds' own ratios."""
    steps = candidates(theirs, name, width, blocks, batch, layouts, device)
    tiles = torch.randint(0, 256, (batch, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
    seconds: dict[str, list[float]] = {label: [] for label in steps}
    for _ in range(rounds + 1):
        for label, step in steps.items():
            start = clock()
            float(step(tiles))
            seconds[label].append(clock() - start)
    first, dropped, *_ = (times[1:] for times in seconds.values())
    tables.head(f"{name} {width}, {blocks} blocks, batch {batch}, {SIDE} x {SIDE}", "img/s", "over EDM", "over EDM with dropout")
    for label, times in seconds.items():
        versus = (statistics.median(b / a for a, b in zip(times[1:], base, strict=True)) for base in (first, dropped))
        tables.row(label, f"{batch / statistics.median(times[1:]):.2f}", *(f"{ratio:.2f}" for ratio in versus))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edm", type=Path, required=True, help="checkout of github.com/NVlabs/edm")
    parser.add_argument("--names", nargs="+", choices=list(THEIR_NAME), default=list(THEIR_NAME))
    parser.add_argument("--widths", nargs="+", type=int, default=[32, 96])
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 4], help="one per width")
    parser.add_argument("--rounds", type=int, default=5, help="0: agreement only")
    parser.add_argument("--channels_last", action="store_true", help="our steps in that layout too")
    parser.add_argument("--cpu_time", action="store_true", help="seconds of all cores instead of the clock's: where the machine is shared")
    parser.add_argument("--device", default="cpu", help="of the speed: cpu or cuda, there with their fp16 too (not yet run on a GPU)")
    options = parser.parse_args()
    theirs = Theirs.imported(options.edm)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    tables.head("relative distance to EDM", *AGREEMENT_COLUMNS)
    for name in options.names:
        agreement(theirs, name, options.widths[0], options.blocks)
    layouts = (False, True) if options.channels_last else (False,)
    clock = time.process_time if options.cpu_time else time.perf_counter
    for name in options.names if options.rounds else ():
        for width, batch in zip(options.widths, options.batches, strict=True):
            speed(theirs, name, width, options.blocks, batch, options.rounds, layouts, clock, torch.device(options.device))


if __name__ == "__main__":
    main()
