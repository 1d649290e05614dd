"""Results of many files, computed where they are saved: in parallel, without repeating what is done."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from traceback import format_exception
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro.io.core import parse_dataset_definition
from kedro_datasets._typing import ImagePreview
from tqdm import tqdm

from lowlight_kedro.datasets.atomic import OutputError, content_hash, local_path
from lowlight_kedro.jobs import DIGESTS, FILES, KEY, PARTS, RECORD, Job, Jobs, Outcome, no_bars

logger = logging.getLogger(__name__)

Lazy = Callable[[], Any]
ATTEMPTS = 2


class Part:
    """One kind of result: a folder, and the dataset that reads and writes each file in it."""

    def __init__(self, path: str, dataset: str | dict[str, Any], filename_suffix: str = "") -> None:
        self.folder, self._suffix = local_path(path), filename_suffix
        self._type, self._arguments = parse_dataset_definition(deepcopy(dataset) if isinstance(dataset, dict) else {"type": dataset})

    def file(self, name: str) -> Path:
        """Where `name` lies."""
        return self.folder / f"{name}{self._suffix}"

    def dataset(self, name: str) -> AbstractDataset:
        """The dataset of `name`."""
        return self._type(**{**self._arguments, "filepath": self.file(name).as_posix()})

    def names(self) -> Iterator[str]:
        """All names that have a file, sorted; temporary files left out."""
        for path in sorted(self.folder.rglob(f"*{self._suffix}")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(self.folder).as_posix().removesuffix(self._suffix)


class JobsDataset(AbstractDataset[Jobs, dict[str, dict[str, Lazy]]]):
    """Like a PartitionedDataset that is saved lazily, for jobs whose results have several parts.

    Saving runs the jobs by their executor; each worker writes its own results, so that one result per worker is in
    memory. The record is written last and holds the job's key: an interrupted run goes on where it was, and a job
    whose files and settings did not change is not done again. A job that fails is tried once more, then its record
    says `error`. Loading gives {job: {part: function that loads it}}, `record` among the parts.

    Args:
        parts: {part: {path, dataset, filename_suffix}} as a PartitionedDataset has them; `record` is one of them.
            The content of a part is saved under the job's name, or where it is a dictionary of arrays for a part listed
            in `many`, each under its own.
        many: parts with several files per job.
        prune: remove the results of jobs that a later run does not have, and files that a repeated job no longer gives.
        verify: parts whose files are read again before they are kept: a job with a file that is not as it was written is done again.
    """

    def __init__(
        self, *, parts: dict[str, dict[str, Any]], many: list[str] | None = None, prune: bool = False, verify: list[str] | None = None,
        metadata: dict | None = None,
    ) -> None:  # fmt: skip
        if RECORD not in parts:
            raise DatasetError(f"parts must hold {RECORD!r}, got {', '.join(parts)}")
        self._definitions, self._many = parts, tuple(many or ())
        self._parts = {name: Part(**definition) for name, definition in parts.items()}
        self._prune, self._verify = prune, tuple(verify or ())
        self.metadata = metadata

    def load(self) -> dict[str, dict[str, Lazy]]:
        """The parts of every job that has a record; a part that a job does not have is left out."""
        single = {name: part for name, part in self._parts.items() if name not in self._many}
        return {
            job: {name: part.dataset(job).load for name, part in single.items() if part.file(job).is_file()}
            for job in self._parts[RECORD].names()
        }

    def save(self, data: Jobs) -> None:
        """Run the jobs with a progress bar; failures are logged and recorded.

        Raises:
            OutputError: results cannot be written, as on a full disk; what was done stays.
        """
        counts: Counter[str] = Counter()
        with tqdm(total=len(data.jobs), desc=data.title, unit=data.unit, disable=no_bars()) as progress:
            for job, result in data.executor(self._run, data.jobs, data.shared):
                if isinstance(result, OutputError):
                    raise result
                outcome = self._failed(job, result) if isinstance(result, BaseException) else result
                counts[outcome.state] += 1
                if outcome.damaged:
                    logger.warning("%s: %s was not as it had been written; made again from %s", data.title, outcome.damaged, job.name)
                self._tell(data.title, outcome)
                progress.set_postfix({state: counts[state] for state in ("kept", "failed") if counts[state]}, refresh=False)
                progress.update()
        if self._prune:
            for name in set(self._parts[RECORD].names()) - {job.name for job in data.jobs}:
                self._remove(self._files(self._recorded(name)))
                self._parts[RECORD].file(name).unlink()
        logger.info("%s: %d done, %d kept from before, %d failed", data.title, *(counts[s] for s in ("done", "kept", "failed")))

    def _tell(self, title: str, outcome: Outcome) -> None:
        """Called as each job ends."""
        if outcome.error:
            logger.warning("%s: %s failed: %s", title, outcome.name, outcome.error)
            logger.debug("%s", outcome.trace)

    def _run(self, job: Job, shared: Any) -> Outcome:
        """Do one job, in a worker."""
        key = job.key()
        done = self._is_done(job, key)
        damaged = self._damaged(job.name) if done else ""
        if done and not damaged:
            return Outcome(job.name, "kept")
        begin = time.perf_counter()
        return replace(self._done(job, key, shared), seconds=round(time.perf_counter() - begin, 1), damaged=damaged)

    def _done(self, job: Job, key: str, shared: Any) -> Outcome:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._write(job, key, job.compute(shared))
                break
            except OutputError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a file does to its job, the others go on
                if attempt == ATTEMPTS:
                    return self._failed(job, error)
        return Outcome(job.name, "done")

    def _recorded(self, name: str) -> dict[str, Any]:
        """The record of a job; empty where there is none, or a torn one."""
        if not self._parts[RECORD].file(name).is_file():
            return {}
        try:
            return self._parts[RECORD].dataset(name).load()
        except DatasetError:
            return {}

    def _files(self, record: Mapping[str, Any]) -> set[Path]:
        """The files that a record lists."""
        return {self._parts[part].file(file) for part, files in record.get(FILES, {}).items() for file in files}

    def _is_done(self, job: Job, key: str) -> bool:
        record = self._recorded(job.name)
        there = record.get(KEY) == key and set(job.parts) <= set(record.get(PARTS, ()))
        return there and all(file.is_file() for file in self._files(record))

    def _digests(self, files: Mapping[str, Iterable[str]]) -> dict[str, str]:
        """Of the files {part: names} that are verified, by their paths below the folder of their part."""
        paths = {file: self._parts[part].file(file) for part in self._verify for file in files.get(part, ())}
        return {file: content_hash(path) for file, path in sorted(paths.items())}

    def _damaged(self, name: str) -> str:
        """The first verified file of a finished job that is not as it was written."""
        record = self._recorded(name)
        written, found = record.get(DIGESTS, {}), self._digests(record.get(FILES, {}))
        return next((file for file, digest in found.items() if written.get(file) != digest), "")

    def _write(self, job: Job, key: str, results: Mapping[str, Any]) -> None:
        """Parts that an earlier run made by the same settings stay, and stay listed."""
        name, earlier = job.name, self._recorded(job.name)
        same = earlier.get(KEY) == key
        files: dict[str, list[str]] = dict(earlier.get(FILES, {})) if same and job.parts else {}
        for part in (part for part in results if part != RECORD):
            contents = results[part] if part in self._many else {name: results[part]}
            for file, value in contents.items():
                self._parts[part].dataset(file).save(value)
            files[part] = sorted(contents)
        record = results[RECORD] | {KEY: key, FILES: dict(sorted(files.items()))}
        if self._verify:
            record[DIGESTS] = self._digests(files)
        if job.parts:
            record[PARTS] = sorted({*job.parts, *(earlier.get(PARTS, ()) if same else ())})
        self._parts[RECORD].dataset(name).save(record)
        if self._prune:
            self._remove(self._files(earlier) - self._files(record))

    def _remove(self, files: set[Path]) -> None:
        for file in files:
            file.unlink(missing_ok=True)

    def _failed(self, job: Job, error: BaseException) -> Outcome:
        """Record the failure, without a key, so that the next run tries again; files of an earlier success stay."""
        reason = str(error) or type(error).__name__
        record = {
            "error": reason,
            "path": str(job.sources[0].path) if job.sources else job.name,
            FILES: self._recorded(job.name).get(FILES, {}),
        }
        self._parts[RECORD].dataset(job.name).save(record)
        return Outcome(job.name, "failed", reason, trace="".join(format_exception(error)))

    def preview(self, part: str = RECORD) -> ImagePreview:
        """For Kedro-Viz: the first files of a part that holds pictures; see `figures.sheet`."""
        from lowlight_kedro.datasets.figures import sheet

        files = (min(found) for name in self._parts[RECORD].names() if (found := self._of_part(name, part)))
        return sheet(file for file in files if file.is_file())

    def _of_part(self, name: str, part: str) -> set[Path]:
        return self._files({FILES: {part: self._recorded(name).get(FILES, {}).get(part, [])}})

    def place(self, name: str, part: str) -> str | None:
        """The path of a part of a job's results, where it is there."""
        file = self._parts[part].file(name) if part in self._parts else Path()
        return file.as_posix() if file.is_file() else None

    def _exists(self) -> bool:
        return any(True for _ in self._parts[RECORD].names())

    def _describe(self) -> dict[str, Any]:
        return {"path": self._parts[self._shown_part()].folder.as_posix(), "parts": self._definitions}

    def _shown_part(self) -> str:
        return next((name for name in self._parts if name != RECORD), RECORD)
