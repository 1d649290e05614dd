import pytest
import torch

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.restoration.symmetries import Symmetric, turned, turned_back

X = torch.arange(2 * 3 * 16 * 24).reshape(2, 3, 16, 24).double().sin()
SIGMA = 0.1 + X.cos().square()


class Lopsided(torch.nn.Module):
    """Knows left from right, top from bottom and rows from columns, in the image and in the map."""

    def forward(self, x, sigma):
        return x + sigma * x.roll(1, -1) + x.roll(1, -2).square() + 2 * sigma.roll(2, -2)


def test_the_eight_are_different_and_undone():
    corner = torch.arange(12.0).reshape(1, 1, 3, 4)
    seen = {str(turned(corner, number).tolist()) for number in range(8)}
    assert len(seen) == 8
    for number in range(8):
        assert torch.equal(turned_back(turned(corner, number), number), corner)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_mean_turns_with_its_input(count):
    denoiser = Symmetric(Lopsided(), count)
    plain = denoiser(X, SIGMA)
    for number in range(8):
        same = torch.allclose(denoiser(turned(X, number), turned(SIGMA, number)), turned(plain, number), atol=1e-12)
        assert same == (number < count)


def test_a_level_for_the_whole_image_is_its_own_map():
    level = torch.full((2, 1, 1, 1), 0.3, dtype=torch.float64)
    assert torch.equal(Symmetric(Lopsided(), 8)(X, level), Symmetric(Lopsided(), 8)(X, level.expand(X.shape)))


def test_what_is_symmetric_already_stays_as_it_is():
    torch.manual_seed(0)
    network = NETWORKS["pyramid_unet"](widths=[8], blocks=1)  # its last layer is 0: local means, the same from all sides
    denoiser = Denoiser(network, 0.5).double()
    torch.testing.assert_close(Symmetric(denoiser, 8)(X, SIGMA), denoiser(X, SIGMA), rtol=0, atol=1e-6)


def test_other_counts_are_refused():
    with pytest.raises(ValueError, match=r"symmetries must be one of \(1, 2, 4, 8\), got 3"):
        Symmetric(Lopsided(), 3)
