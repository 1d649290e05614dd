"""Restored frames in a folder that belongs to a person."""

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lowlight_kedro.datasets.atomic import atomic_path
from lowlight_kedro.datasets.jobs import JobsDataset, Lazy
from lowlight_kedro.jobs import FILES, KEY, RECORD, Job, Jobs, Outcome

logger = logging.getLogger(__name__)

UNFINISHED = "it was interrupted while its files were written"


class RestoredDataset(JobsDataset):
    """As `JobsDataset`, but nothing that is there is replaced unasked, and each frame is told in a line.

    Results of other settings, of another raw of the same name, of another version, and files that are not ours stay as they
    are, and the job fails. What an interrupted run left half done is done again.

    Args:
        parts: see `JobsDataset`; a part that a job gives and that is not listed is not written.
        outcomes: a JSON file for how each job of the last run ended: {name: {state, error}}.
        overwrite: do all again, whatever is there.
    """

    def __init__(self, *, parts: dict[str, dict[str, Any]], outcomes: str, overwrite: bool = False, metadata: dict | None = None) -> None:
        super().__init__(parts=parts, metadata=metadata)
        self._outcomes_file, self._overwrite = Path(outcomes), overwrite
        self._outcomes: dict[str, dict[str, str | None]] = {}

    def save(self, data: Jobs) -> None:
        """Run the jobs; how each ended is written even where the run is stopped."""
        self._outcomes = {job.name: {"state": "not started", "error": None} for job in data.jobs}
        try:
            super().save(data)
        finally:
            with atomic_path(self._outcomes_file) as temporary:
                temporary.write_text(json.dumps(self._outcomes, indent=1), encoding="utf-8")

    def load(self) -> dict[str, dict[str, Lazy]]:
        """As that of `JobsDataset`; a refused job that has no record gets one that says why."""
        failed: dict[str, dict[str, Lazy]] = {
            name: {RECORD: partial(dict, outcome)} for name, outcome in self._outcomes.items() if outcome["error"]
        }  # fmt: skip
        return failed | super().load()

    def _tell(self, title: str, outcome: Outcome) -> None:
        self._outcomes[outcome.name] = {"state": outcome.state, "error": outcome.error}
        if outcome.error:
            logger.warning("%s: failed: %s", outcome.name, outcome.error)
        elif outcome.state == "kept":
            logger.info("%s: kept, it was done before", outcome.name)
        else:
            record = self._recorded(outcome.name)
            told = "x{exposure_ratio:.3g} ({ratio_from}), noise from {noise_from}, {seconds:.1f} s".format(**record)
            logger.info("%s: %s", outcome.name, told)

    def _targets(self, name: str) -> dict[str, list[str]]:
        return {part: [name] for part in self._parts if part != RECORD}

    def _in_the_way(self, name: str, key: str) -> str | None:
        """Why `name` is not to be done; None = it may."""
        record = self._recorded(name)
        if record.get(KEY, key) != key:
            return "it was restored before with other settings, from another file or by another version"
        strangers = {file for file in self._files({FILES: self._targets(name)}) if file.exists()} - self._files(record)
        return f"{min(strangers)} is there and not from here" if strangers else None

    def _is_done(self, name: str, key: str) -> bool:
        return not self._overwrite and super()._is_done(name, key)

    def _run(self, job: Job, shared: Any) -> Outcome:
        """As that of `JobsDataset`; a refusal leaves the record of what is there alone."""
        reason = None if self._overwrite else self._in_the_way(job.name, job.key())
        if reason:
            return Outcome(job.name, "failed", f"{reason}; --overwrite does it again, another --out keeps both")
        return super()._run(job, shared)

    def _write(self, name: str, key: str, results: Mapping[str, Any]) -> None:
        """First say that the files are ours, so that a run that ends in between is not in the way of the next."""
        parts = {part: content for part, content in results.items() if part in self._parts}
        claimed = {part: [name] for part in parts if part != RECORD}
        self._parts[RECORD].dataset(name).save({"error": UNFINISHED, FILES: claimed})
        super()._write(name, key, parts)
