"""Training steps per second on a GPU, variants interleaved in one process: `python benchmarks/training_gpu.py`.

Each variant is the product's own `train_step` on tiles in memory, with another `Compute`. Compilation and the first steps are warm-up,
told apart. Not run on a GPU yet; that it works is shown by a small one on a CPU:

    python benchmarks/training_gpu.py --device cpu --widths 16 24 --blocks 1 --side 32 --batch 8 --pass 4 --steps 2 --rounds 2
"""

import argparse
import statistics
from dataclasses import dataclass
from time import perf_counter

import tables
import torch

from lowlight_kedro.diffusion.compute import Compute, compile_network, gpu_arithmetic, prepare
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.draws import CORRUPTIONS
from lowlight_kedro.diffusion.ema import halflife
from lowlight_kedro.diffusion.memory import count_pass, parameter_count, run_pass
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.training import Schedule, State, train_step

VARIANTS = {
    "fp32": Compute(),
    "tf32": Compute(tf32=True),
    "bf16": Compute("bf16", tf32=True),
    "bf16, channels_last": Compute("bf16", tf32=True, channels_last=True),
    "bf16, channels_last, checkpointing": Compute("bf16", tf32=True, channels_last=True, checkpointing=True),
    "bf16, channels_last, compiled": Compute("bf16", tf32=True, channels_last=True, compile="default"),
    "bf16, channels_last, CUDA graphs": Compute("bf16", tf32=True, channels_last=True, compile="reduce-overhead"),
}
SCALING = Scaling(0.0, 1.0)
CORRUPTION = CORRUPTIONS["uniform"](P_mean=-1.2, P_std=1.2, scaling=SCALING)


@dataclass
class Runner:
    """One variant, warmed up. `flops` of an image without recomputation, so that checkpointing is not paid for."""

    compute: Compute
    schedule: Schedule
    device: torch.device
    tiles: torch.Tensor
    state: State
    warm_up_s: float
    flops: float

    def seconds(self, steps: int) -> float:
        """Wall time of so many updates, with one synchronisation at each end."""
        with gpu_arithmetic(self.compute):
            _wait(self.device)
            started = perf_counter()
            for _ in range(steps):
                passes = self.tiles.split(self.schedule.batch_gpu)
                train_step(self.state, passes, self.schedule, SCALING, CORRUPTION, self.device, lambda tiles: tiles)
            _wait(self.device)
            return perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def plan(options: argparse.Namespace, precision: str) -> Schedule:
    """A schedule long enough that nothing in it ends."""
    return Schedule(
        total_kimg=1e6, batch_size=options.batch, batch_gpu=options.images, learning_rate=1e-4, ramp_kimg=1, cooldown=0,
        averages=halflife(kimg=500, rampup=0.05), decay_kimg=None, check_updates=50, kimg_per_tick=1, snapshot_ticks=50, max_gradient=1.0,
        crop=None, precision=precision, seed=0,
    )  # fmt: skip


def warm(compute: Compute, options: argparse.Namespace, device: torch.device) -> Runner:
    """A state on the device, compiled and run once."""
    torch.manual_seed(0)
    state = State.fresh(Denoiser(NETWORKS[options.network](widths=options.widths, blocks=options.blocks), 0.5).to(device))
    flops = count_pass(state.denoiser, 1, options.side, compute.precision).flops
    prepare(state.denoiser, [state.ema], state.optimizer, compute)
    compile_network(state.denoiser.network, compute)
    tiles = torch.randn(options.batch, 3, options.side, options.side)
    tiles = tiles.pin_memory() if device.type == "cuda" else tiles
    started = perf_counter()
    with gpu_arithmetic(compute):
        run_pass(state.denoiser, options.images, 3, options.side, compute.precision)
    runner = Runner(compute, plan(options, compute.precision), device, tiles, state, 0.0, flops)
    runner.seconds(2)
    runner.warm_up_s = perf_counter() - started
    return runner


def peak_memory(runner: Runner) -> float:
    """GiB at the peak of one update, beside what the other variants hold."""
    if runner.device.type != "cuda":
        return float("nan")
    before = torch.cuda.memory_allocated(runner.device)
    torch.cuda.reset_peak_memory_stats(runner.device)
    runner.seconds(1)
    own = parameter_count(runner.state.denoiser) * 4 * 4  # weights, EMA, Adam: held before too
    return (torch.cuda.max_memory_allocated(runner.device) - before + own) / 2**30


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="pyramid_unet", choices=NETWORKS)
    parser.add_argument("--widths", type=int, nargs="+", default=[192, 384, 576], help="as conf/a40")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pass", type=int, default=32, dest="images")
    parser.add_argument("--steps", type=int, default=10, help="updates per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", type=float, default=149.7, help="TFLOP/s of the device in bf16: A40 149.7, A100 312, H100 989")
    parser.add_argument("--compiled", action="store_true", help="the compiled variants too")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    device = torch.device(options.device)
    chosen = {name: compute for name, compute in VARIANTS.items() if options.compiled or compute.compile is None}
    runners = {name: warm(compute, options, device) for name, compute in chosen.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(options.rounds):
        for name, runner in runners.items():
            seconds[name].append(runner.seconds(options.steps))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {options.network} {options.widths} x {options.blocks}, {options.side} x {options.side}")
    tables.head("variant", "img/s", "of fp32", "TFLOP/s", "of the peak", "peak GiB", "warm-up s")
    speeds = {name: options.steps * options.batch / statistics.median(times) for name, times in seconds.items()}
    for name, runner in runners.items():
        done = speeds[name] * runner.flops / 1e12
        speed = (f"{speeds[name]:.1f}", f"{speeds[name] / speeds['fp32']:.2f}", f"{done:.2f}", f"{done / options.peak:.0%}")
        tables.row(name, *speed, f"{peak_memory(runner):.2f}", f"{runner.warm_up_s:.1f}")


if __name__ == "__main__":
    main()
