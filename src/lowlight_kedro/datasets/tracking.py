"""A growing table as a CSV, and on request as curves for TensorBoard and as metrics of a tracker."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import DatasetError
from kedro.io.core import parse_dataset_definition

from lowlight_kedro.datasets.atomic import AtomicCSVDataset, local_path

Row = tuple[int, dict[str, float]]  # what is counted, the other numbers by tag


def tag_of(column: str) -> str:
    """`psnr_0.3` is curve 0.3 of the group psnr, `loss` a curve of the group training."""
    kind, _, level = column.rpartition("_")
    return f"{kind}/{level}" if kind and level.replace(".", "", 1).isdigit() else f"training/{column}"


def scalars(table: pd.DataFrame, step: str) -> list[Row]:
    """(thousandths of the column `step`, the other numbers of the row by tag), without those that are missing."""
    values = table.drop(columns=step).select_dtypes("number")
    rows = ({tag_of(str(name)): float(value) for name, value in row.items() if pd.notna(value)} for _, row in values.iterrows())
    return list(zip((int(count) for count in (table[step] * 1000).round()), rows, strict=True))


class Events:
    """The rows as TensorBoard's scalars in a folder, each once, whatever was stopped and resumed.

    What is given `afresh` begins a file that tells readers to forget the files before, also those that are open; other rows are
    appended. No file is removed: a reader stops at one that is gone. The time of a row is when it was written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def show(self, rows: list[Row], afresh: bool) -> None:
        """Add rows.

        Raises:
            DatasetError: the folder cannot be written.
        """
        from torch.utils.tensorboard import SummaryWriter

        try:
            if afresh:
                self._writer = SummaryWriter(str(self._folder), purge_step=0)
            for count, values in rows:
                for tag, value in values.items():
                    self._writer.add_scalar(tag, value, count)
            self._writer.flush()
        except OSError as error:
            raise DatasetError(f"cannot write events to {self._folder}: {error.strerror or error}; the CSV is written") from error


def by_curve(rows: list[Row]) -> dict[str, list[dict[str, float]]]:
    """{tag: [{step, value}]}, as kedro-mlflow's `MlflowMetricsHistoryDataset` takes them."""
    curves: dict[str, list[dict[str, float]]] = {}
    for count, values in rows:
        for tag, value in values.items():
            curves.setdefault(tag, []).append({"step": count, "value": value})
    return curves


class TrackedCSVDataset(AtomicCSVDataset):
    """`AtomicCSVDataset` for a table that grows row by row; its numbers are shown as curves too, where `events` or `metrics` is set.

    The first save of a run shows all rows, so that a resumed run has its whole curves; later saves show what is new.

    Args:
        events: folder for TensorBoard, see `Events`. metrics: the definition of a dataset that saves what `by_curve` gives.
        step: column to count by; curves count its thousandths. table: what `AtomicCSVDataset` takes.

    Raises:
        DatasetError: `events` is set where TensorBoard is not installed, or is no path on this machine.
    """

    def __init__(
        self, *, filepath: str, events: str | None = None, metrics: dict[str, Any] | None = None, step: str = "kimg",
        **table: Any,
    ) -> None:  # fmt: skip
        super().__init__(filepath=filepath, **table)
        folder = local_path(events) if events else None
        if events is not None and find_spec("tensorboard") is None:
            raise DatasetError(
                f"got events={events}, but TensorBoard is not installed: `pip install 'lowlight-kedro[tracking]'`, or set events to null"
            )
        self._events = Events(folder) if folder else None
        self._step = step
        self._metrics: Any = None
        if metrics:
            kind, arguments = parse_dataset_definition(metrics)
            self._metrics = kind(**arguments)
        self._shown: list[Row] | None = None

    def save(self, data: pd.DataFrame) -> None:
        """Write the CSV, then show what is new.

        Raises:
            DatasetError: the folder of events cannot be written.
        """
        super().save(data)
        rows = scalars(data, self._step)
        afresh = self._shown is None or rows[: len(self._shown)] != self._shown
        new = rows if afresh else rows[len(self._shown or ()) :]
        if self._events:
            self._events.show(new, afresh)
        if self._metrics and new:
            self._metrics.save(by_curve(new))
        self._shown = rows
