"""What users type."""

import subprocess
import sys

from tests.conftest import ROOT


def test_a_pipeline_runs_alone_by_the_older_flag_too(project):
    command = [sys.executable, "-m", "kedro", "run", "--conf-source", str(project.conf), "--env", "test", "--pipeline", "evaluation"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    assert "restored PSNR" in result.stdout
    assert result.stdout.strip().splitlines()[-1].endswith("10002_00_0.1s.png")
