"""What a restoration took away is told from rows, columns and noise that nobody knew of."""

import numpy as np
import pytest
import torch

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.measurement import Measurement, Operator
from lowlight_kedro.restoration.remains import remains_of
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS

SHAPE = (120, 144)


def looked_at(cfa, left):
    """Remains where the mean is 0 and the measurement `left`, in standard deviations of its noise."""
    operator = Operator.of(cfa, (2.0, 1.0, 1.6), 10.0, Scaling(0.0, 1.0))
    gains = torch.tensor(operator.gains).reshape(1, 3, 1, 1)
    mask = operator.mask(SHAPE)[None]
    s = 0.05 * gains.expand(1, 3, *SHAPE)
    return remains_of(Measurement(mask * s * torch.from_numpy(left).float(), mask, s), torch.zeros(1, 3, *SHAPE), gains)


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
def test_each_fault_has_its_name_and_noise_has_none(cfa, rng):
    noise = rng.normal(size=SHAPE)
    rows, columns = rng.normal(0, 0.5, (SHAPE[0], 1)), rng.normal(0, 0.5, (1, SHAPE[1]))
    fine = looked_at(cfa, noise)
    assert fine.verdict == "good"
    assert fine.mean_square == pytest.approx(1, abs=0.05)
    assert max(fine.rows, fine.columns) < 2.5
    assert looked_at(cfa, noise + rows).verdict.startswith("rows of the sensor stand out")
    assert looked_at(cfa, noise + columns).verdict == "columns of the sensor stand out: take dark frames"
    assert looked_at(cfa, 1.5 * noise).verdict.startswith("2.2 times the noise that was told was taken away")


def test_detail_and_small_frames_are_no_fault():
    """A fence has some frequencies of rows, and not all."""
    rng = np.random.default_rng(1)
    fence = np.sign(np.sin(np.arange(SHAPE[0]) * 0.9))[:, None] * 0.5
    assert looked_at(BAYER_RGGB, rng.normal(size=SHAPE) + fence).verdict == "good"
    y = torch.zeros(1, 3, 24, 24)
    assert remains_of(Measurement(y, torch.ones_like(y), torch.ones_like(y)), y, torch.ones(1, 3, 1, 1)).verdict == "good"
