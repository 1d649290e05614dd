"""What a run shows at its end and to other plug-ins, what several ranks of one training must not do, and names that are nothing's."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from click import ClickException
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Node, Pipeline

from lowlight_kedro.config_loader import ConfigLoader
from lowlight_kedro.plugins import did_you_mean

logger = logging.getLogger(__name__)

TRAIN = "training.train_prior"
COLUMNS = {
    "frame": "frame",
    "scaled_psnr_srgb": "scaled PSNR",
    "restored_psnr_srgb": "restored PSNR",
    "scaled_ssim_srgb": "scaled SSIM",
    "restored_ssim_srgb": "restored SSIM",
    "coverage_90": "90 % coverage",
    "evaluations": "evaluations",
    "seconds": "seconds",
}
METHOD_COLUMNS = {
    "psnr_linear": "PSNR linear",
    "psnr_srgb": "PSNR",
    "ssim_srgb": "SSIM",
    "evaluations": "evaluations",
    "seconds": "seconds",
}


def results_text(table: Any, pictures: list[str]) -> str:
    """A small table of an evaluation (a DataFrame), with the mean, and the paths of its pictures."""
    shown = table[[name for name in COLUMNS if name in table]].rename(columns=COLUMNS)
    mean = shown.mean(numeric_only=True).to_frame().T.assign(frame="mean")
    lines = type(table)(shown.to_dict("records") + mean.to_dict("records")).to_string(index=False, float_format="%.3f")
    return "\n".join(["", "sRGB, data range 1:", lines, "", "pictures:", *(f"  {path}" for path in pictures)])


def methods_text(table: Any, folder: str) -> str:
    """What each method gave, mean over frames (a DataFrame), and where the pictures are."""
    means = table.fillna({"estimate": ""}).groupby(["method", "estimate"], sort=False).mean(numeric_only=True)
    shown = means[[name for name in METHOD_COLUMNS if name in means]].rename(columns=METHOD_COLUMNS)
    return "\n".join(
        ["", "methods, mean over frames, sRGB unless linear:", shown.to_string(float_format="%.3f"), "", f"pictures: {folder}"]
    )


def calibration_text(table: Any, folder: str) -> str:
    """What was measured of each camera (a DataFrame), value and standard error, and where the curves are."""
    shown = table[["camera", "iso", "method", "verdict"]].copy()
    for column, title in (("gain_dn", "gain (DN/e)"), ("read_noise_dn", "read noise (DN)")):
        shown[title] = [f"{value:.4g} +- {error:.2g}" for value, error in zip(table[column], table[f"{column}_error"], strict=True)]
    shown["reason"] = table["reason"].str.slice(0, 70)
    return "\n".join(["", "camera noise:", shown.to_string(index=False), "", f"curves: {folder}"])


def place(dataset: Any, key: str = "path") -> str:
    """Where a dataset lies, with the protocol of another file system, as it was given."""
    description = dataset._describe()  # noqa: SLF001 - there is no public way to a dataset's path
    path, protocol = str(description.get(key, "in memory only")), description.get("protocol", "file")
    return path if protocol == "file" or "://" in path else f"{protocol}://{path}"


def pictures_text(pictures: list[str], others: list[str]) -> str:
    """Where the restored frames of a run are: the first dozen, and what shows all of them."""
    more = [f"  ... and {len(pictures) - 12} more"] if len(pictures) > 12 else []
    return "\n".join(["", "restored:", *(f"  {path}" for path in pictures[:12]), *more, *others])


class ShowResults:
    """Prints where restored frames are, calibration and evaluation after a run that made them."""

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Called by Kedro when all nodes are done."""
        if "restored_sheet" in pipeline.all_outputs():
            frames, restored = catalog.load("selected_frames")["frame"], catalog.get("restored")
            paths = [path for frame in frames if (path := restored.place(frame, "preview"))]  # type: ignore[union-attr]
            places = {"all on one sheet": "restored_sheet", "pages": "restored_index"}
            others = [f"{what}: {place(catalog.get(name), 'filepath')}" for what, name in places.items()]
            print(pictures_text(paths, others))  # noqa: T201
        if "calibration_table" in pipeline.all_outputs():
            measured = catalog.load("calibration_table")
            if len(measured):
                print(calibration_text(measured, place(catalog.get("calibration_figures"))))  # noqa: T201
        if "method_table" in pipeline.all_outputs():
            print(methods_text(catalog.load("method_table"), place(catalog.get("method_pictures"))))  # noqa: T201
        if "evaluation_table" in pipeline.all_outputs():
            table, folder = catalog.load("evaluation_table"), place(catalog.get("comparisons"))
            print(results_text(table, [f"{folder}/{frame}.png" for frame in table["frame"]]))  # noqa: T201


def lock(folder: Path) -> int | None:
    """Hold `folder` until the descriptor is closed or the process ends, however it ends; None where the system has no such locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


class OneTraining:
    """One training at a time in a folder. Ranks that `torchrun` started train and do nothing else; the first one logs alone."""

    def __init__(self) -> None:
        self._held: int | None = None

    @hook_impl
    def after_context_created(self) -> None:
        """Called by Kedro when the configuration is known."""
        if os.environ.get("RANK", "0") != "0":
            logging.disable(logging.WARNING)

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Called by Kedro before the first node.

        Raises:
            ValueError: a node would run in every rank, each writing the same files; or another run trains in the same folder.
        """
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        names = {node.name for node in pipeline.nodes}
        trained = {node.name for node in pipeline.from_nodes(TRAIN).nodes} if TRAIN in names else set()
        others = sorted(names - trained)
        if ranks > 1 and others:
            raise ValueError(
                f"torchrun started {ranks} ranks, and each of them would run {', '.join(others)}; "
                "run what comes before training without it, then torchrun --nproc-per-node N -m kedro run --pipelines training"
            )
        if TRAIN in names and os.environ.get("RANK", "0") == "0":
            self._release()  # of a run in this process that ended by a signal
            folder = Path(place(catalog.get("training_state"), "filepath")).parent
            try:
                self._held = lock(folder)
            except BlockingIOError:
                raise ValueError(
                    f"another run trains in {folder}, and one of the two would be lost; wait for it, or give this one a folder of its own: "
                    "--params data=FOLDER"
                ) from None

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Called by Kedro when all nodes are done."""
        self._release()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Called by Kedro when a node failed."""
        self._release()

    def _release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


class Interrupted:
    """`--only-missing-outputs` takes a file for a whole result. What an interrupted node left is none, and what came of it before is stale.

    A node that has begun leaves a mark below `data`; the mark goes when the next node begins or the run ends well.
    """

    def __init__(self) -> None:
        self._marks = Path()
        self._begun: Path | None = None
        self._count = self._nodes = 0

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Called by Kedro when the configuration is known."""
        data = str(context.config_loader["globals"]["data"])
        self._marks = Path("." if "://" in data else data) / "unfinished"

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Called by Kedro before the first node."""
        self._begun, self._count, self._nodes = None, 0, len(pipeline.nodes)
        names = [node.name for node in pipeline.nodes if self._mark(node.name).exists()]
        if run_params.get("only_missing_outputs") and names:
            logger.info("%s: interrupted before, done again with all that follows", ", ".join(names))
            for name in pipeline.from_nodes(*names).all_outputs():
                catalog.get(name)._exists = lambda: False  # type: ignore[union-attr] # noqa: SLF001 - what Kedro asks

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Called by Kedro; the node before this one has saved all it has, for one runs after the other."""
        self._count += 1
        logger.info("%s (%d of %d)", node.name, self._count, self._nodes)
        with suppress(OSError):
            if self._begun:
                self._begun.unlink()
        self._begun = self._mark(node.name)
        with suppress(OSError):  # where nothing can be written, whoever writes a result says so, with its name
            self._begun.parent.mkdir(parents=True, exist_ok=True)
            self._begun.touch()

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Called by Kedro when all nodes are done."""
        for node in pipeline.nodes:
            with suppress(OSError):
                self._mark(node.name).unlink()
        with suppress(OSError):  # other marks are left in it, or it was never made
            self._marks.rmdir()

    def _mark(self, node: str) -> Path:
        return self._marks / node


class PlainParameters:
    """Hooks of other plug-ins, as kedro-mlflow's, see the parameters of a node as plain nested mappings; the node gets them typed."""

    @hook_impl(tryfirst=True)
    def before_node_run(self, inputs: dict[str, Any]) -> None:
        """Called by Kedro with a mapping that only hooks see. `parameters`, which is all of them, is no parameter of the node."""
        inputs.pop("parameters", None)
        inputs |= {name: options.model_dump(mode="json", by_alias=True) for name, options in inputs.items() if name.startswith("params:")}


class KnownNames:
    """A misspelt name would change nothing and say nothing, or stop a run after hours; it ends the run before it starts."""

    def __init__(self) -> None:
        self._tile_size: int | None = None

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Called by Kedro when the configuration is known.

        Raises:
            ClickException: a group is neither in conf/base nor asked for by the catalog.
        """
        loader: ConfigLoader = context.config_loader
        self._tile_size = loader["globals"].get("tile_size")
        known = loader.known_names()
        unknown = sorted(set(loader["parameters"]) - known)
        if unknown:
            hint = " ".join([did_you_mean(unknown[0], known), "The groups are"]).strip()
            raise ClickException(f"unknown parameters: {', '.join(unknown)}; {hint} {', '.join(sorted(known))}")

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Called by Kedro before the first node: what is slow to import is checked too, and what several groups must agree on.

        Raises:
            ValueError: no such plug-in or option, or the side of the tiles is not that of the catalog.
        """
        for name in sorted(name for name in pipeline.inputs() if name.startswith("params:")):
            options = catalog.load(name)
            options.check_plug_ins()
            for option, side in options.tile_sides().items():
                if side != self._tile_size:
                    raise ValueError(
                        f"{name.removeprefix('params:')}.{option} must be tile_size={self._tile_size}, which the training set has too, got "
                        f"{side}; set tile_size={side}, by --params or in globals.yml, and leave {option} alone"
                    )
