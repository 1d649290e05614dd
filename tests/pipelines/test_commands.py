"""What users type."""

from tests import forked


def test_a_pipeline_runs_alone_by_the_older_flag_too(project, tmp_path):
    options = ["--conf-source", str(project.conf), "--env", "test", "--pipeline", "evaluation"]
    process = forked.start(tmp_path / "told", "kedro", "run", *options)
    process.join(200)
    told = (tmp_path / "told").read_text()
    assert process.exitcode == 0, told
    assert "restored PSNR" in told
    assert told.strip().splitlines()[-1].endswith("10002_00_0.1s.png")
