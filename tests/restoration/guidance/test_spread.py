import pytest
import torch

from lowlight_kedro.restoration.guidance.posterior import interpolate, surrogate_variance


def test_a_table_is_met_at_its_levels_and_held_beyond_them():
    sigma = torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0])
    assert interpolate([[0.1, 2.0], [1.0, 0.5], [10.0, 3.0]], sigma).tolist() == pytest.approx([2, 2, 0.5, 3, 3], rel=1e-5)
    assert interpolate([[0.1, 2.0]], sigma).tolist() == pytest.approx([2] * 5, rel=1e-5)


def test_powers_are_interpolated_exactly():
    sigma = torch.tensor([[0.3, 0.5], [2.0, 7.0]], dtype=torch.float64)
    torch.testing.assert_close(interpolate([[0.1, 0.01], [10.0, 100.0]], sigma), sigma.square())


@pytest.mark.parametrize("table", [[], [[1.0, 2.0], [1.0, 3.0]], [[0.0, 1.0]], [[1.0, -1.0]], [1.0, 2.0]])
def test_a_wrong_table_is_refused(table):
    with pytest.raises(ValueError, match="pairs"):
        interpolate(table, torch.ones(1))


def test_the_surrogate_is_the_variance_left_by_noise_on_independent_data():
    generator = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(200_000, generator=generator)
    x = x0 + 0.4 * torch.randn(x0.shape, generator=generator)
    left = (x0 - 0.25 / (0.25 + 0.16) * x).var().item()
    assert surrogate_variance(torch.tensor(0.4), 0.5).item() == pytest.approx(left, rel=0.02)
