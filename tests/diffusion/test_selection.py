import math

import pytest

from lowlight_kedro.diffusion.training import best_row, ticks_without_gain

HISTORY = [{"psnr": figure, "loss": -figure} for figure in (1.0, 3.0, 2.0, 3.0, 2.5)]


def test_the_best_row_has_the_highest_figure_or_the_lowest_loss_and_is_the_first_of_equals():
    assert best_row(HISTORY, "psnr") == 1
    assert best_row(HISTORY, "loss") == 1
    assert best_row([{"loss": 2.0}, {"loss": 0.5}, {"loss": 1.0}], "loss") == 1


def test_rows_without_a_figure_are_passed_over():
    rows = [{"loss": 1.0}, {"psnr": math.nan}, {"psnr": -2.0}, {"psnr": math.inf}]
    assert best_row(rows, "psnr") == 2
    assert best_row([], "psnr") is None
    assert best_row(rows, "ssim") is None
    assert ticks_without_gain([{"psnr": 2.0}, {"loss": 1.0}, {"psnr": 1.0}], "psnr", 0) == 1


@pytest.mark.parametrize(("min_delta", "waited"), [(0.0, 3), (1.5, 3), (2.0, 4), (0.4, 3)])
def test_only_a_gain_over_min_delta_ends_the_wait(min_delta, waited):
    assert ticks_without_gain(HISTORY, "psnr", min_delta) == waited


def test_small_gains_add_up_to_one():
    """The bar is the last gain, not the last row: a slow rise is no standstill."""
    rising = [{"psnr": 0.4 * n} for n in range(7)]
    assert [ticks_without_gain(rising[: n + 1], "psnr", 1.0) for n in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_the_wait_never_needs_more_than_the_history():
    """Row by row or all at once."""
    for end in range(1, len(HISTORY)):
        before, now = (ticks_without_gain(HISTORY[:n], "psnr", 0) for n in (end, end + 1))
        assert now in (0, before + 1)
