"""What was measured of each camera: its noise, a JSON file per camera, and what it shows without light, a file per set of darks."""

import json
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import DatasetError

from lowlight_kedro.datasets.atomic import LocalDataset, atomic_path, content_hash
from lowlight_kedro.sensor.dark_map import DarkMap
from lowlight_kedro.sensor.dark_signal import Darks


class CalibrationsDataset(LocalDataset[dict[str, dict], list[dict[str, Any]]]):
    """A folder of calibrations: saves {file name: {camera, entries}}, loads all of them; without a folder, none.

    Files of cameras that a run did not measure stay.
    """

    def load(self) -> list[dict[str, Any]]:
        """All calibrations, by file name.

        Raises:
            DatasetError: a file is not a calibration.
        """
        return [self._read(path) for path in sorted(self._filepath.glob("[!.]*.json"))]

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: not a readable calibration ({error}); delete it and run the calibration again") from error
        if not (isinstance(record, dict) and isinstance(record.get("camera"), str) and isinstance(record.get("entries"), list)):
            raise DatasetError(f"{path}: expected a JSON object with `camera` and `entries`; delete it and run the calibration again")
        return record

    def save(self, data: dict[str, dict]) -> None:
        """Write each atomically."""
        for name, record in data.items():
            with atomic_path(self._filepath / f"{name}.json") as temporary:
                temporary.write_text(json.dumps(record, indent=2), encoding="utf-8")

    def _exists(self) -> bool:
        return any(self._filepath.glob("[!.]*.json"))


NAMES = tuple(field.name for field in fields(DarkMap))


def _fields(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Some fields of a map, numbers and texts as such.

    Raises:
        DatasetError: the file is no map.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in names}
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise DatasetError(f"{path}: not a readable dark map ({error}); delete it and run the calibration again") from error
    return {name: value.item() if value.ndim == 0 else value for name, value in found.items()}


def read_dark_map(path: Path) -> DarkMap:
    """A map from its file.

    Raises:
        DatasetError: the file is no map.
    """
    values = _fields(path, NAMES)
    texts = {"frames": tuple(map(str, values["frames"])), "times_s": tuple(map(float, values["times_s"]))}
    return DarkMap(**values | {"shape": tuple(map(int, values["shape"]))} | texts)


class DarkMapDataset(LocalDataset[DarkMap, DarkMap]):
    """One `DarkMap`."""

    def load(self) -> DarkMap:
        """See `read_dark_map`."""
        return read_dark_map(self._filepath)

    def save(self, data: DarkMap) -> None:
        """Write atomically."""
        with atomic_path(self._filepath) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {name: np.asarray(getattr(data, name)) for name in NAMES}
            np.savez_compressed(file, **arrays)


class DarkMapsDataset(LocalDataset[dict[str, DarkMap], list[Darks]]):
    """A folder of maps: saves {file name: map}, loads `Darks` that read their map when it is needed; without a folder, none.

    Files of cameras that a run did not measure stay.
    """

    def load(self) -> list[Darks]:
        """All of them, by file name.

        Raises:
            DatasetError: a file is no map.
        """
        return [self._darks(path) for path in sorted(self._filepath.glob("[!.]*.npz"))]

    def _darks(self, path: Path) -> Darks:
        about = _fields(path, ("camera", "iso", "exposure_s", "shape"))
        shape = int(about["shape"][0]), int(about["shape"][1])
        return Darks(about["camera"], about["iso"], about["exposure_s"], shape, partial(read_dark_map, path), partial(content_hash, path))

    def save(self, data: dict[str, DarkMap]) -> None:
        """Write each atomically."""
        for name, dark_map in data.items():
            DarkMapDataset(filepath=str(self._filepath / f"{name}.npz")).save(dark_map)

    def _exists(self) -> bool:
        return any(self._filepath.glob("[!.]*.npz"))
