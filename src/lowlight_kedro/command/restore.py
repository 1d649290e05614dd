"""`lowlight restore`: the inference pipeline on named files, in the environment `restore`."""

import json
import logging
import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from lowlight_kedro.configuration import PACKAGE, conf_source

INDEX = "restored.html"  # as in conf/restore/catalog.yml; index.html may be somebody's own
LOUD = {"kedro": logging.INFO, PACKAGE.name: logging.INFO, f"{PACKAGE.name}.datasets.restored": logging.DEBUG}  # of --verbose
STOPPED = 130  # as shells say of a program that Ctrl-C ended


def runtime_params(told: Namespace, out: Path) -> dict[str, Any]:
    """What `kedro run --env restore --params` would be given."""
    executor: dict[str, Any] = {"name": "sequential"}
    if told.workers > 1:
        executor = {"name": "processes", "options": {"processes": {"workers": told.workers}}}
    restore: dict[str, Any] = {"out": out.as_posix(), "overwrite": told.overwrite}
    if told.calibrations:
        restore["calibrations"] = Path(told.calibrations).expanduser().resolve().as_posix()
    inference: dict[str, Any] = {
        "input": [Path(raw).expanduser().absolute().as_posix() for raw in told.raws],
        "estimate": told.estimate, "strength": told.strength, "symmetries": told.symmetries,
        "device": told.device,
    }  # fmt: skip
    if told.files is not None:
        inference["files"] = told.files
    if told.preview is not None:
        inference["display"] = {"preview_side": told.preview}
    if told.ratio is not None:
        inference["exposure_ratio"] = {"value": told.ratio}
    return {"inference": inference, "restore": restore, "executor": executor}


def run_inference(parameters: dict[str, Any], verbose: bool) -> list[dict[str, str]]:
    """Run the pipeline; returns the files whose headers could not be read, with the reason."""
    os.environ.setdefault("KEDRO_LOGGING_CONFIG", str(conf_source() / "restore" / "logging.yml"))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads sleep: faster where anything else runs
    from kedro.framework.project import configure_project
    from kedro.framework.session import KedroSession
    from tqdm.contrib.logging import logging_redirect_tqdm

    configure_project(PACKAGE.name)
    for name, level in LOUD.items() if verbose else ():
        logging.getLogger(name).setLevel(level)
    with (
        logging_redirect_tqdm(),
        KedroSession.create(conf_source().parent, conf_source=str(conf_source()), env="restore", runtime_params=parameters) as session,
    ):
        results = session.run(pipeline_names=["inference"], to_nodes=["index_pages"])  # type: ignore[call-arg]  # without the contact sheet
        return results["inference_unreadable"].load()


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written there; None = it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror or error}; give another folder by --out"
    return None


def _wrong(told: Namespace, out: Path) -> str | None:
    """What keeps the command from beginning; None = nothing."""
    if told.calibrations and not any(Path(told.calibrations).expanduser().glob("[!.]*.json")):
        return f"{told.calibrations} holds no calibration (*.json); give the folder that `kedro run --pipelines calibration` wrote"
    return _unwritable(out) or _unwritable(out / "details")


def _row(name: str, outcome: dict[str, Any]) -> tuple[str, ...]:
    """File, result, ratio, seconds that were waited, and the picture or the reason."""
    if outcome["state"] not in ("done", "kept"):
        return name, outcome["state"], "", "", outcome["error"] or ""
    waited = f"{outcome['seconds']:.1f}" if outcome["state"] == "done" else ""
    state = ", ".join(["restored" if waited else "kept", *outcome["notes"]])
    return name, state, f"x{outcome['ratio']:.3g}", waited, outcome["file"] or ""


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as their longest entry, the last one open."""
    rows = [("file", "result", "ratio", "seconds", "picture, or why not"), *rows]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return "\n".join("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows)


def _outcomes(file: Path) -> dict[str, dict[str, Any]]:
    """How each job of the run ended, as `RestoredDataset` left it; nothing where the run did not come that far."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _attempt(told: Namespace, out: Path) -> tuple[list[dict[str, str]], int, str]:
    """Unreadable files, an exit status, and what stopped the run before its end."""
    try:
        return run_inference(runtime_params(told, out), told.verbose), 0, ""
    except KeyboardInterrupt:
        return [], STOPPED, "stopped; finished files stay, the same command goes on"
    except Exception as error:
        if told.verbose:
            logging.getLogger(__name__).exception("the run ended early")
        return [], 1, str(error) or type(error).__name__


def restore(told: Namespace) -> int:
    """Restore, and tell at the end what became of each file; returns the exit status."""
    out = Path(told.out).expanduser().resolve()
    reason = _wrong(told, out)
    if reason:
        print(f"lowlight: {reason}", file=sys.stderr)
        return 2
    told_of = out / "details" / "last_run.json"
    told_of.unlink(missing_ok=True)
    unreadable, status, reason = _attempt(told, out)
    outcomes = _outcomes(told_of)
    rows = [_row(name, outcome) for name, outcome in outcomes.items()]
    rows += [(Path(entry["file"]).name, "unreadable", "", "", entry["reason"]) for entry in unreadable]
    if rows:
        print(table(rows))
    if reason:
        print(f"lowlight: {reason}", file=sys.stderr)
    else:
        print(f"page: {out / INDEX}")
    done = bool(rows) and not unreadable and all(outcome["state"] in ("done", "kept") for outcome in outcomes.values())
    return status or (0 if done else 1)
