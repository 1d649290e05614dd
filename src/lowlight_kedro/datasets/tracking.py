"""A growing table as a CSV, and on request as curves for TensorBoard."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import DatasetError

from lowlight_kedro.datasets.atomic import AtomicCSVDataset


def tag_of(column: str) -> str:
    """`psnr_0.3` is curve 0.3 of the group psnr, `loss` a curve of the group training."""
    kind, _, level = column.rpartition("_")
    return f"{kind}/{level}" if kind and level.replace(".", "", 1).isdigit() else f"training/{column}"


def scalars(table: pd.DataFrame, step: str) -> list[tuple[int, dict[str, float]]]:
    """(thousandths of the column `step`, the other numbers of the row by tag), without those that are missing."""
    values = table.drop(columns=step).select_dtypes("number")
    rows = ({tag_of(str(name)): float(value) for name, value in row.items() if pd.notna(value)} for _, row in values.iterrows())
    return list(zip((int(count) for count in (table[step] * 1000).round()), rows, strict=True))


class TrackedCSVDataset(AtomicCSVDataset):
    """`AtomicCSVDataset` for a table that grows row by row; with `events` its numbers are TensorBoard's scalars in that folder too.

    The folder shows just the rows of the table, each once, whatever was stopped and resumed: the first save of a run
    begins a file with all rows that tells readers to forget the files before, also those that are open; later saves
    append. No file is removed: a reader stops at one that is gone. The time of a row is when it was written.

    Args:
        events: folder, or None for the CSV alone. step: column to count by; curves count its thousandths.

    Raises:
        DatasetError: `events` is set where TensorBoard is not installed.
    """

    def __init__(
        self, *, filepath: str, events: str | None = None, step: str = "kimg", save_args: dict[str, Any] | None = None,
        metadata: dict | None = None,
    ) -> None:  # fmt: skip
        super().__init__(filepath=filepath, save_args=save_args, metadata=metadata)
        if events is not None and find_spec("tensorboard") is None:
            raise DatasetError(
                f"got events={events}, but TensorBoard is not installed: `pip install 'lowlight-kedro[tracking]'`, or set events to null"
            )
        self._events, self._step = Path(events) if events else None, step
        self._written: list[tuple[int, dict[str, float]]] = []
        self._writer: Any = None

    def save(self, data: pd.DataFrame) -> None:
        """Write the CSV, then the events.

        Raises:
            DatasetError: the folder cannot be written.
        """
        super().save(data)
        if self._events is None:
            return
        try:
            self._track(self._events, scalars(data, self._step))
        except OSError as error:
            raise DatasetError(f"cannot write events to {self._events}: {error.strerror or error}; the CSV is written") from error

    def _track(self, folder: Path, rows: list[tuple[int, dict[str, float]]]) -> None:
        known = len(self._written)
        if self._writer is None or rows[:known] != self._written:
            from torch.utils.tensorboard import SummaryWriter

            known = 0
            self._writer = SummaryWriter(str(folder), purge_step=0)  # readers forget what earlier files of the folder said
        for count, values in rows[known:]:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, count)
        self._writer.flush()
        self._written = rows

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"events": str(self._events) if self._events else None}
