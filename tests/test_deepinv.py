"""The recipe of docs/python.md: the prior as a denoiser of deepinv."""

import re

import pytest
import torch

import lowlight_kedro as ll
from tests.conftest import ROOT


def test_the_recipe_denoises():
    pytest.importorskip("deepinv", reason="deepinv is not installed")
    recipe = re.search(r"```python\n(import deepinv.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    space: dict = {}
    exec(recipe[1], space)
    denoiser = space["LowlightDenoiser"](ll.load_prior(device="cpu", precision="fp32"))
    rows, columns = torch.meshgrid(torch.linspace(0.1, 0.5, 64), torch.linspace(0, 0.3, 64), indexing="ij")
    clean = torch.stack([rows, rows + columns, columns])[None]
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for sigma in (0.1, torch.tensor([0.1])):
        assert (denoiser(noisy, sigma) - clean).square().mean() < 0.1 * (noisy - clean).square().mean()
