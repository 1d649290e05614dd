"""What users type."""

import subprocess
import sys

from tests.conftest import ROOT


def kedro(project, *arguments, **options):
    command = [sys.executable, "-m", "kedro", "run", "--conf-source", str(project.conf), "--env", "test", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False, **options)


def test_a_pipeline_runs_alone_by_the_older_flag_too(project):
    result = kedro(project, "--pipeline", "evaluation")
    assert result.returncode == 0, result.stderr
    assert "restored PSNR" in result.stdout
    assert result.stdout.strip().splitlines()[-1].endswith("10002_00_0.1s.png")


def test_a_wrong_name_stops_before_any_node(project):
    result = kedro(project, "--pipelines", "training", "--params", "training.totl_kimg=1")
    assert result.returncode != 0
    assert "totl_kimg" in result.stderr + result.stdout
    assert "network pyramid_unet" not in result.stderr
