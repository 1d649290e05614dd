"""The demo's raws: photographs that scikit-image ships, through a camera's noise, made on first use."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.raw import RawFile, RawFolderDataset
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.noise import CameraNoise
from lowlight_kedro.sensor.noise_sources import noise_in_dn, normalised
from lowlight_kedro.sensor.simulate import Camera, expose, recording, scene_light

logger = logging.getLogger(__name__)

CFAS = {"bayer": BAYER_RGGB, "xtrans": XTRANS}


def read_photograph(name: str, skip: int) -> NDArray[np.uint8]:
    """A colour photograph of scikit-image's wheel (H, W, 3), every `skip`-th mean of pixels."""
    import skimage.data
    from skimage.io import imread
    from skimage.transform import downscale_local_mean

    image = imread(Path(skimage.data.__file__).parent / name)[..., :3]
    return image if skip == 1 else downscale_local_mean(image, (skip, skip, 1)).round().astype(np.uint8)


class DemoRawsDataset(RawFolderDataset):
    """A raw folder in See-in-the-Dark's layout that fills itself the first time, as a downloading dataset would.

    Beside the scenes, flats and darks of the same camera for its calibration; of each size of frames one set of hot sites.

    Args:
        filepath: the folder; `Sony/long`, `short`, `flats` and `darks` appear below it.
        scenes: list of {scene, photograph, cfa, shrink}; `scene` like `00001_00`.
        camera: {name, black_level, white_level, neutral}.
        cameras: table of measured noise in DN; the camera's row at `iso` is what the raws are made with.
        long_s, short_s: exposure times, seconds. iso: for the EXIF. brightness: white of the photographs, 1 = saturation.
        calibration: {size, flats_s, flats, darks, of}: side in pixels, exposure times, flats of each, number of darks; and scenes that
            get as many darks of their own size.
        hot: {fraction, mean_dn}: fraction of sites that are too bright in every exposure, and the mean of their exponential excess, DN.
    """

    def __init__(
        self, *, filepath: str, scenes: list[dict], camera: dict, cameras: dict, long_s: float, short_s: float, iso: int,
        brightness: float, seed: int, calibration: dict, hot: dict, metadata: dict | None = None,
    ) -> None:  # fmt: skip
        super().__init__(filepath=filepath, metadata=metadata)
        self._scenes, self._camera, self._seed, self._iso = scenes, Camera(**camera), seed, iso
        noise = normalised(noise_in_dn(camera["name"], iso, cameras), camera["white_level"] - camera["black_level"])
        self._noise = CameraNoise(**noise, **recording(self._camera))
        self._times, self._brightness, self._calibration = {"long": long_s, "short": short_s}, brightness, calibration
        self._hot = hot

    def load(self) -> dict[str, RawFile]:
        """Make what is missing, then list the folder."""
        for number, scene in enumerate(self._scenes):
            for kind, seconds in self._times.items():
                path = self._folder / "Sony" / kind / f"{scene['scene']}_{seconds:g}s.dng"
                if not path.exists():
                    self._make(path, scene, seconds, np.random.default_rng([self._seed, number, list(self._times).index(kind)]))
        for number, (path, seconds, brightness) in enumerate(self._flats_and_darks()):
            if not path.exists():
                even = np.full((self._calibration["size"],) * 2 + (3,), 255, np.uint8)
                light = scene_light(even, self._camera, brightness)
                self._write(path, light, "bayer", seconds, np.random.default_rng([self._seed, len(self._scenes), number]))
        for scene in (scene for scene in self._scenes if scene["scene"] in self._calibration["of"]):
            for number in range(self._calibration["darks"]):
                path = self._folder / "Sony" / "darks" / f"dark_{scene['scene']}_{number}.dng"
                if not path.exists():
                    self._make(path, scene, self._times["short"], np.random.default_rng([self._seed, int(scene["scene"][:5]), number]), 0.0)
        return super().load()

    def _flats_and_darks(self) -> Iterator[tuple[Path, float, float]]:
        """Path, exposure time and brightness of each."""
        settings, folder = self._calibration, self._folder / "Sony"
        for seconds, number in product(settings["flats_s"], range(settings["flats"])):
            yield folder / "flats" / f"flat_{seconds:g}s_{number}.dng", seconds, self._brightness
        for number in range(settings["darks"]):
            yield folder / "darks" / f"dark_{number}.dng", self._times["short"], 0.0

    def _make(self, path: Path, scene: dict[str, Any], seconds: float, rng: np.random.Generator, brightness: float | None = None) -> None:
        photograph = read_photograph(scene["photograph"], scene.get("shrink", 1))
        light = scene_light(photograph, self._camera, self._brightness if brightness is None else brightness)
        self._write(path, light, scene["cfa"], seconds, rng)
        logger.info("made %s from %s", path, scene["photograph"])

    def _write(self, path: Path, light: NDArray, cfa: str, seconds: float, rng: np.random.Generator) -> None:
        frame = expose(
            light, CFAS[cfa], exposure_s=seconds, full_exposure_s=self._times["long"], iso=self._iso,
            noise=self._noise, camera=self._camera, rng=rng,
        )  # fmt: skip
        shown = np.minimum(frame.mosaic_dn + self._excess(frame.shape), self._camera.white_level)
        write_dng(path, replace(frame, mosaic_dn=shown.astype(np.uint16)))

    def _excess(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        """What the hot sites of a sensor of this size show in every exposure, DN."""
        sensor = np.random.default_rng([self._seed, *shape])
        return np.rint((sensor.random(shape) < self._hot["fraction"]) * sensor.exponential(self._hot["mean_dn"], shape))
