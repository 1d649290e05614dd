import pytest
import torch
from torch.nn import functional as F

from lowlight_kedro.restoration.windows import blend_weight, windowed


def local(x, sigma):
    """A denoiser that sees 5x5 pixels."""
    return F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False) * sigma


def interior(x, rim=2):
    return x[..., rim:-rim, rim:-rim]


@pytest.mark.parametrize("shape", [(40, 56), (33, 47), (100, 12)])
def test_windows_of_a_denoiser_that_copies_give_the_frame_back(shape):
    x = torch.randn(1, 3, *shape)
    frame = windowed(lambda x, sigma: x, size=16, overlap=8, multiple=4)(x, torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(frame, x)


def test_a_local_denoiser_differs_only_where_windows_fade_out():
    """Rims of windows, where the denoiser lacks its neighbours, have almost no weight."""
    x = torch.randn(1, 3, 64, 80)
    whole, cut = local(x, torch.ones(())), windowed(local, size=32, overlap=16, multiple=8)(x, torch.ones(1, 1, 1, 1))
    assert (interior(whole) - interior(cut)).abs().mean() < 0.02 * whole.abs().mean()
    assert (interior(whole) - interior(cut)).abs().max() < 0.15


def test_sigma_maps_are_cut_with_the_image():
    x, sigma = torch.randn(1, 3, 48, 48), torch.rand(1, 3, 48, 48)
    out = windowed(lambda x, sigma: sigma, size=16, overlap=8, multiple=8)(x, sigma)
    torch.testing.assert_close(out, sigma)


def test_gradients_through_windows_are_those_of_the_sum():
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    frame = windowed(lambda x, sigma: x**2, size=16, overlap=8, multiple=8)
    y = x.clone().requires_grad_()
    frame(y, torch.ones(1, 1, 1, 1, dtype=torch.float64)).sum().backward()
    torch.testing.assert_close(y.grad, 2 * x)


def test_evaluations_are_counted_per_frame():
    count = []
    frame = windowed(lambda x, sigma: x, size=16, overlap=8, multiple=8, on_evaluation=lambda: count.append(1))
    frame(torch.randn(1, 3, 64, 64), torch.ones(1, 1, 1, 1))
    assert len(count) == 1


@pytest.mark.parametrize(
    ("size", "overlap", "words"), [(256, 300, r"overlap must be in \[0, size\), got overlap=300"), (20, 8, "multiples of 8")]
)
def test_impossible_windows_say_why(size, overlap, words):
    with pytest.raises(ValueError, match=words):
        windowed(local, size=size, overlap=overlap, multiple=8)


def test_the_weight_is_one_inside_and_positive_everywhere():
    weight = blend_weight(16, 4, torch.zeros(()))
    assert weight[8, 8] == 1
    assert (weight > 0).all()
