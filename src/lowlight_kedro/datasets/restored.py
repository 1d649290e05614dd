"""Restored frames in a folder that belongs to a person."""

import json
import logging
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lowlight_kedro.datasets.atomic import OutputError, atomic_path, local_path
from lowlight_kedro.datasets.jobs import JobsDataset, Lazy
from lowlight_kedro.jobs import FILES, KEY, PARTS, RECORD, Job, Jobs, Outcome

logger = logging.getLogger(__name__)

UNFINISHED = "it was interrupted while its files were written"


def free_bytes(folder: Path) -> int:
    """What may still be written below `folder`, which need not be there yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(there).free


class RestoredDataset(JobsDataset):
    """As `JobsDataset`, but nothing that is there is replaced unasked, and each frame is told in a line.

    Results of other settings, of another raw of the same name, of another version, and files that are not ours stay as they
    are, and the job fails. What an interrupted run left half done is done again. Further parts by the same settings are added.

    Args:
        parts: see `JobsDataset`; a part that a job gives and that is not listed is not written.
        outcomes: a JSON file for how each job of the last run ended: {name: {state, error, seconds, file}}; `file` is the one to look at.
        overwrite: do all again, whatever is there; files of an earlier run of a frame that are not asked for any more are removed.
        shown: parts by how well a person can look at them, best first.
    """

    def __init__(
        self, *, parts: dict[str, dict[str, Any]], outcomes: str, overwrite: bool = False, shown: list[str] | None = None,
        metadata: dict | None = None,
    ) -> None:  # fmt: skip
        super().__init__(parts=parts, metadata=metadata)
        self._outcomes_file, self._overwrite, self._shown = local_path(outcomes), overwrite, tuple(shown or ())
        self._outcomes: dict[str, dict[str, Any]] = {}

    @property
    def outcomes(self) -> dict[str, dict[str, Any]]:
        """How each job of the last `save` ended, as it is written to the file."""
        return self._outcomes

    def save(self, data: Jobs) -> None:
        """Run the jobs; how each ended is written even where the run is stopped.

        Raises:
            OutputError: there is not enough room for all of them, told before the first; or the disk is full.
        """
        self._outcomes = {job.name: {"state": "not started", "error": None} for job in data.jobs}
        self._refuse_too_much(data)
        try:
            super().save(data)
        finally:
            with atomic_path(self._outcomes_file) as temporary:
                temporary.write_text(json.dumps(self._outcomes, indent=1), encoding="utf-8")

    def _refuse_too_much(self, data: Jobs) -> None:
        waiting = [job for job in data.jobs if self._overwrite or not self._has(job)]
        needed, free = sum(job.size for job in waiting), free_bytes(self._outcomes_file.parent)
        if needed > free:
            asked = sorted({part for job in waiting for part in job.parts})
            raise OutputError(
                f"{len(waiting)} frames need up to {needed / 1e9:.2f} GB for {', '.join(asked)}, and {self._outcomes_file.parent} has "
                f"{free / 1e9:.2f} GB free; ask for fewer files (--files), restore fewer frames, or write to another disk (--out)"
            )

    def _has(self, job: Job) -> bool:
        """Whether the parts of a job are there, by whatever settings."""
        record = self._recorded(job.name)
        return KEY in record and set(job.parts) <= set(record.get(PARTS, ()))

    def load(self) -> dict[str, dict[str, Lazy]]:
        """As that of `JobsDataset`; a refused job that has no record gets one that says why."""
        failed: dict[str, dict[str, Lazy]] = {
            name: {RECORD: partial(dict, outcome)} for name, outcome in self._outcomes.items() if outcome["error"]
        }  # fmt: skip
        return failed | super().load()

    def _tell(self, title: str, outcome: Outcome) -> None:
        record = {} if outcome.error else self._recorded(outcome.name)
        made = [part for part in (*self._shown, *record.get(PARTS, ())) if part in record.get(FILES, {})]
        self._outcomes[outcome.name] = {
            "state": outcome.state, "error": outcome.error, "seconds": outcome.seconds, "ratio": record.get("exposure_ratio"),
            "notes": record.get("notes", []),
            "file": str(self._parts[made[0]].file(outcome.name)) if made else None,
        }  # fmt: skip
        if outcome.error:
            logger.warning("%s: failed: %s", outcome.name, outcome.error)
            logger.debug("%s", outcome.trace)
        elif outcome.state == "kept":
            logger.info("%s: kept, it was done before", outcome.name)
        else:
            summary = "x{exposure_ratio:.3g} ({ratio_from}), noise from {noise_from}".format(**record)
            logger.info("%s: %s, %.1f s", outcome.name, summary, outcome.seconds)

    def _targets(self, job: Job) -> dict[str, list[str]]:
        return {part: [job.name] for part in self._parts if part != RECORD and (part in job.parts or not job.parts)}

    def _in_the_way(self, job: Job, key: str) -> str | None:
        """Why a job is not to be done; None = it may."""
        record = self._recorded(job.name)
        if record.get(KEY, key) != key:
            return "it was restored before with other settings, from another file or by another version"
        strangers = {file for file in self._files({FILES: self._targets(job)}) if file.exists()} - self._files(record)
        return f"{min(strangers)} is there and not from here" if strangers else None

    def _is_done(self, job: Job, key: str) -> bool:
        return not self._overwrite and super()._is_done(job, key)

    def _run(self, job: Job, shared: Any) -> Outcome:
        """As that of `JobsDataset`; a refusal leaves the record of what is there alone."""
        reason = None if self._overwrite else self._in_the_way(job, job.key())
        if reason:
            return Outcome(job.name, "failed", f"{reason}; --overwrite does it again, another --out keeps both")
        return super()._run(job, shared)

    def _write(self, job: Job, key: str, results: Mapping[str, Any]) -> None:
        """First say that the files are ours, so that a run that ends in between is not in the way of the next."""
        earlier = self._recorded(job.name)
        parts = {part: content for part, content in results.items() if part in self._parts}
        claimed = earlier.get(FILES, {}) | {part: [job.name] for part in parts if part != RECORD}
        claim = earlier if earlier.get(KEY) == key else {"error": UNFINISHED}  # of these settings what is there stays good
        self._parts[RECORD].dataset(job.name).save(claim | {FILES: claimed})
        super()._write(job, key, parts)
        self._remove(self._files({FILES: claimed}) - self._files(self._recorded(job.name)))
