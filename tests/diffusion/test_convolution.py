"""Laws of convolutions, sums and maxima that are computed another way: faster, or in less memory, but not something else."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.memory import LiveBytes
from lowlight_kedro.diffusion.networks.convolution import LEAST, ROWS, Conv3x3, by_rows, fastest_layout, has_winograd
from lowlight_kedro.diffusion.networks.mosaic import mosaic_net
from lowlight_kedro.diffusion.sums import box_max_padded, box_sum_padded

CPU = torch.device("cpu")
winograd = pytest.mark.skipif(not has_winograd(), reason="this processor or this build of torch knows no faster convolution")


@pytest.mark.parametrize("shape", [(1, LEAST, 31, 58), (2, 64, 17, 23), (1, 64, 5, 3)])
def test_without_gradients_a_convolution_is_the_same_to_rounding(shape):
    conv, x = Conv3x3(shape[1], LEAST + 5), torch.randn(shape)
    exact = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    with torch.no_grad():
        error = conv(x).double() - exact
    assert error.square().mean().sqrt() < 5e-6
    assert error.abs().max() < 2e-4


@winograd
def test_fewer_products_are_taken_where_nothing_is_learned_and_channels_are_many():
    conv, x = Conv3x3(LEAST, LEAST), torch.randn(1, LEAST, 30, 30)

    def direct(conv, x):
        return torch.equal(conv(x), nn.Conv2d.forward(conv, x))

    with torch.no_grad():
        assert not direct(conv, x)
        assert direct(Conv3x3(LEAST - 1, LEAST), x[:, 1:])
        with torch.autocast("cpu", torch.bfloat16):
            assert direct(conv, x)
    assert direct(conv, x)


@winograd
def test_weights_lie_as_their_convolutions_want_them():
    assert fastest_layout(mosaic_net(mosaic="bayer", black=0.0, white=1.0), CPU, "fp32") == torch.contiguous_format
    assert fastest_layout(mosaic_net(mosaic="bayer", black=0.0, white=1.0), CPU, "bf16") == torch.channels_last
    assert fastest_layout(nn.Conv2d(3, 3, 3), CPU, "fp32") == torch.channels_last


@pytest.mark.parametrize("height", [1, 2 * ROWS, 2 * ROWS + 1, 4 * ROWS + 3])
@pytest.mark.parametrize("reach", [1, 2])
def test_rows_at_a_time_are_the_whole(height, reach):
    conv, x = nn.Conv2d(2, 3, 2 * reach + 1, padding=reach), torch.randn(2, 2, height, 7)
    whole = conv(x)
    torch.testing.assert_close(by_rows(conv, x, reach), whole, atol=0, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(by_rows(conv, x, reach), whole, atol=1e-6, rtol=0)


def test_a_network_of_mosaics_needs_little_more_than_its_cells():
    net, x = mosaic_net(mosaic="bayer", black=0.0, white=1.0, depth=3, front=()), torch.randn(1, 3, 512, 64)
    with torch.no_grad(), LiveBytes() as found:
        net(x, torch.full_like(x, -1.0))
    cells = 64 * x[:, 0].numel() / 4 * 4  # bytes: 64 channels of them
    assert found.peak < 7 * cells


@pytest.mark.parametrize("reach", [1, 2, 4, 5])
@pytest.mark.parametrize("shape", [(1, 2, 3, 40), (2, 1, 17, 16)])
def test_moving_sums_and_maxima_are_those_of_pooling(reach, shape):
    x, side = torch.randn(shape), 2 * reach + 1
    torch.testing.assert_close(box_max_padded(x, reach), F.max_pool2d(x, side, 1, reach), atol=0, rtol=0)
    torch.testing.assert_close(box_sum_padded(x, reach), side**2 * F.avg_pool2d(x, side, 1, reach), atol=1e-5, rtol=1e-5)
