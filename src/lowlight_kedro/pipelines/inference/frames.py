"""One frame from raw to its outputs, as a worker does it."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lowlight_kedro.datasets.linear_dng import LinearPicture
from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.diffusion.samplers import SAMPLERS
from lowlight_kedro.evaluation.pictures import heat
from lowlight_kedro.pipelines.device import choose_device
from lowlight_kedro.pipelines.inference.model import Restoration, unfamiliar_mosaic
from lowlight_kedro.pipelines.inference.options import DisplayOptions, RatioOptions
from lowlight_kedro.plugins import choose
from lowlight_kedro.restoration.estimates import Estimate, Probing, Sampling, estimate, expected_evaluations
from lowlight_kedro.restoration.guidance.posterior import capabilities
from lowlight_kedro.restoration.headroom import headroom
from lowlight_kedro.restoration.restore import Exposure, Structure
from lowlight_kedro.restoration.windows import windowed
from lowlight_kedro.sensor.calibration.frames import image_estimate, tag_estimate
from lowlight_kedro.sensor.frame import Frame, crop, normalise, range_dn
from lowlight_kedro.sensor.render import Display, display_exposure, oriented, render, share_outside, shrunk
from lowlight_kedro.sensor.tiles import TILE_SLOPE

logger = logging.getLogger(__name__)

BAR = "{l_bar}{bar}| {n:.1f}/{total_fmt} evaluations [{elapsed}<{remaining}]"


def exposure_ratio(frame: Frame, signal: NDArray, paired: float | None, options: RatioOptions) -> tuple[float, str]:
    """How many times longer the result should look exposed, and why: see `RatioOptions`.

    Raises:
        ValueError: the target exposure needs an exposure time and the file has none, or the frame is black.
    """
    if options.value is not None:
        return options.value, "parameter exposure_ratio.value"
    if options.target_exposure_s is not None:
        if not np.isfinite(frame.exposure_s):
            raise ValueError("the file does not tell its exposure time; give inference.exposure_ratio.value")
        return options.target_exposure_s / frame.exposure_s, f"{options.target_exposure_s:g} s over EXIF {frame.exposure_s:g} s"
    if paired is not None:
        return paired, "exposure times of the pair"
    mean = float(signal.mean())
    if mean <= 0:
        raise ValueError("the frame holds no light above black; give inference.exposure_ratio.value")
    return max(options.target_brightness / mean, 1.0), f"mean brightness to {options.target_brightness:g}"


def saturated_share(signal: NDArray, most: float) -> float:
    """The share of photosites at white.

    Raises:
        ValueError: it is more than `most`.
    """
    share = float((signal >= 1).mean())
    if share > most:
        raise ValueError(
            f"the frame is over-exposed: {share:.0%} of its photosites are at white, expected at most {most:.0%}; "
            "choose a shorter exposure, or raise inference.max_saturated"
        )
    return share


def _denoiser(shared: Restoration, evaluated: list[int], progress: tqdm) -> DenoiserFunction:
    """The prior's, in windows; each moves `progress` on by its share, each evaluation of the whole frame adds to `evaluated`."""
    prior, window = shared.prior, shared.options.window
    network = prior.denoiser.network
    return windowed(
        prior.denoiser, size=window.size, memory_mb=window.memory_mb, tolerance=window.tolerance * TILE_SLOPE / prior.scaling.scale,
        multiple=getattr(network, "multiple", 1), reach=getattr(network, "reach", None), precision=window.precision,
        device=choose_device(shared.options.device), on_evaluation=lambda: evaluated.append(1), on_share=progress.update,
    )  # fmt: skip


def _estimate(exposure: Exposure, shared: Restoration, name: str) -> tuple[Estimate, int]:
    """The restored light with its standard deviation, and the number of evaluations of the whole frame."""
    options, sample = shared.options, shared.options.sample
    sampling = Sampling(choose("sampler", SAMPLERS, sample.sampler), sample.evaluations, sample.sigma_min, sample.sigma_max, options.draws)
    probing = Probing(**options.uncertainty.model_dump())
    offered = capabilities(shared.guidance, shared.prior.denoiser)
    total = expected_evaluations(options.estimate, offered, refreshes=options.refreshes, sampling=sampling, probing=probing)
    evaluated: list[int] = []
    with tqdm(total=total, desc=f"{options.estimate} of {name}", bar_format=BAR, leave=False) as progress:
        result = estimate(
            options.estimate, exposure, _denoiser(shared, evaluated, progress), shared.prior.scaling, shared.guidance,
            name=name, seed=options.seed, refreshes=options.refreshes, sampling=sampling, probing=probing,
            structure=Structure(**options.measurement.model_dump()), device=choose_device(options.device),
        )  # fmt: skip
    return result, len(evaluated)


def _weakened(result: Estimate, frame: Frame, ratio: float, shared: Restoration) -> Estimate:
    """`result` with as much of the noisy input, demosaiced and scaled, as `strength` leaves.

    Raises:
        ValueError: the demosaicer gives smaller images.
    """
    demosaicer, strength = shared.demosaicer, shared.options.strength
    if strength == 1 or demosaicer is None:
        return result
    if demosaicer.scale(frame.cfa) != 1:
        raise ValueError("inference.strength below 1 needs a demosaicer that keeps the size of the frame, not superpixel")
    return result.blended(demosaicer.demosaic(frame) * np.float32(ratio), strength)


def _pictures(
    result: Estimate, frame: Frame, ratio: float, source: Path | None, options: DisplayOptions
) -> tuple[dict[str, Any], dict[str, Any]]:
    """White-balanced linear camera RGB and its standard deviation, as the sensor lies; the rest upright. And facts for the record."""
    saturation = ratio * min(frame.white_balance)
    display = Display(**options.model_dump(exclude={"preview_side"}))
    shown = display_exposure(result.light, display, saturation)

    def picture(light: NDArray) -> NDArray:
        drawn = render(light, frame.camera_to_srgb, exposure=shown, knee=display.knee, saturation=saturation)
        return oriented(drawn, frame.orientation)

    pictures: dict[str, Any] = {
        "linear": result.light, "dng": LinearPicture(result.light, frame, ratio, source),
        "srgb": picture(result.light), "preview": picture(shrunk(result.light, options.preview_side, saturation)),
    }  # fmt: skip
    if result.std is not None:
        pictures |= {"std": result.std, "std_preview": oriented(heat(result.std), frame.orientation)}
    return pictures, {"display_exposure": shown, "clipped_in_linear": share_outside(result.light)}


def restore_frame(raw: Callable[[], Frame], paired: float | None, name: str, shared: Restoration) -> dict[str, Any]:
    """The pictures of a frame, and the record of how they were made."""
    begin, options = time.perf_counter(), shared.options
    frame = raw()
    frame = crop(frame, *options.crop) if options.crop else frame
    signal = normalise(frame)
    saturated = saturated_share(signal, options.max_saturated)
    ratio, why = exposure_ratio(frame, signal, paired, options.exposure_ratio)
    own = {"tag": lambda: tag_estimate(frame), "image": lambda: image_estimate(frame)}
    noise, source, passed_over = shared.sensor.noise_model(
        frame.camera, frame.iso, range_dn(frame), shared.sensor.sources(shared.calibrations, own)
    )
    logger.info("exposure ratio %.4g (%s); noise from %s", ratio, why, source)
    unfamiliar = unfamiliar_mosaic(shared.checkpoint.description, frame.cfa)
    if unfamiliar:
        logger.warning("%s: %s", name, unfamiliar)
    exposure = Exposure(signal, frame.cfa, frame.white_balance, ratio, noise)
    darker = headroom(exposure, **options.highlights.model_dump())
    result, evaluations = _estimate(replace(exposure, exposure_ratio=ratio / darker), shared, name)
    result = _weakened(result.times(darker), frame, ratio, shared)
    pictures, shown = _pictures(result, frame, ratio, getattr(raw, "path", None), options.display)
    record = shown | {
        "exposure_ratio": ratio, "ratio_from": why, "restored_darker_by": darker, "noise": vars(noise), "noise_from": source,
        "noise_not_from": passed_over, "crop": options.crop, "saturated_share": saturated, "warning": unfamiliar,
        "prior": shared.prior_digest, "options": options.describe(),
        "guidance": options.guidance.name, "estimate": options.estimate, "strength": options.strength, "evaluations": evaluations,
        "draws": options.draws if options.estimate == "mean_of_k" else None, "std_from": result.std_from,
        "mean_std": None if result.std is None else float(result.std.mean(dtype=np.float64)),
        "seconds": round(time.perf_counter() - begin, 2), "camera": frame.camera, "iso": frame.iso,
    }  # fmt: skip
    return pictures | {"record": record}
