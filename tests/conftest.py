"""Shared by all tests: where the data lies, and small raws."""

import gc
import logging
import os
import pickle
from functools import cache
from io import StringIO
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import omegaconf.base
import pytest
import torch
from omegaconf import OmegaConf

from lowlight_kedro.command.restore import LOUD
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa, tile_pattern
from lowlight_kedro.sensor.frame import Frame

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("LOWLIGHT_TEST_DATA", ROOT.parent / "shared" / "data"))
PHASES: list[Cfa] = [((0, 1), (1, 2)), ((1, 0), (2, 1)), ((2, 1), (1, 0)), ((1, 2), (0, 1))]
WHITE_BALANCE = (2.0, 1.0, 1.6)
CFAS = [*PHASES, XTRANS]


def pytest_collection_finish():
    """What was imported stays: the collector, which would walk it again and again, may leave it alone (a twentieth of the whole suite)."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Whole runs first: whoever gets one of their files last would keep the others waiting."""
    items.sort(key=lambda item: "pipelines" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def _configuration_parsed_once():
    """Half of what a small run takes is configuration that all have: 20 files of YAML and their interpolations, in pure Python."""
    read = OmegaConf.load
    parsed = cache(lambda text: pickle.dumps(read(StringIO(text))))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OmegaConf, "load", lambda file: pickle.loads(parsed(file.read())))
        patched.setattr("omegaconf.base.parse", cache(omegaconf.base.parse))
        yield


@pytest.fixture(autouse=True, scope="module")
def _environment():
    """What a test sets, as the command does for its workers and its log, must not reach another file, or the processes that it starts."""
    before, levels = dict(os.environ), {name: logging.getLogger(name).level for name in LOUD}
    yield
    os.environ.clear()
    os.environ.update(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def bracket():
    folder = SHARED / "raw_bracket"
    if not folder.is_dir():
        pytest.skip(f"the Nikon bracket is not at {folder}; set LOWLIGHT_TEST_DATA to its parent folder")
    return folder


def make_frame(rng, cfa: Cfa = BAYER_RGGB, shape=(512, 520), exposure_s=10.0, light=0.3) -> Frame:
    """A raw of grey random light in patches with a little noise, 14 bit."""
    coarse = rng.uniform(0.2, 1.0, (9, 9))
    rows, columns = np.linspace(0, 7.99, shape[0]), np.linspace(0, 7.99, shape[1])
    field = coarse[rows.astype(int)][:, columns.astype(int)] * light * min(exposure_s / 10, 1)
    grey = tile_pattern(1 / np.asarray(WHITE_BALANCE)[np.asarray(cfa)], shape)
    dn = 512 + 15871 * field * grey + rng.normal(0, 6, shape)
    return Frame(
        mosaic_dn=np.clip(np.rint(dn), 0, 16383).astype(np.uint16),
        cfa=cfa,
        black_level=np.full((len(cfa),) * 2, 512, np.float32),
        white_level=16383.0,
        exposure_s=exposure_s,
        iso=1600.0,
        camera="test ILCE-7SM2",
        white_balance=WHITE_BALANCE,
        camera_to_srgb=np.eye(3, dtype=np.float32),
    )
