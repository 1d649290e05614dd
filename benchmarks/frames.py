"""Seconds and memory of whole frames: `python benchmarks/frames.py --megapixels 24 --prior data/demo/06_models/prior.safetensors`.

A simulated Bayer frame goes through the stages of the restoration with `noise_map`; then every guidance works on 4 megapixels
with a denoiser that costs nothing, which leaves what the method itself takes. Seconds are wall clock and CPU; the peak is that of
the resident memory of the process during the stage. Without `--prior` the demo's network is taken with untrained weights.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from restoration import load_prior

from lowlight_kedro.diffusion.checkpoint import Prior
from lowlight_kedro.diffusion.denoiser import Denoiser, DenoiserFunction
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from lowlight_kedro.restoration.reach import LiveBytes
from lowlight_kedro.restoration.refresh import Readout, Structure
from lowlight_kedro.restoration.restore import LOCAL_REACH, Exposure, posterior_mean
from lowlight_kedro.restoration.windows import windowed
from lowlight_kedro.sensor.cfa import BAYER_RGGB
from lowlight_kedro.sensor.noise.poisson_gaussian import PoissonGaussian

RATIO = 100.0
WHITE_BALANCE = (2.0, 1.0, 1.6)
CPU = torch.device("cpu")


def resident(key: str) -> float:
    """MiB, of /proc/self/status: VmRSS now, VmHWM since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


@contextmanager
def stage(name: str, megapixels: float) -> Iterator[None]:
    """Print what its body took."""
    Path("/proc/self/clear_refs").write_text("5")
    begin, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = resident("VmHWM")
    print(f"| {name} | {wall:.2f} | {cpu:.2f} | {cpu / megapixels:.3f} | {peak:.0f} | {resident('VmRSS'):.0f} |", flush=True)


def exposure(megapixels: float) -> Exposure:
    """A smooth scene with edges, x100 short, at the noise of a Sony A7S II at ISO 1600."""
    height = int((megapixels * 1e6 / 1.5) ** 0.5) // 2 * 2
    shape, rng = (height, int(1.5 * height) // 2 * 2), np.random.default_rng(0)
    light = rng.uniform(0.02, 0.9, (-(-shape[0] // 64), -(-shape[1] // 64))).astype(np.float32)
    signal = np.repeat(np.repeat(light, 64, 0), 64, 1)[: shape[0], : shape[1]] / np.float32(RATIO) / 2
    noise = PoissonGaussian(gain=1.5301 / 15871, read_noise=6.3 / 15871)
    signal += rng.standard_normal(shape, dtype=np.float32) * np.sqrt(np.float32(noise.gain) * signal + np.float32(noise.read_noise**2))
    return Exposure(signal, BAYER_RGGB, WHITE_BALANCE, RATIO, noise)


def load(path: str | None) -> Prior:
    if path is None:
        network = NETWORKS["pyramid_unet"](widths=[32, 64, 96], blocks=1)
        return Prior(Denoiser(network, 0.5).requires_grad_(False), Scaling(-0.725, 0.861), True)
    prior = load_prior(Path(path))
    prior.denoiser.to(memory_format=torch.channels_last)
    return prior


def frame_denoiser(prior: Prior, options: argparse.Namespace, **callbacks: Callable) -> DenoiserFunction:
    network = prior.denoiser.network
    return windowed(
        prior.denoiser, multiple=network.multiple, reach=network.reach, size=options.size, memory_mb=options.memory_mb,
        tolerance=options.tolerance * 2 / prior.scaling.scale, precision=options.precision, device=options.device, **callbacks,
    )  # fmt: skip


def stages(prior: Prior, options: argparse.Namespace) -> None:
    """The restoration, piece by piece and whole."""
    shot = exposure(options.megapixels)
    mp = shot.signal.size / 1e6
    print(f"{mp:.1f} MP, {torch.get_num_threads()} threads, {options.precision}, windows of {options.memory_mb} MiB\n")
    print("| stage | s | CPU s | CPU s/MP | peak MiB | after, MiB |\n|---|---|---|---|---|---|")
    with stage("(the frame itself)", mp):
        pass
    with torch.no_grad():
        readout = Readout(shot, prior.scaling, CPU, Structure())
        with stage("first estimate", mp):
            first = readout.first(LOCAL_REACH)
        with stage("measurement", mp):
            measurement = readout.measurement(first)
        del first
        y, sigma = measurement.y, measurement.s.masked_fill_(measurement.mask == 0, SIGMA_UNKNOWN)
        del measurement
        with stage("denoiser, one evaluation", mp):
            frame_denoiser(prior, options)(y, sigma)
        del y, sigma
    with stage(f"posterior_mean, {1 + options.refreshes} evaluations", mp):
        posterior_mean(shot, frame_denoiser(prior, options), prior.scaling, GUIDANCE["noise_map"], refreshes=options.refreshes, device=CPU)


def method_costs(prior: Prior) -> None:
    """Every guidance with a denoiser that costs nothing."""
    shot = exposure(4.0)
    mp = shot.signal.size / 1e6
    with torch.no_grad():
        readout = Readout(shot, prior.scaling, CPU, Structure())
        first = readout.first(LOCAL_REACH)
        measurement = readout.measurement(first)
    print("\n| guidance, one evaluation without the denoiser | CPU ms/MP | tensors MB/MP |\n|---|---|---|")
    for name, guidance in GUIDANCE.items():
        posterior = guidance(lambda x, sigma: x * 1.0, measurement)
        if posterior.denoiser is None:
            continue
        level, found = torch.full((1, 1, 1, 1), 0.5), []
        for _ in range(3):
            begin = time.process_time()
            with torch.no_grad():
                posterior.denoiser(first, level)
            found.append((time.process_time() - begin) / mp * 1e3)
        with torch.no_grad(), LiveBytes() as live:
            posterior.denoiser(first, level)
        print(f"| {name} | {min(found):.1f} | {live.peak / mp / 1e6:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--prior")
    parser.add_argument("--refreshes", type=int, default=1)
    parser.add_argument("--memory-mb", type=float, default=400)
    parser.add_argument("--size", type=int)
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of white, linear light")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", type=torch.device)
    parser.add_argument("--methods", action="store_true", help="the methods only")
    options = parser.parse_args()
    prior = load(options.prior)
    if not options.methods:
        stages(prior, options)
    method_costs(prior)


if __name__ == "__main__":
    main()
