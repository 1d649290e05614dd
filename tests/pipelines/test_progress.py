import math

import pandas as pd
import pytest
import torch
import yaml
from pydantic import ValidationError

from lowlight_kedro.pipelines.training.options import TrainingOptions
from lowlight_kedro.pipelines.training.progress import (
    COSTS,
    SMOOTHED,
    Progress,
    peak_memory_gib,
    recent_loss,
    tick_line,
    training_figure,
    with_costs,
)
from lowlight_kedro.pipelines.training.work import fresh_state, validator
from tests.conftest import ROOT
from tests.diffusion.test_training import CPU, SCALING, TILES, fresh, run, schedule
from tests.diffusion.test_training import states as trained


def options(**changes):
    base = yaml.safe_load((ROOT / "conf/base/parameters_training.yml").read_text())["training"]
    return TrainingOptions.model_validate(base | changes)


class Clock:
    """Time stands still unless someone moves it."""

    now = 100.0

    def __call__(self):
        return self.now


def simulated(ticks, updates=4, wait=1.0, work=3.0, pause=5.0, terminal=False):
    """A run of 8 images per update against a clock that only these durations move; validation and saving take `pause`."""
    clock, state = Clock(), fresh()
    progress = Progress(state, 8 * updates * ticks, CPU, terminal=terminal, clock=clock)

    def batches(start, stop):
        for _ in range(start, stop, 8):
            clock.now += wait
            yield [], TILES[:1]

    for _ in progress.timed(batches)(0, 8 * updates * ticks):
        clock.now += work
        state.images += 8
        state.losses.append(1.0)
        progress.stepped(state)
        if state.images % (8 * updates) == 0:
            clock.now += pause
            state.history.append({"kimg": state.images / 1000, "loss": 1.0})
            progress.ticked(state)
    return progress


def test_speed_is_without_validation_and_the_seconds_are_with_it():
    rows = simulated(3).rows
    assert [row["kimg"] for row in rows] == [0.032, 0.064, 0.096]
    for row in rows:
        assert row["images_per_second"] == pytest.approx(32 / 16)
        assert row["wait_fraction"] == pytest.approx(4 / 16)
        assert row["seconds"] == pytest.approx(16 + 5)


def test_the_fraction_of_waiting_follows_the_wait():
    assert simulated(1, wait=0.0).rows[0]["wait_fraction"] == 0
    assert simulated(1, wait=9.0).rows[0]["wait_fraction"] == pytest.approx(0.75)


def test_memory_is_at_least_what_is_held_and_never_falls():
    before = peak_memory_gib(CPU)
    held = torch.ones(2**27)  # 512 MiB
    during = peak_memory_gib(CPU)
    assert max(before, 0.5 * float(held[-1])) <= during < 64
    del held
    assert peak_memory_gib(CPU) >= during


def test_the_bar_shows_a_smoothed_loss_and_that_of_the_last_tick_at_the_beginning_of_one():
    state = fresh()
    assert recent_loss(state) is None
    state.history.append({"loss": 7.0})
    assert recent_loss(state) == 7.0
    state.losses = [1000.0] + [2.0] * (SMOOTHED - 1) + [2.0 + SMOOTHED]
    assert recent_loss(state) == pytest.approx(3.0)


def test_without_a_terminal_every_tick_is_one_line_of_the_log(caplog):
    caplog.set_level("INFO")
    simulated(2)
    assert [message.split(",")[0] for message in caplog.messages] == ["0.032 of 0.064 kimg", "0.064 of 0.064 kimg"]
    assert "2 img/s, waiting 25.0%" in caplog.messages[0]
    assert caplog.messages[0].endswith("0:00:16 left")
    caplog.clear()
    simulated(2, terminal=True)
    assert caplog.messages == []


def test_a_line_tells_of_the_figures_that_there_are():
    row = {"kimg": 1.0, "loss": 0.5, "psnr_0.3": 25.123, "raw_psnr_0.3": 20.0, "snapshot": True,
           "images_per_second": 10.0, "wait_fraction": 0.01, "memory_gib": 1.5}  # fmt: skip
    assert tick_line(row, 3.0) == "1 of 3 kimg, loss 0.5, psnr_0.3 25.12, 10 img/s, waiting 1.0%, 1.50 GiB, 0:03:20 left"


def test_costs_join_the_rows_they_belong_to_and_earlier_ones_are_kept(tmp_path):
    history = [{"kimg": n * 0.1, "loss": float(n)} for n in (1, 2, 3)]

    def costs(numbers, base):
        return [{"kimg": n * 0.1} | dict.fromkeys(COSTS, base + n) for n in numbers]

    with_costs(history, costs([1, 2, 3], 10.0), None).to_csv(tmp_path / "history.csv", index=False)
    earlier = pd.read_csv(tmp_path / "history.csv")
    table = with_costs(history[:2], [], earlier)  # resumed at an older snapshot: the third tick is made again
    assert table["seconds"].tolist() == [11, 12]
    table = with_costs(history, costs([3], 20.0), earlier)
    assert table["wait_fraction"].tolist() == [11, 12, 23]
    assert table["loss"].tolist() == [1, 2, 3]
    assert list(table.columns) == ["kimg", "loss", *COSTS]
    assert with_costs(history, [], None)["memory_gib"].isna().all()
    assert with_costs([], [], earlier).empty
    old = earlier[["kimg", "loss"]]  # of before there were costs
    assert with_costs(history, costs([3], 0.0), old)["seconds"].isna().tolist() == [True, True, False]


def test_nothing_of_the_clock_is_in_the_training_state():
    state = run(fresh(), total_kimg=0.016)
    assert not set(COSTS) & set(state.history[0])


def panels(history):
    return {axis.get_title(): axis for axis in training_figure(pd.DataFrame(history)).axes if axis.get_title()}


def test_curves_draw_what_there_is():
    row = {"kimg": 1.0, "loss": 0.5, "learning_rate": 1e-3, "gradient_norm": 2.0, "psnr_0.3": 25.0, "raw_psnr_0.3": 24.0,
           "ssim_0.3": 0.9, "raw_ssim_0.3": 0.8} | dict.fromkeys(COSTS, 1.0)  # fmt: skip
    for rows in ([row], [row, row | {"kimg": 2.0}]):
        drawn = panels(rows)
        assert [line.get_label() for line in drawn["validation PSNR (dB, data range 2)"].lines] == ["sigma 0.3, EMA", "sigma 0.3, raw"]
        assert [line.get_ydata()[0] for line in drawn["validation SSIM (data range 2)"].lines] == [0.9, 0.8]
        assert drawn["training loss"].get_yscale() == "log"
        assert all(line.get_marker() == "." for axis in drawn.values() for line in axis.lines)
    bare = panels([{"kimg": 1.0, "loss": 0.5, "learning_rate": 0.0}])  # without validation tiles, of an older version, cooled to 0
    assert not bare["validation PSNR (dB, data range 2)"].lines
    assert len(bare["training loss"].lines) == len(bare["learning rate"].lines) == 1


def test_the_column_of_selection_must_be_one_that_there_will_be():
    selection = {"column": "psnr_0.3", "patience_ticks": None, "min_delta": 0.0}
    for column in ("loss", "raw_ssim_0.1", "psnr_1"):
        assert options(selection=selection | {"column": column}).selection.column == column
    with pytest.raises(ValidationError, match=r"selection.column must be one of loss, psnr_0.1, .*, got 'psnr_0.2'"):
        options(selection=selection | {"column": "psnr_0.2"})


def test_early_stopping_is_off_by_default_and_needs_validation_tiles():
    flat = [{"psnr_0.3": 1.0, "loss": 1.0}] * 100
    assert not options().selection.enough(flat)
    patient = options(selection={"column": "psnr_0.3", "patience_ticks": 99, "min_delta": 0.0})
    assert patient.selection.enough(flat)
    assert not patient.selection.enough(flat[:99])
    with pytest.raises(ValueError, match=r"selection.column=psnr_0.3 ends the run, but split val has no clean tile"):
        validator(None, SCALING, patient, CPU)
    assert validator(None, SCALING, options(), CPU)(None) == {}


def test_the_schedule_has_the_means_that_were_chosen():
    assert options().schedule(32).ema_keeps(10**8)["halflife"] == pytest.approx(0.5 ** (256 / 500_000))
    keeps = options(ema={"name": "power", "options": {"power": {"sigma_rel": [0.1, 0.05]}}}).schedule(32).ema_keeps(256)
    assert keeps == {"power_0.1": 0.0, "power_0.05": 0.0}  # the first update forgets how the weights began
    with pytest.raises(ValueError, match="ema 'power' has no option 'width'; its options: sigma_rel"):
        options(ema={"name": "power", "options": {"power": {"width": 1}}}).schedule(32)


def test_a_real_run_fills_every_column():
    state, plan = fresh(), schedule(total_kimg=0.032)
    progress = Progress(state, plan.total_images, CPU, terminal=False)
    list(trained(state, plan, on_step=progress.stepped, on_tick=progress.ticked, through=progress.timed))
    table = with_costs(state.history, progress.rows, None)
    assert len(table) == 2
    assert table.map(math.isfinite).all(axis=None)
    assert (table["images_per_second"] > 0).all()
    assert table["wait_fraction"].between(0, 1).all()


def test_a_network_that_is_told_another_spread_of_the_data_than_its_denoiser_is_refused():
    chosen = {"name": "pyramid_unet", "options": {"widths": [4], "blocks": 1}}
    with pytest.raises(ValueError, match=r"sigma_data of .* got 0\.5, expected 0\.4"):
        fresh_state({"seed": 0, "network": chosen, "sigma_data": 0.4}, ["halflife"], CPU)
    told = chosen | {"options": chosen["options"] | {"sigma_data": 0.4}}
    assert fresh_state({"seed": 0, "network": told, "sigma_data": 0.4}, ["halflife"], CPU).denoiser.sigma_data == 0.4
