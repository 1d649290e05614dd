"""A small project of its own: raws, configuration and outputs in a temporary folder."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from tests.conftest import ROOT, make_frame

SCENES = {"00001": BAYER_RGGB, "00002": BAYER_RGGB, "00003": BAYER_RGGB, "10001": BAYER_RGGB, "10002": XTRANS, "20001": BAYER_RGGB}
PARAMETERS = {
    "preprocessing": {"split": {"rule": "first_digit"}, "tiles": {"stride": 64, "data_types": ["long", "short"]}},
    "training": {
        "network": {"name": "pyramid_unet", "options": {
            name: {"widths": [8, 8], "blocks": 1} for name in ("pyramid_unet", "raw_unet", "outside.network")}},
        "corruption": {"name": "noise_map", "options": {"noise_map": {
            "uniform_fraction": 0.4, "camera_fraction": 0.2, "shot": [5e-3, 2e-2], "read": [0.02, 0.08], "balance": [1.0, 2.0],
            "mosaics": ["bayer", "xtrans"], "unknown_fraction": 0.8, "unknown_weight": 3.0, "unknown_floor": 0.05}}},
        "total_kimg": 0.128, "batch_size": 8, "batch_gpu": 4, "learning_rate": 1e-3, "ramp_kimg": 0.02, "kimg_per_tick": 0.032,
        "snapshot_ticks": 1, "crop": 32, "device": "cpu", "ema": {"options": {"halflife": {"kimg": 0.05}}},
        "loader": {"workers": 0, "pin_memory": False}, "validate": {"tiles": 2, "crop": 64, "sigmas": [0.3]},
    },
    "inference": {
        "guidance": {"name": "noise_map"}, "estimate": "mean", "sample": {"evaluations": 3}, "device": "cpu", "window": {"size": 256},
        "measurement": {"lines": False},  # patches of light meet in the middle of the frames, as halves of a sensor do
    },
}  # fmt: skip


def write_raws(folder: Path, scenes=SCENES) -> None:
    """SID's layout; X-Trans frames are wider than a window."""
    for number, (scene, cfa) in enumerate(scenes.items()):
        shape = (192, 288) if cfa == XTRANS else (128, 160)
        for kind, seconds in (("long", 10.0), ("short", 0.1)):
            frame = make_frame(np.random.default_rng(number), cfa, shape, seconds, light=0.6)
            write_dng(folder / "Sony" / kind / f"{scene}_00_{seconds:g}s.dng", frame)


DRAWN = (
    "training_curves",
    "evaluation_figure",
    "uncertainty_figure",
    "restored_sheet",
)  # matplotlib takes as long as all the rest of a small run


@dataclass(frozen=True)
class Project:
    """`conf` is a copy of the project's configuration with an environment `test` that writes below `data`.

    `figures`: whether the tables' figures are drawn into files.
    """

    conf: Path
    raw: Path
    data: Path
    tile_size: int = 64
    figures: bool = False

    def run(self, *pipelines: str, **parameters):
        """`kedro run --env test [--pipelines ...] [--params ...]` in this process."""
        with KedroSession.create(ROOT, env="test", conf_source=str(self.conf), runtime_params=parameters) as session:
            return session.run(pipeline_names=list(pipelines) or None)

    def catalog(self):
        """The catalog of the environment."""
        with KedroSession.create(ROOT, env="test", conf_source=str(self.conf)) as session:
            return session.load_context().catalog

    def parameters(self):
        """All parameters of the environment."""
        with KedroSession.create(ROOT, env="test", conf_source=str(self.conf)) as session:
            return session.load_context().config_loader["parameters"]

    def copy(self, folder: Path) -> "Project":
        """The project as it stands, elsewhere."""
        shutil.copytree(self.conf.parent, folder, dirs_exist_ok=True)
        copy = Project(folder / "conf", folder / "raw", folder / "data")
        copy.configure()
        return copy

    def configure(self) -> None:
        """Write the environment."""
        folder = self.conf / "test"
        folder.mkdir(exist_ok=True)
        (folder / "globals.yml").write_text(yaml.safe_dump({"raw": str(self.raw), "data": str(self.data), "tile_size": self.tile_size}))
        (folder / "parameters.yml").write_text(yaml.safe_dump(PARAMETERS))
        drawn = () if self.figures else DRAWN
        (folder / "catalog.yml").write_text(yaml.safe_dump({name: {"type": "MemoryDataset"} for name in drawn}))


def make_project(folder: Path, figures: bool = False) -> Project:
    shutil.copytree(ROOT / "conf", folder / "conf")
    project = Project(folder / "conf", folder / "raw", folder / "data", figures=figures)
    project.configure()
    return project


@pytest.fixture(scope="session", autouse=True)
def _bootstrapped():
    bootstrap_project(ROOT)


@pytest.fixture
def empty_project(tmp_path):
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, _bootstrapped):
    """A project after `kedro run`, one for all workers; not to be changed."""
    shared = tmp_path_factory.getbasetemp()
    shared = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "finished"
    with FileLock(f"{shared}.lock"):
        if not (shared / "done").exists():
            shutil.rmtree(shared, ignore_errors=True)
            project = make_project(shared, figures=True)
            write_raws(project.raw)
            project.run()
            (shared / "done").touch()
    return Project(shared / "conf", shared / "raw", shared / "data", figures=True)


@pytest.fixture
def project(finished, tmp_path):
    """The same, to be changed."""
    return finished.copy(tmp_path / "project")
