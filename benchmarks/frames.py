"""Seconds and memory of whole frames: `python benchmarks/frames.py --megapixels 24 --prior data/demo/06_models/prior.safetensors`.

A simulated Bayer frame goes through the stages of the restoration with `noise_map`; then every guidance works on 4 megapixels
with a denoiser that costs nothing, which leaves what the method itself takes. Seconds are wall clock and CPU; the peak is that of
the resident memory of the process during the stage. Without `--prior` the demo's network is taken with untrained weights.
`--methods` prints the methods only; `--command` what `lowlight restore` takes for a DNG of that size at x10, ISO 1600, in a process of its
own, with the standard deviation that it finds on the way; `--placement` instead how far the result depends on where windows lie: largest
and root mean square difference from one window over a photograph of 640 x 700 pixels, in linear light, of white.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
from torch import Tensor

from lowlight_kedro.api import load_prior
from lowlight_kedro.datasets.demo import read_photograph
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.device import keep_freed_memory
from lowlight_kedro.diffusion.denoiser import Denoiser, DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.memory import LiveBytes
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.prior import Prior
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.estimates import posterior_mean
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN, Posterior
from lowlight_kedro.restoration.measurement import noise_levels
from lowlight_kedro.restoration.observation import Exposure, Observation
from lowlight_kedro.restoration.passes import LOCAL_REACH
from lowlight_kedro.restoration.settings import Structure
from lowlight_kedro.restoration.windows import in_windows
from lowlight_kedro.sensor.cfa import BAYER_RGGB, masks
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.noise import PoissonGaussian
from lowlight_kedro.sensor.render import srgb_decode

RATIO = 100.0
WHITE_BALANCE = (2.0, 1.0, 1.6)
NOISE = PoissonGaussian(gain=1.5301 / 15871, read_noise=6.3 / 15871)  # Sony A7S II, ISO 1600
CPU = torch.device("cpu")
SHIFTS = (4, 8)  # pixels: off and on the grid of the demo's network
COMMAND = "import sys; from lowlight_kedro.command.arguments import main; sys.exit(main())"  # `lowlight`, wherever it is installed
STEPS, REPEATS = 3, 3  # of a draw; of a timing, the shortest counts


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
    tables.row(name, f"{wall:.2f}", f"{cpu:.2f}", f"{cpu / megapixels:.3f}", f"{peak:.0f}", f"{resident('VmRSS'):.0f}")


def exposure(megapixels: float, ratio: float = RATIO) -> Exposure:
    """A smooth scene with edges, short by `ratio`, at the noise of a Sony A7S II at ISO 1600."""
    height = int((megapixels * 1e6 / 1.5) ** 0.5) // 2 * 2
    shape, rng = (height, int(1.5 * height) // 2 * 2), np.random.default_rng(0)
    light = rng.uniform(0.02, 0.9, (-(-shape[0] // 64), -(-shape[1] // 64))).astype(np.float32)
    signal = np.repeat(np.repeat(light, 64, 0), 64, 1)[: shape[0], : shape[1]] / np.float32(ratio) / 2
    signal += rng.standard_normal(shape, dtype=np.float32) * np.sqrt(np.float32(NOISE.gain) * signal + np.float32(NOISE.read_noise**2))
    return Exposure(signal, BAYER_RGGB, WHITE_BALANCE, ratio, NOISE)


def command(megapixels: float) -> None:
    """Seconds, CPU seconds and peak memory of the whole command; decoding, writing and start-up are in them."""
    shot = exposure(megapixels, ratio=10.0)
    dn = np.rint(512 + 15871 * shot.signal).clip(0, 16383).astype(np.uint16)
    frame = Frame(
        dn, BAYER_RGGB, np.full((2, 2), 512, np.float32), 16383.0, exposure_s=0.1, iso=1600.0, camera="Sony ILCE-7SM2",
        white_balance=WHITE_BALANCE, camera_to_srgb=np.eye(3, dtype=np.float32),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "frame.dng"
        write_dng(raw, frame)
        words = [sys.executable, "-c", COMMAND, "restore", raw, "--ratio", "10", "--files", "linear", "--out", folder]
        begin = time.perf_counter()
        subprocess.run([str(word) for word in words], check=True)
        wall, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    tables.head("megapixels", "s", "CPU s", "CPU s/MP", "peak MiB")
    tables.row(f"{dn.size / 1e6:.1f}", f"{wall:.1f}", f"{cpu:.1f}", f"{cpu / dn.size * 1e6:.2f}", f"{used.ru_maxrss / 1024:.0f}")


def load(path: str | None) -> Prior:
    keep_freed_memory()
    if path is None:
        network = NETWORKS["pyramid_unet"](widths=[32, 64, 96], blocks=1)
        return Prior(Denoiser(network, 0.5).requires_grad_(False), Scaling(-0.725, 0.861), True)
    return load_prior(path, "cpu", "fp32").built


def frame_denoiser(prior: Prior, options: argparse.Namespace, **callbacks: Callable) -> DenoiserFunction:
    return in_windows(
        prior.denoiser, size=options.size, memory_mb=options.memory_mb,
        tolerance=options.tolerance * 2 / prior.scaling.scale, precision=options.precision, device=options.device, **callbacks,
    )  # fmt: skip


def stages(prior: Prior, options: argparse.Namespace) -> None:
    """The restoration, piece by piece and whole."""
    shot = exposure(options.megapixels)
    mp = shot.signal.size / 1e6
    print(f"{mp:.1f} MP, {torch.get_num_threads()} threads, {options.precision}, windows of {options.memory_mb} MiB")
    tables.head("stage", "s", "CPU s", "CPU s/MP", "peak MiB", "after, MiB")
    with stage("(the frame itself)", mp):
        pass
    with torch.no_grad():
        observation = Observation(shot, prior.scaling, CPU, Structure())
        with stage("first estimate", mp):
            first = observation.first(LOCAL_REACH)
        with stage("measurement", mp):
            measurement = observation.measurement(first)
        del first
        y, sigma = measurement.y, measurement.s.masked_fill_(measurement.mask == 0, SIGMA_UNKNOWN)
        del measurement
        with stage("denoiser, one evaluation", mp):
            frame_denoiser(prior, options)(y, sigma)
        del y, sigma
    with stage(f"posterior_mean, {1 + options.refreshes} evaluations", mp):
        posterior_mean(shot, frame_denoiser(prior, options), prior.scaling, GUIDANCE["noise_map"], refreshes=options.refreshes, device=CPU)


class Free:
    """A denoiser that costs next to nothing and counts its evaluations."""

    def __init__(self) -> None:
        self.evaluations = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.evaluations += 1
        return x * 1.0


def asked_for(posterior: Posterior, first: Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    """All that a method can be asked for."""
    denoiser, mean, draw = posterior.denoiser, posterior.mean, posterior.draw
    if denoiser is not None:
        yield "denoiser", lambda: denoiser(first, torch.full((1, 1, 1, 1), 0.5))
    if mean is not None:
        yield "mean", mean
    if draw is not None:
        yield "draw", lambda: deque(draw(first, STEPS, torch.Generator().manual_seed(0)), maxlen=1)


@torch.no_grad()
def method_costs(prior: Prior) -> None:
    """Every guidance with a denoiser that costs nothing."""
    shot, free = exposure(4.0), Free()
    mp = shot.signal.size / 1e6
    observation = Observation(shot, prior.scaling, CPU, Structure())
    first = observation.first(LOCAL_REACH)
    measurement = observation.measurement(first)
    tables.head("guidance", "asked for", "evaluations", "CPU ms/MP and evaluation", "tensors MB/MP")
    for name, guidance in GUIDANCE.items():
        for what, run in asked_for(guidance(free, measurement), first):
            found, before = [], free.evaluations
            for _ in range(REPEATS):
                begin = time.process_time()
                run()
                found.append(time.process_time() - begin)
            count = (free.evaluations - before) // REPEATS
            with LiveBytes() as live:
                run()
            tables.row(name, what, count, f"{min(found) / mp / count * 1e3:.0f}", f"{live.peak / mp / 1e6:.0f}")


def photograph(prior: Prior) -> Tensor:
    """x0 (1, 3, 640, 700) of a photograph that scikit-image ships, mirrored at its rim."""
    light = srgb_decode(read_photograph("motorcycle_left.png", 1).astype(np.float32) / 255)[:640, :700].transpose(2, 0, 1)
    height, width = (total - length for total, length in zip((640, 700), light.shape[1:], strict=True))
    light = np.pad(light, ((0, 0), (0, height), (0, width)), mode="reflect")
    return torch.from_numpy(prior.scaling.to_network(2 * light - 1).astype(np.float32))[None]


def states(prior: Prior) -> Iterator[tuple[str, Tensor, Tensor]]:
    """x and sigma: a mosaic with the noise of `exposure` at x100, and two uniform levels."""
    x0, generator = photograph(prior), torch.Generator().manual_seed(0)
    noise = standard_normal(x0, generator)
    s, mask = noise_levels(x0, NOISE, RATIO, WHITE_BALANCE, prior.scaling), torch.from_numpy(masks(BAYER_RGGB, tuple(x0.shape[-2:])))
    yield "Bayer noise map", mask * (x0 + s * noise), torch.where(mask, s, SIGMA_UNKNOWN)
    for sigma in (0.5, 8.0):
        yield f"uniform sigma {sigma:g}", x0 + sigma * noise, torch.full((1, 1, 1, 1), sigma)


def off_grid(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, shift: int, reach: int) -> Tensor:
    """Change of D by a window that begins `shift` rows and columns further, beyond the reach of its rims."""
    sigma = sigma.expand(x.shape)
    other = denoiser(x[..., shift:, shift:], sigma[..., shift:, shift:]) - denoiser(x, sigma)[..., shift:, shift:]
    return other[..., reach:-reach, reach:-reach]


@torch.no_grad()
def placement(prior: Prior, tolerance: float) -> None:
    """Largest differences between windows and the frame in one piece, and between bf16 and fp32."""
    network, to_light = prior.denoiser.network, prior.scaling.scale / 2
    margins = {"tolerance": tolerance / to_light}
    ways: dict[str, dict[str, Any]] = {
        "128, overlap 32": {"size": 128, "overlap": 32},
        "512, overlap 64": {"size": 512, "overlap": 64},
        f"256, tolerance {tolerance:g}": {"size": 256} | margins,
        f"512, tolerance {tolerance:g}": {"size": 512} | margins,
        f"60 MB, tolerance {tolerance:g}": {"memory_mb": 60} | margins,
        "512, exact reach": {"size": 512},
        "bf16, one window": {"precision": "bf16"},
        f"bf16, 512, tolerance {tolerance:g}": {"size": 512, "precision": "bf16"} | margins,
    }
    cases = list(states(prior))
    frames = partial(in_windows, prior.denoiser)
    whole = [frames()(x, sigma) for _, x, sigma in cases]
    tables.head("windows", *(name for name, *_ in cases))
    rows = {
        name: [frames(**options)(x, sigma) - one for (_, x, sigma), one in zip(cases, whole, strict=True)] for name, options in ways.items()
    }
    rows |= {
        f"one window, begun {shift} pixels further": [off_grid(frames(), x, s, shift, network.reach) for _, x, s in cases]
        for shift in SHIFTS
    }
    for name, errors in rows.items():
        cells = [f"{to_light * float(e.abs().max()):.1e}; {to_light * float(e.square().mean().sqrt()):.1e}" for e in errors]
        tables.row(name, *cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--prior")
    parser.add_argument("--refreshes", type=int, default=1)
    parser.add_argument("--memory-mb", type=float, default=500)
    parser.add_argument("--size", type=int)
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of white, linear light")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", type=torch.device)
    parser.add_argument("--methods", action="store_true", help="the methods only")
    parser.add_argument("--placement", action="store_true", help="how far the result depends on where windows lie")
    parser.add_argument("--command", action="store_true", help="the whole command, in a process of its own")
    options = parser.parse_args()
    if options.command:
        command(options.megapixels)
        return
    prior = load(options.prior)
    if options.placement:
        placement(prior, options.tolerance)
        return
    if not options.methods:
        stages(prior, options)
    method_costs(prior)


if __name__ == "__main__":
    main()
