"""What users type."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT


def kedro(project, *arguments, **options):
    command = [sys.executable, "-m", "kedro", "run", "--conf-source", str(project.conf), "--env", "test", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False, **options)


def weights(project):
    return (project.data / "06_models/training_state.safetensors").read_bytes()


@pytest.mark.parametrize("flag", ["--pipeline", "--pipelines"])
def test_a_pipeline_runs_alone_by_either_flag(project, flag):
    result = kedro(project, flag, "evaluation")
    assert result.returncode == 0, result.stderr
    assert "restored PSNR" in result.stdout
    assert result.stdout.strip().splitlines()[-1].endswith("10002_00_0.1s.png")


def test_params_reach_the_loop_and_a_wrong_name_stops_before_any_node(project):
    result = kedro(project, "--pipelines", "training", "--params", "training.total_kimg=0.16,training.batch_gpu=8")
    assert result.returncode == 0, result.stderr
    assert "resumed at 0.1 of 0.2 kimg" in result.stderr
    result = kedro(project, "--pipelines", "training", "--params", "training.totl_kimg=1")
    assert result.returncode != 0
    assert "totl_kimg" in result.stderr + result.stdout
    assert "network pyramid_unet" not in result.stderr


def start_and_signal(project, number, after):
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "kedro", "run", "--conf-source", str(project.conf), "--env", "test", "--pipelines", "training",
               "--params", "training.resume=true,training.total_kimg=0.8"]  # fmt: skip
    state = project.data / "06_models/training_state.safetensors"
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, start_new_session=True
    ) as process:
        deadline = time.time() + 100
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and time.time() < deadline and not (state.exists() and state.stat().st_mtime_ns != before):
            time.sleep(0.02)
        time.sleep(after)
        if process.poll() is None:
            os.killpg(process.pid, number)
        process.communicate(timeout=60)
    return process.returncode


def test_a_killed_training_resumes_to_the_same_end_state(project, tmp_path):
    (project.data / "06_models/training_state.safetensors").unlink()
    whole = project.copy(tmp_path / "whole")
    result = kedro(whole, "--pipelines", "training", "--params", "training.total_kimg=0.8")
    assert result.returncode == 0, result.stderr
    killed = start_and_signal(project, signal.SIGKILL, after=0.15)
    assert killed == -signal.SIGKILL
    interrupted = start_and_signal(project, signal.SIGTERM, after=0.1)
    assert interrupted != 0
    result = kedro(project, "--pipelines", "training", "--params", "training.total_kimg=0.8")
    assert result.returncode == 0, result.stderr
    assert "resumed at" in result.stderr
    assert weights(project) == weights(whole)
