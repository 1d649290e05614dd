"""The core that can be called: arrays in, arrays out. The command, the inference pipeline and the benchmarks call this too.

    import lowlight_kedro as ll

    prior = ll.load_prior()                         # the one that comes with the package, or a path
    out = ll.restore(ll.read_raw("IMG_0001.ARW"), prior, ratio=100)
    out = ll.restore(mosaic, prior, cfa="RGGB", gain=1e-4, read_noise=4e-4, ratio=10)
    x = ll.sample(prior, 4, size=128, seed=0)

Light is linear and white-balanced, (3, H, W), 1 = white of the exposure that is asked for. Nothing here knows Kedro.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.datasets.decoding import read_frame
from lowlight_kedro.datasets.safetensors_file import read_checkpoint
from lowlight_kedro.device import choose_device, choose_precision, keep_freed_memory
from lowlight_kedro.diffusion.checkpoint import Checkpoint, digest
from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.draws import generator_for
from lowlight_kedro.diffusion.networks import built_network
from lowlight_kedro.diffusion.networks.convolution import fastest_layout
from lowlight_kedro.diffusion.prior import Prior, build_prior, network_choice, prior_of
from lowlight_kedro.diffusion.samplers import SAMPLERS, finish, karras_sigmas, steps_within
from lowlight_kedro.exposure import exposure_of, with_defects
from lowlight_kedro.plugins import configured
from lowlight_kedro.restoration.equivariance import familiar_ratio
from lowlight_kedro.restoration.estimates import Estimate, estimate, expected_evaluations, missing_capability
from lowlight_kedro.restoration.guidance import GUIDANCE, Guidance
from lowlight_kedro.restoration.guidance.posterior import capabilities
from lowlight_kedro.restoration.observation import Exposure, Observation
from lowlight_kedro.restoration.settings import Kind, Settings
from lowlight_kedro.restoration.windows import in_windows
from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.dark_map import DarkMap
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.noise import NoiseModel, PoissonGaussian
from lowlight_kedro.sensor.render import render
from lowlight_kedro.sensor.tiles import TILE_SLOPE, from_tile_domain

SHIPPED = Path(__file__).parent / "priors" / "photographs.safetensors"

Progress = Callable[[float], object]


@dataclass(frozen=True)
class LoadedPrior:
    """A prior on its device. `prior(x, sigma)` is E[x0 | x]; x in network units, see `to_network`.

    Attributes:
        checkpoint: weights and description as they lie in the file.
        device: where it is evaluated.
        precision: `fp32` or `bf16`, of the network.
    """

    checkpoint: Checkpoint
    device: torch.device = field(default_factory=lambda: choose_device("auto"))
    precision: Literal["fp32", "bf16"] = "fp32"

    def __getstate__(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self)}  # a worker builds its own network

    @cached_property
    def built(self) -> Prior:
        """The network with its weights, on the device."""
        keep_freed_memory()
        network_choice(self.checkpoint)
        built = build_prior(self.checkpoint, built_network(self.checkpoint.description))
        built.denoiser.to(self.device).to(memory_format=fastest_layout(built.denoiser, self.device, self.precision))  # type: ignore[call-overload]
        return built

    @cached_property
    def digest(self) -> str:
        """What tells this prior from others."""
        return digest(self.checkpoint)

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The denoiser: x (B, 3, H, W) with noise of level sigma, a number or a map; sides are multiples of `multiple`."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=self.device)
        return self.built.denoiser(x.to(self.device), level.expand(x.shape) if level.ndim else level.reshape(1, 1, 1, 1)).to(x.device)

    @property
    def multiple(self) -> int:
        """What the sides of an image must be multiples of."""
        return int(getattr(self.built.denoiser.network, "multiple", 1))

    def to_network(self, light: Any) -> Any:
        """Light, 1 = white, in the network's units."""
        return self.built.scaling.to_network(TILE_SLOPE * light - 1)

    def to_light(self, x: Any) -> Any:
        """The inverse of `to_network`."""
        return from_tile_domain(self.built.scaling.to_tile(x))


@dataclass(frozen=True)
class Restored:
    """A restored frame.

    Attributes:
        light: white-balanced linear camera RGB (3, H, W), 1 = white at the exposure ratio that was asked for.
        std: its standard deviation, or None; `std_from` says how it was made, or why there is none.
        exposure: the measurement that was restored.
        record: how it was restored, for people and files.
        camera_to_srgb: (3, 3), what `picture` needs.
    """

    light: NDArray[np.float32]
    std: NDArray[np.float32] | None
    std_from: str
    exposure: Exposure
    record: dict[str, Any]
    camera_to_srgb: NDArray

    def picture(self, exposure: float = 1.0) -> NDArray[np.uint8]:
        """Display sRGB (H, W, 3), `exposure` times brighter."""
        shown = render(self.light, np.asarray(self.camera_to_srgb), exposure=exposure)
        return np.rint(shown.transpose(1, 2, 0) * 255).astype(np.uint8)


def load_prior(source: str | Path | Checkpoint | None = None, device: str = "auto", precision: str = "auto") -> LoadedPrior:
    """A prior: the one that comes with the package, a file (a training state too), or a checkpoint.

    Raises:
        ValueError: the file is missing or no prior of ours, or the device is not there.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(Path(source) if source is not None else SHIPPED)
    checkpoint = prior_of(checkpoint) if "history" in checkpoint.description else checkpoint
    network_choice(checkpoint)
    where = choose_device(device)
    return LoadedPrior(checkpoint, where, choose_precision(precision, where))  # type: ignore[arg-type]


def read_raw(path: str | Path) -> Frame:
    """A camera raw: mosaic, levels, colour filters, white balance, and what the file tells of its noise.

    Raises:
        ValueError: the file cannot be used; the message names it and says why.
    """
    return read_frame(Path(path))


def checked_guidance(guidance: str | Guidance, prior: LoadedPrior, kind: Kind, options: Mapping[str, Any] | None = None) -> Guidance:
    """A guidance by name or as it is, checked against what the prior can do and what the estimate needs.

    Raises:
        ValueError: guidance, estimate and prior do not go together.
    """
    if isinstance(guidance, str):
        name, table = guidance, GUIDANCE
    else:
        name = getattr(guidance, "__name__", type(guidance).__name__)
        table = {name: guidance}
    bound = configured("guidance", table, name, options or {})
    offered = capabilities(bound, prior.built.denoiser)
    if offered.needs_noise_maps and not prior.built.noise_maps:
        raise ValueError(
            f"guidance {name!r} needs a prior trained on noise maps; this one saw uniform noise only: "
            "train with training.corruption.name=noise_map, or choose guidance dps or mmps"
        )
    lacks = missing_capability(kind, offered)
    if lacks:
        raise ValueError(f"estimate {kind!r}: guidance {name!r} {lacks}")
    return bound


class _Counted:
    """The prior's denoiser in windows; tells `progress` the fraction of all evaluations that is done, and counts those of whole frames."""

    def __init__(self, prior: LoadedPrior, settings: Settings, total: float, progress: Progress) -> None:
        self.evaluations, self._done, self._total, self._progress = 0, 0.0, total, progress
        built, window = prior.built, settings.window
        whole = partial(
            in_windows, built.denoiser, settings.symmetries, size=window.size, memory_mb=window.memory_mb,
            tolerance=window.tolerance * TILE_SLOPE / built.scaling.scale, precision=prior.precision, device=prior.device,
        )  # fmt: skip
        self.denoiser: DenoiserFunction = whole(on_evaluation=self._counted, on_fraction=self._advance)
        self.parts: DenoiserFunction = whole()

    def _counted(self) -> None:
        self.evaluations += 1

    def _advance(self, fraction: float) -> None:
        self._done += fraction
        self._progress(min(self._done / self._total, 1.0))


def restore_exposure(
    exposure: Exposure, prior: LoadedPrior, guidance: Guidance, settings: Settings, name: str, progress: Progress
) -> tuple[Estimate, dict[str, Any]]:
    """`restore` of a measurement whose defects are known, by a checked guidance; light at its own ratio, and facts for the record."""
    asked = familiar_ratio(exposure, settings.highlights)
    observation = Observation(replace(exposure, exposure_ratio=asked), prior.built.scaling, prior.device, settings.structure)
    total = expected_evaluations(
        settings.estimate, capabilities(guidance, prior.built.denoiser), refreshes=settings.refreshes if observation.surely_teaches else 0,
        sampling=settings.sampling, probing=settings.probing,
    )  # fmt: skip
    counted = _Counted(prior, settings, total, progress)
    result = estimate(
        settings.estimate, observation, counted.denoiser, guidance, name=name, seed=settings.seed, refreshes=settings.refreshes,
        sampling=settings.sampling, probing=settings.probing, parts=counted.parts,
    )  # fmt: skip
    facts = {
        "prior_asked_at": asked, "prior": prior.digest, "device": prior.device.type, "precision": prior.precision,
        "estimate": settings.estimate, "evaluations": counted.evaluations * settings.symmetries, "std_from": result.std_from,
        "defects": 0 if exposure.defects is None else int(exposure.defects.sum()),
        "points_of_light": result.points,
        "black_above_header": result.black,
        "draws": settings.sampling.draws if settings.estimate == "mean_of_k" else None,
        "residual": result.remains and vars(result.remains) | {"verdict": result.remains.verdict},
    }  # fmt: skip
    return result.times(exposure.exposure_ratio / asked), facts


def restore(
    raw: Frame | NDArray, prior: LoadedPrior | None = None, *, ratio: float | None = None, cfa: str | Cfa | None = None,
    gain: float | None = None, read_noise: float | None = None, noise: NoiseModel | None = None,
    white_balance: tuple[float, float, float] | None = None, darks: Sequence[Frame] | DarkMap | None = None,
    guidance: str | Guidance = "noise_map", guidance_options: Mapping[str, Any] | None = None, settings: Settings | None = None,
    name: str = "frame", progress: Progress = lambda fraction: None,
) -> Restored:  # fmt: skip
    """The clean light behind a raw, P(x_clean | y_noisy): its mean in one to three evaluations of the prior, or draws.

    Args:
        raw: a frame of `read_raw`, or a mosaic (H, W), floating point, 0 = black, 1 = white; (3, H, W) with `cfa="rgb"`.
        prior: see `load_prior`; None: the one that comes with the package.
        ratio: how many times longer the exposure is that the result should look like; None: so that its mean is 0.1.
        cfa: of an array: RGGB, BGGR, GRBG, GBRG, xtrans, rgb (three values a pixel), or a pattern of 0 R, 1 G, 2 B.
        gain: Var = gain * signal + read_noise^2 in the raw's own units of white. Of a frame both are found where they are not
            given, see `exposure.noise_of`.
        read_noise: see `gain`.
        noise: any noise model instead of the two.
        white_balance: gains of R, G, B; those of a frame, 1 of an array.
        darks: frames of the same camera, ISO and size with the lens cap on, or what `measure_dark_map` makes of them: what they show is
            taken off a frame, and what is not known of it counts as noise.
        guidance: by name, or a function (denoiser, measurement) -> `Posterior`.
        guidance_options: keyword arguments of the guidance.
        settings: everything else.
        name: draws are functions of it and of the seed.
        progress: called with the fraction that is done, 0 to 1.

    Raises:
        ValueError: something does not fit; the message names it.
    """
    if (gain is None) != (read_noise is None) or (noise is not None and gain is not None):
        raise ValueError("give both gain and read_noise, or noise, or none of them")
    prior, settings = prior or load_prior(), settings or Settings()
    noise = PoissonGaussian(gain, read_noise) if gain is not None and read_noise is not None else noise
    exposure, source, matrix = exposure_of(raw, cfa, noise, white_balance, ratio, darks)
    bound = checked_guidance(guidance, prior, settings.estimate, guidance_options)
    exposure = with_defects(exposure, settings.structure)
    result, facts = restore_exposure(exposure, prior, bound, settings, name, progress)
    record = {"exposure_ratio": exposure.exposure_ratio, "noise": vars(exposure.noise), "noise_from": source} | facts
    return Restored(result.light, result.std, result.std_from, exposure, record, matrix)


@torch.no_grad()
def sample(
    prior: LoadedPrior, count: int = 1, *, size: int = 128, seed: int = 0, evaluations: int = 39, sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> NDArray[np.float32]:  # fmt: skip
    """Draws of the prior itself, P(x_clean): light (count, 3, size, size), by Heun's method (Karras et al. 2022, algorithm 1).

    Raises:
        ValueError: the size is no multiple of what the network takes, or a number is not positive.
    """
    if count < 1 or size < 1 or size % prior.multiple:
        raise ValueError(f"count must be at least 1 and size a positive multiple of {prior.multiple}, got count={count}, size={size}")
    images = []
    for number in range(count):
        generator = generator_for("sample", seed, number, prior.device)
        start = sigma_max * standard_normal(torch.empty(1, 3, size, size, device=prior.device), generator)
        levels = karras_sigmas(steps_within(SAMPLERS["heun"], evaluations), sigma_min, sigma_max)
        images.append(finish(SAMPLERS["heun"](prior.built.denoiser, start, levels, generator)))
    return prior.to_light(torch.cat(images)).float().cpu().numpy()  # type: ignore[no-any-return]
