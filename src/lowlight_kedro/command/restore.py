"""`lowlight restore`: named files in, files for people out. The nodes of the inference pipeline are called one after the other."""

import logging
import logging.config
import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml

from lowlight_kedro.package import PACKAGE, conf_source

INDEX = "restored.html"  # as in conf/restore/catalog.yml; index.html may be somebody's own
LOUD = {"kedro": logging.INFO, PACKAGE.name: logging.INFO, f"{PACKAGE.name}.datasets.restored": logging.DEBUG}  # of --verbose
LONGEST_SHOWN = 48  # letters of a name in the table
STOPPED = 130  # as shells say of a program that Ctrl-C ended


def runtime_params(options: Namespace, out: Path) -> dict[str, Any]:
    """What the environment `restore` is told by the command line."""
    executor: dict[str, Any] = {"name": "sequential"}
    if options.workers > 1:
        executor = {"name": "processes", "options": {"processes": {"workers": options.workers}}}
    restore: dict[str, Any] = {"out": out.as_posix(), "overwrite": options.overwrite}
    if options.calibrations:
        restore["calibrations"] = Path(options.calibrations).expanduser().resolve().as_posix()
    if options.darks:
        restore["darks"] = Path(options.darks).expanduser().resolve().as_posix()
    inference: dict[str, Any] = {
        "input": [Path(raw).expanduser().absolute().as_posix() for raw in options.raws],
        "estimate": options.estimate, "strength": options.strength, "symmetries": options.symmetries,
        "device": options.device,
    }  # fmt: skip
    if options.files is not None:
        inference["files"] = options.files
    if options.crop is not None:
        inference["crop"] = options.crop
    if options.preview is not None:
        inference["display"] = {"preview_side": options.preview}
    if options.ratio is not None:
        inference["exposure_ratio"] = {"value": options.ratio}
    prior = {"prior": Path(options.prior).expanduser().resolve().as_posix()} if options.prior else {}
    return {"inference": inference, "restore": restore, "executor": executor} | prior


class Workshop:
    """The settings of the environment `restore` with what the command line says, and the files it reads and writes; no Kedro session."""

    def __init__(self, options: Namespace, out: Path) -> None:
        from kedro.io import DataCatalog

        from lowlight_kedro.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

        settings: dict[str, Any] = CONFIG_LOADER_ARGS | {"default_run_env": "restore"}
        loader = CONFIG_LOADER_CLASS(str(conf_source()), env="restore", runtime_params=runtime_params(options, out), **settings)
        self.parameters: dict[str, Any] = loader["parameters"]
        self.files = DataCatalog.from_config(loader["catalog"])
        self.darks = bool(options.darks)

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """How each frame of this run ended."""
        return self.files.get("restored").outcomes  # type: ignore[no-any-return,union-attr]


def restore_all(work: Workshop) -> list[dict[str, str]]:
    """Read the headers, restore one frame after the other, write the index; returns the files that cannot be read, with the reason."""
    from lowlight_kedro.datasets.raw import NO_PAIRS
    from lowlight_kedro.pipelines.calibration import named_darks
    from lowlight_kedro.pipelines.inference.nodes import index_pages, restore_frames, select_frames
    from lowlight_kedro.pipelines.inference.options import InferenceOptions
    from lowlight_kedro.pipelines.options import ExecutorOptions, SensorOptions
    from lowlight_kedro.pipelines.preprocessing.nodes import index_frames
    from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions

    files, parameters = work.files, work.parameters
    options, raws = InferenceOptions.model_validate(parameters["inference"]), files.load("inference_raws")
    frames, unreadable = index_frames(raws, {}, PreprocessingOptions.model_validate(parameters["preprocessing"]))
    selected, darks = select_frames(frames, options), files.load("darks")
    if work.darks:
        darks = [*named_darks(files.load("dark_raws"), selected), *darks]
    jobs = restore_frames(
        raws, selected, NO_PAIRS, files.load("prior"), files.load("calibrations"), darks,
        SensorOptions.model_validate(parameters["sensor"]), options, ExecutorOptions.model_validate(parameters["executor"]),
    )  # fmt: skip
    files.save("restored", jobs)
    files.save("restored_index", index_pages(files.load("restored"), selected, options))
    return unreadable


def _loud(verbose: bool) -> None:
    """Logging as conf/restore says; with `--verbose` all of it."""
    logging.config.dictConfig(yaml.safe_load((conf_source() / "restore" / "logging.yml").read_text(encoding="utf-8")))
    for name, level in LOUD.items() if verbose else ():
        logging.getLogger(name).setLevel(level)


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written there; None = it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror or error}; give another folder by --out"
    return None


def _wrong(options: Namespace, out: Path) -> str | None:
    """What keeps the command from beginning; None = nothing."""
    if options.calibrations and not any(Path(options.calibrations).expanduser().glob("[!.]*.json")):
        return f"{options.calibrations} holds no calibration (*.json); give the folder that `kedro run --pipelines calibration` wrote"
    if options.prior and not Path(options.prior).expanduser().is_file():
        return f"{options.prior}: no such file; --prior takes the prior.safetensors that `kedro run --pipelines training` wrote"
    if options.darks and not Path(options.darks).expanduser().exists():
        return f"{options.darks} does not exist; give a folder of dark frames (raws taken with the lens cap on) by --darks"
    return _unwritable(out) or _unwritable(out / "details")


def _row(name: str, outcome: dict[str, Any]) -> tuple[str, ...]:
    """File, result, ratio, seconds that were waited, and the picture or the reason."""
    if outcome["state"] not in ("done", "kept"):
        return name, outcome["state"], "", "", outcome["error"] or ""
    waited = f"{outcome['seconds']:.1f}" if outcome["state"] == "done" else ""
    state = ", ".join(["restored" if waited else "kept", *outcome["notes"]])
    return name, state, f"x{outcome['ratio']:.3g}", waited, outcome["file"] or ""


def _cut(name: str) -> str:
    """At most LONGEST_SHOWN letters of a name, from its end, which tells series apart."""
    return name if len(name) <= LONGEST_SHOWN else "..." + name[3 - LONGEST_SHOWN :]


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as their longest entry, the last one open; the picture's path tells a long name whole."""
    rows = [("file", "result", "ratio", "seconds", "picture, or why not"), *((_cut(name), *rest) for name, *rest in rows)]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return "\n".join("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows)


def _attempt(work: Workshop, verbose: bool) -> tuple[list[dict[str, str]], int, str]:
    """Unreadable files, an exit status, and what stopped the run before its end."""
    try:
        return restore_all(work), 0, ""
    except KeyboardInterrupt:
        return [], STOPPED, "stopped; finished files stay, the same command goes on"
    except Exception as error:
        if verbose:
            logging.getLogger(__name__).exception("the run ended early")
        return [], 1, str(error) or type(error).__name__


def restore(options: Namespace) -> int:
    """Restore, and tell at the end what became of each file; returns the exit status."""
    out = Path(options.out).expanduser().resolve()
    reason = _wrong(options, out)
    if reason:
        print(f"lowlight: {reason}", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads sleep: faster where anything else runs
    from tqdm.contrib.logging import logging_redirect_tqdm

    _loud(options.verbose)
    work = Workshop(options, out)
    with logging_redirect_tqdm():
        unreadable, status, reason = _attempt(work, options.verbose)
    outcomes = work.outcomes()
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
