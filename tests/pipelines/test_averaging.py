"""Another running mean after a training."""

import pytest
import torch

from lowlight_kedro.diffusion.checkpoint import CheckpointMismatchError
from lowlight_kedro.diffusion.prior import reconstruct_prior


def test_the_width_is_chosen_after_the_training_and_without_widths_the_reason_is_told(project):
    with pytest.raises(CheckpointMismatchError, match=r"train with training\.ema\.name=power"):
        project.run("averaging")
    project.run("training", training={"ema": {"name": "power"}, "resume": False, "total_kimg": 0.096})
    project.run("averaging", averaging={"sigma_rel": 0.08})
    prior, exported = project.catalog().load("prior"), project.catalog().load("training_state")
    newest = [read() for name, read in project.catalog().load("snapshots").items() if name != "best"]
    assert prior.description["averages"] == ["power_0.08"]
    wanted = reconstruct_prior([one for one in newest if one.description.get("averages")], 0.08)
    for name, tensor in prior.tensors.items():
        assert torch.equal(tensor, wanted.tensors[name])
    assert any(not torch.equal(tensor, exported.tensors[f"ema.{name}"]) for name, tensor in prior.tensors.items())
