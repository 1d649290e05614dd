"""Nodes of the inference pipeline."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from lowlight_kedro.diffusion.checkpoint import Checkpoint, Prior, build_prior, digest
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.order import generator_for
from lowlight_kedro.diffusion.samplers import SAMPLERS
from lowlight_kedro.evaluation.pictures import contact_sheet
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.device import choose_device
from lowlight_kedro.pipelines.inference.options import InferenceOptions, RatioOptions
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.sensor_options import SensorOptions
from lowlight_kedro.plugins import choose, configured
from lowlight_kedro.restoration.guidance import GUIDANCE, Guidance
from lowlight_kedro.restoration.restore import Exposure, posterior_mean, posterior_sample
from lowlight_kedro.restoration.windows import windowed
from lowlight_kedro.sensor.calibration.frames import image_estimate, tag_estimate
from lowlight_kedro.sensor.frame import Frame, crop, normalise, range_dn
from lowlight_kedro.sensor.render import oriented, render

logger = logging.getLogger(__name__)

Restored = dict[str, dict[str, Callable[[], Any]]]


def select_frames(frames: pd.DataFrame, options: InferenceOptions) -> pd.DataFrame:
    """The frames to be restored.

    Raises:
        ValueError: none is left.
    """
    chosen = frames[frames["data_type"].isin(options.select.data_types) & frames["split"].isin(options.select.splits)]
    if chosen.empty:
        raise ValueError(
            f"no frame to restore: of {len(frames)} raws none has data_type in {options.select.data_types} and split in "
            f"{options.select.splits}; widen inference.select"
        )
    return chosen


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


def load_prior(prior: Checkpoint, options: InferenceOptions) -> Prior:
    """The network with its weights, on the device of `options`."""
    network = prior.description["network"]
    built = build_prior(prior, choose("network", NETWORKS, network["name"])(**network["options"]))
    built.denoiser.to(choose_device(options.device))
    return built


def _guidance(prior: Prior, options: InferenceOptions) -> Guidance:
    """The chosen guidance, checked against what the prior can do.

    Raises:
        ValueError: guidance, estimate and prior do not go together.
    """
    guidance = choose("guidance", GUIDANCE, options.guidance.name)
    on_maps = getattr(guidance, "needs_noise_maps", False)
    if on_maps and not prior.noise_maps:
        raise ValueError(
            f"guidance {options.guidance.name!r} needs a prior trained on noise maps; this one saw uniform noise only: "
            "train with training.corruption.name=noise_map, or choose guidance diffpir or dps"
        )
    if options.estimate == "mean" and not on_maps:
        raise ValueError(f"estimate 'mean' needs guidance noise_map, got {options.guidance.name!r}; set inference.estimate=sample")
    return configured("guidance", GUIDANCE, options.guidance.name, options.guidance.chosen)


@dataclass(frozen=True)
class Restoration:
    """What all restoration jobs share; each worker builds the network once."""

    checkpoint: Checkpoint
    sensor: SensorOptions
    options: InferenceOptions
    calibrations: Sequence[Mapping[str, Any]]

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # a worker builds its own network

    @cached_property
    def prior(self) -> Prior:
        """See `load_prior`."""
        return load_prior(self.checkpoint, self.options)

    @cached_property
    def guidance(self) -> Guidance:
        """The chosen guidance, checked against the prior."""
        return _guidance(self.prior, self.options)


def _restore(exposure: Exposure, shared: Restoration) -> tuple[NDArray, int]:
    """The restored light and the number of evaluations of the whole frame."""
    prior, options = shared.prior, shared.options
    device, sample = choose_device(options.device), options.sample
    expected = sample.evaluations if options.estimate == "sample" else None
    with tqdm(total=expected, desc=options.estimate, unit="evaluation", leave=False) as progress:
        denoiser = windowed(
            prior.denoiser, size=options.window.size, overlap=options.window.overlap,
            multiple=getattr(prior.denoiser.network, "multiple", 1), on_evaluation=lambda: progress.update(),
        )  # fmt: skip
        if options.estimate == "mean":
            light = posterior_mean(exposure, denoiser, prior.scaling, shared.guidance, refreshes=options.refreshes, device=device)
        else:
            light = posterior_sample(
                exposure, denoiser, prior.scaling, shared.guidance, sampler=choose("sampler", SAMPLERS, sample.sampler),
                evaluations=sample.evaluations, sigma_min=sample.sigma_min, start=sample.start, device=device,
                generator=generator_for("sample", options.seed, 0, device),
            )  # fmt: skip
        return light, int(progress.n)


def _restore_frame(raw: Callable[[], Frame], paired: float | None, shared: Restoration) -> dict[str, Any]:
    """White-balanced linear camera RGB, sRGB, a preview, and the record of how they were made."""
    begin, options = time.perf_counter(), shared.options
    frame = raw()
    frame = crop(frame, *options.crop) if options.crop else frame
    signal = normalise(frame)
    ratio, why = exposure_ratio(frame, signal, paired, options.exposure_ratio)
    own = {"tag": lambda: tag_estimate(frame), "image": lambda: image_estimate(frame)}
    noise, source, passed_over = shared.sensor.noise_model(
        frame.camera, frame.iso, range_dn(frame), shared.sensor.sources(shared.calibrations, own)
    )
    logger.info("exposure ratio %.4g (%s); noise from %s", ratio, why, source)
    light, evaluations = _restore(Exposure(signal, frame.cfa, frame.white_balance, ratio, noise), shared)
    display = oriented(render(light, frame.camera_to_srgb), frame.orientation)
    record = {
        "exposure_ratio": ratio, "ratio_from": why, "noise": vars(noise), "noise_from": source,
        "noise_not_from": passed_over, "crop": options.crop,
        "guidance": options.guidance.name, "estimate": options.estimate, "evaluations": evaluations,
        "seconds": round(time.perf_counter() - begin, 2), "camera": frame.camera, "iso": frame.iso,
    }  # fmt: skip
    return {"linear": light, "srgb": display, "preview": display, "record": record}


def restore_frames(
    raw_frames: dict[str, Any], selected: pd.DataFrame, known_pairs: pd.DataFrame, prior: Checkpoint,
    calibrations: list[dict], sensor: SensorOptions, options: InferenceOptions, executor: ExecutorOptions,
) -> Jobs:  # fmt: skip
    """For each selected frame the job to restore it.

    Raises:
        ValueError: guidance, estimate and prior do not go together.
    """
    shared = Restoration(prior, sensor, options, calibrations)
    _ = shared.guidance  # builds the network: what does not go together is said before any frame
    ratios = dict(zip(known_pairs["short"], known_pairs["exposure_ratio"], strict=True))
    settings = [digest(prior), calibrations, sensor.model_dump(), options.model_dump(exclude={"select"})]
    jobs = [
        Job(name, partial(_restore_frame, raw_frames[name], ratios.get(name)), [raw_frames[name]], [settings, ratios.get(name)])
        for name in selected["frame"]
    ]
    return Jobs(jobs, shared, executor.build(), "restoring", "frame")


def show_restored(restored: Restored, selected: pd.DataFrame) -> Figure:
    """The first dozen restored frames on one sheet.

    Raises:
        ValueError: no frame could be restored.
    """
    records = {name: restored[name]["record"]() for name in selected["frame"]}
    names = [name for name, record in records.items() if "error" not in record][:12]
    if not names:
        raise ValueError("no frame could be restored:\n  " + "\n  ".join(f"{name}: {record['error']}" for name, record in records.items()))
    return contact_sheet({name: restored[name]["preview"]() for name in names})
