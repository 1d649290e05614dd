"""What was measured of each camera: one JSON file per camera."""

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from lowlight_kedro.datasets.atomic import atomic_path, local_path


class CalibrationsDataset(AbstractDataset[dict[str, dict], list[dict[str, Any]]]):
    """A folder of calibrations: saves {file name: {camera, entries}}, loads all of them; without a folder, none.

    Files of cameras that a run did not measure stay.
    """

    def __init__(self, *, filepath: str, metadata: dict | None = None) -> None:
        self._folder = local_path(filepath)
        self.metadata = metadata

    def load(self) -> list[dict[str, Any]]:
        """All calibrations, by file name.

        Raises:
            DatasetError: a file is not a calibration.
        """
        return [self._read(path) for path in sorted(self._folder.glob("[!.]*.json"))]

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
            with atomic_path(self._folder / f"{name}.json") as temporary:
                temporary.write_text(json.dumps(record, indent=2), encoding="utf-8")

    def _exists(self) -> bool:
        return any(self._folder.glob("[!.]*.json"))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}
