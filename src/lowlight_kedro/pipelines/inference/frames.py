"""One frame from raw to its outputs, as a worker does it; prior and guidance, which all frames share, are checked before any is read."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lowlight_kedro.api import LoadedPrior, Settings, checked_guidance, load_prior, restore_exposure
from lowlight_kedro.datasets.carried import NOTES, NOTES_IN_DNG
from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.samplers import SAMPLERS
from lowlight_kedro.exposure import with_defects
from lowlight_kedro.jobs import no_bars
from lowlight_kedro.pipelines.inference.options import InferenceOptions, RatioOptions
from lowlight_kedro.pipelines.inference.outputs import Outputs, scaled_light
from lowlight_kedro.pipelines.options import SensorOptions
from lowlight_kedro.plugins import code_of
from lowlight_kedro.restoration.corruption import MOSAICS
from lowlight_kedro.restoration.estimates import Estimate, expected_evaluations
from lowlight_kedro.restoration.guidance import GUIDANCE, Guidance
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN, capabilities
from lowlight_kedro.restoration.observation import Exposure
from lowlight_kedro.restoration.passes import most_refreshes
from lowlight_kedro.restoration.settings import Window
from lowlight_kedro.sensor.calibration.estimate import tag_estimate
from lowlight_kedro.sensor.calibration.single_image import image_estimate
from lowlight_kedro.sensor.cfa import BAYER_RGGB, UNFILTERED, Cfa, masks
from lowlight_kedro.sensor.dark_signal import Darks, DarkSignal, choose_darks, dark_signal
from lowlight_kedro.sensor.frame import Frame, crop, normalise, part_of, range_dn, shaded
from lowlight_kedro.sensor.masked import noise_beside
from lowlight_kedro.sensor.noise import NOISE_MODELS, NoiseModel
from lowlight_kedro.sensor.noise_sources import ASSUMED, variance_error

logger = logging.getLogger(__name__)


TIMED_SIDE, TIMED_LEVEL = 256, 0.1  # pixels, and noise in network units: of no influence on the time


def unfamiliar_mosaic(description: Mapping[str, Any], cfa: Cfa) -> str | None:
    """What to be told where a prior with `description` was trained on mosaics, but none like `cfa`; None = nothing."""
    trained = description["corruption"].get("options", {}).get("mosaics")
    if trained is None or cfa == UNFILTERED or len(cfa) in {len(MOSAICS[name]) for name in trained if name in MOSAICS}:
        return None
    here = next(name for name, known in MOSAICS.items() if len(known) == len(cfa))
    return f"the prior was trained on mosaics {', '.join(trained) or 'of no kind'}, this frame is {here}: expect a worse result"


@dataclass(frozen=True)
class Restoration:
    """What all restoration jobs share; each worker builds the network once."""

    checkpoint: Checkpoint
    sensor: SensorOptions
    options: InferenceOptions
    calibrations: Sequence[Mapping[str, Any]]
    darks: Sequence[Darks] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # a worker builds its own network

    @cached_property
    def prior(self) -> LoadedPrior:
        """See `api.load_prior`."""
        return load_prior(self.checkpoint, self.options.device, self.options.window.precision)

    @cached_property
    def guidance(self) -> Guidance:
        """The chosen guidance, checked against the prior."""
        self.options.guidance.check("guidance", GUIDANCE)
        return checked_guidance(self.options.guidance.name, self.prior, self.options.estimate, self.options.guidance.chosen)

    @property
    def code(self) -> list[dict[str, str]]:
        """Of the plug-ins from elsewhere that take part, see `code_of`."""
        options, network = self.options, self.checkpoint.description["network"]["name"]
        return [
            code_of("guidance", GUIDANCE, [options.guidance.name]), code_of("sampler", SAMPLERS, [options.sample.sampler]),
            code_of("network", NETWORKS, [network]), code_of("noise_model", NOISE_MODELS, [self.sensor.noise.model]),
            options.demosaicer.code(),
        ]  # fmt: skip

    def expected_seconds(self, pixels: float) -> tuple[int, float]:
        """How often the network is evaluated for a frame at most, and about how many seconds that takes here, measured on a small image."""
        settings = self.settings
        evaluations = settings.symmetries * expected_evaluations(
            settings.estimate, capabilities(self.guidance, self.prior.built.denoiser),
            refreshes=most_refreshes(settings.structure, settings.refreshes), sampling=settings.sampling, probing=settings.probing,
        )  # fmt: skip
        image, taken = torch.zeros(1, 3, TIMED_SIDE, TIMED_SIDE), []
        level = torch.full_like(image, TIMED_LEVEL)
        if settings.estimate == "mean":  # a mosaic's missing values are asked for twice; in a draw every value has a level
            level[0, ~torch.from_numpy(masks(BAYER_RGGB, (TIMED_SIDE, TIMED_SIDE)))] = SIGMA_UNKNOWN
        for _ in range(2):
            begin = time.perf_counter()
            self.prior(image, level)
            taken.append(time.perf_counter() - begin)
        return evaluations, evaluations * min(taken) * pixels / TIMED_SIDE**2

    @property
    def settings(self) -> Settings:
        """What `api.restore` needs of the options."""
        options, window = self.options, self.options.window
        return Settings(
            estimate=options.estimate, refreshes=options.refreshes, symmetries=options.symmetries, seed=options.seed,
            sampling=options.sample, probing=options.uncertainty, highlights=options.highlights,
            structure=options.measurement, window=Window(window.size, window.memory_mb, window.tolerance),
        )  # fmt: skip


BAR = "{l_bar}{bar}| [{elapsed}<{remaining}]"


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
    mean = float(shaded(signal, frame.shading).mean())
    if mean <= 0:
        raise ValueError("the frame holds no light above black; give inference.exposure_ratio.value")
    return max(options.target_brightness / mean, 1.0), f"mean brightness to {options.target_brightness:g}"


def saturated_fraction(signal: NDArray, most: float) -> float:
    """The fraction of photosites at white.

    Raises:
        ValueError: it is more than `most`.
    """
    fraction = float((signal >= 1).mean())
    if fraction > most:
        raise ValueError(
            f"the frame is over-exposed: {fraction:.0%} of its photosites are at white, expected at most {most:.0%}; "
            "choose a shorter exposure, or raise inference.max_saturated"
        )
    return fraction


def _restored(exposure: Exposure, shared: Restoration, name: str) -> tuple[Estimate, dict[str, Any]]:
    """The restored light and how it was made, with a bar of what is done."""
    with tqdm(total=1.0, desc=f"{shared.options.estimate} of {name}", bar_format=BAR, leave=False, disable=no_bars()) as bar:
        return restore_exposure(
            exposure, shared.prior, shared.guidance, shared.settings, name, lambda fraction: bar.update(fraction - bar.n)
        )


def _weakened(result: Estimate, exposure: Exposure, frame: Frame, options: InferenceOptions) -> Estimate:
    """`result` with as much of the noisy input, demosaiced and scaled, as `strength` leaves."""
    if options.strength == 1:
        return result
    return result.blended(scaled_light(exposure.signal, frame, exposure.exposure_ratio, options.demosaicer), options.strength)


def _dark_of(frame: Frame, noise: NoiseModel, known: Sequence[Darks]) -> tuple[DarkSignal | None, dict[str, Any]]:
    """What the frame shows without light, and facts for the record; None where no darks fit, or none of them can be used."""
    choice = choose_darks(known, frame.noise_known_as, frame.iso, frame.exposure_s, frame.shape)
    if choice.darks is None:
        return None, {"darks": None, "darks_warning": choice.warned or None}
    try:
        dark_map = choice.darks.map
        dark = dark_signal(dark_map, frame, noise)
    except ValueError as error:
        return None, {"darks": None, "darks_warning": f"restored without darks: {error}"}
    described = {
        "frames": list(dark_map.frames),
        "exposure_s": dark_map.exposure_s,
        "times_s": list(dark_map.times_s),
        "sites": len(dark_map.sites),
    }
    return dark, {"darks": described, "darks_warning": choice.warned or None}


def exposed(raw: Callable[[], Frame], paired: float | None, shared: Restoration) -> tuple[Frame, Exposure, dict[str, Any]]:
    """A raw ready to be restored or developed: cut, checked, with its exposure ratio and noise, less its darks; and facts for the record.

    Ratio and noise are those of the whole frame, so that a part of it looks as it will in the whole.

    Raises:
        ValueError: it is over-exposed, or its ratio or its noise cannot be told.
    """
    whole, options = raw(), shared.options
    frame = crop(whole, *options.crop) if options.crop else whole
    signal, added_std = normalise(whole), None
    saturated = saturated_fraction(signal, options.max_saturated)
    own = {"tag": lambda: tag_estimate(whole), "image": lambda: image_estimate(whole)}
    noise, source, passed_over = shared.sensor.noise_model(
        whole.noise_known_as, whole.iso, range_dn(whole), shared.sensor.sources(shared.calibrations, own)
    )
    noise = noise_beside(noise, whole)
    dark, of_darks = _dark_of(whole, noise, shared.darks)
    if dark is not None:
        signal, added_std = dark.taken_off(signal), dark.std
    ratio, why = exposure_ratio(whole, signal, paired, options.exposure_ratio)
    if options.crop:
        part = (..., *part_of(whole, *options.crop))
        signal, added_std = np.ascontiguousarray(signal[part]), None if added_std is None else np.ascontiguousarray(added_std[part])
    facts = {
        "exposure_ratio": ratio, "ratio_from": why, "noise": vars(noise), "noise_from": source, "noise_not_from": passed_over,
        "crop": options.crop, "saturated_fraction": saturated, "camera": frame.camera, "iso": frame.iso,
        "exposure_s": frame.exposure_s if np.isfinite(frame.exposure_s) else None, "masked": frame.masked and vars(frame.masked),
    }  # fmt: skip
    known = variance_error(source, black_known=dark is not None or bool(frame.masked))
    exposure = Exposure(signal, frame.cfa, frame.white_balance, ratio, noise, frame.defects, frame.shading, added_std, known)
    return frame, exposure, facts | of_darks


def restore_light(
    raw: Callable[[], Frame], paired: float | None, name: str, shared: Restoration
) -> tuple[Estimate, Exposure, Frame, dict[str, Any]]:
    """The restored light of a frame, what it was restored from, and the record of how."""
    begin, options = time.perf_counter(), shared.options
    frame, exposure, about = exposed(raw, paired, shared)
    logger.info("exposure ratio %.4g (%s); noise from %s", exposure.exposure_ratio, about["ratio_from"], about["noise_from"])
    unfamiliar = unfamiliar_mosaic(shared.checkpoint.description, frame.cfa)
    for warned in filter(None, (unfamiliar, about["darks_warning"])):
        logger.warning("%s: %s", name, warned)
    exposure = with_defects(exposure, options.measurement)
    result, facts = _restored(exposure, shared, name)
    result = _weakened(result, exposure, frame, options)
    record = about | {
        "warning": unfamiliar, "options": options.describe(), "guidance": options.guidance.name, "strength": options.strength,
        "mean_std": None if result.std is None else float(result.std.mean(dtype=np.float64)),
        "seconds": round(time.perf_counter() - begin, 2),
    }  # fmt: skip
    return result, exposure, frame, record | facts


def valid_json(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON cannot say."""
    if isinstance(value, dict):
        return {key: valid_json(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [valid_json(content) for content in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _notes(frame: Frame, record: dict[str, Any], metadata_lost: list[str], options: InferenceOptions) -> list[str]:
    """What people should know of a result at a glance, in a few words each."""
    conditions = {
        "noise assumed": record["noise_from"] == ASSUMED,
        "without darks": record["darks_warning"] and not record["darks"],
        "black level corrected by the frame itself": record["black_above_header"] is not None,
        "denoised before": frame.denoised,
        "lens corrections left to the editor": frame.lens is not None,
        "no cfa: the raw has three values a pixel": frame.cfa == UNFILTERED and "cfa" in options.files,
        "metadata partly lost": set(metadata_lost) - {NOTES, NOTES_IN_DNG},
    }
    return [*(f"{what} guessed" for what in frame.guessed), *frame.undone, *(note for note, holds in conditions.items() if holds)]


def restore_frame(raw: Callable[[], Frame], paired: float | None, name: str, shared: Restoration) -> dict[str, Any]:
    """What `inference.files` asks for of a frame, and the record of how it was made."""
    begin = time.perf_counter()
    result, exposure, frame, record = restore_light(raw, paired, name, shared)
    outputs = Outputs(name, result, exposure, frame, getattr(raw, "path", None), shared.options)
    facts = outputs.facts
    notes = _notes(frame, record, facts["metadata_lost"], shared.options)
    record = facts | record | {"notes": notes, "seconds": round(time.perf_counter() - begin, 2)}
    return outputs.parts(record) | {"record": valid_json(record)}
