"""Which row of a history is the best, and whether more will not help: functions of the history alone, so a resumed run agrees."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite, isnan

History = Sequence[Mapping[str, float]]
LOWER_IS_BETTER = frozenset({"loss"})  # all other columns are figures of quality


def better(value: float, best: float, column: str) -> bool:
    """Whether `value` of a column of the history is better than `best`; an equal one is not, any number is better than NaN."""
    if isnan(best):
        return not isnan(value)
    return value < best if column in LOWER_IS_BETTER else value > best


def _scores(history: History, column: str) -> list[tuple[int, float]]:
    """(row, figure) where there is one, with the sign that makes larger better."""
    sign = -1 if column in LOWER_IS_BETTER else 1
    return [(number, sign * row[column]) for number, row in enumerate(history) if isfinite(row.get(column, inf))]


def best_row(history: History, column: str) -> int | None:
    """Number of the row with the best figure in `column`, the first of equals; None without any."""
    scores = [(score, -number) for number, score in _scores(history, column)]
    return -max(scores)[1] if scores else None


def ticks_without_gain(history: History, column: str, min_delta: float) -> int:
    """Rows with a figure since the last one that was better than all before by more than `min_delta`."""
    best, waited = -inf, 0
    for _, score in _scores(history, column):
        best, waited = (score, 0) if score > best + min_delta else (best, waited + 1)
    return waited
