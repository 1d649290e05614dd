"""A training tracked by kedro-mlflow in a store on this disk."""

import pandas as pd
import pytest

pytest.importorskip("kedro_mlflow", reason="kedro-mlflow is not installed: pip install lowlight-kedro[mlflow]")


def test_a_tracked_training_has_flat_parameters_metrics_by_step_curves_and_its_prior(project, monkeypatch):
    import mlflow
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes seconds to be made
    store = (project.data / "store").as_uri()
    project.run("training", tracker="mlflow", mlflow_uri=store, training={"total_kimg": 0.16})
    client = MlflowClient(store)
    (experiment,) = [found.experiment_id for found in client.search_experiments() if found.name == "lowlight_kedro"]
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.learning_rate"] == "0.001"
    assert run.data.params["training.network.options.pyramid_unet.widths"] == "[8, 8]"
    assert not [name for name in run.data.params if not name.startswith("training.")]
    history = pd.read_csv(project.data / "08_reporting" / "training_history.csv")
    tracked = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "training/loss")}
    assert tracked == pytest.approx(dict(zip((history["kimg"] * 1000).round().astype(int), history["loss"], strict=True)))
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["prior.safetensors", "training_curves.png"]
    while mlflow.active_run():  # kedro-mlflow opens it for each node and closes it once
        mlflow.end_run()
    project.run("validation", mlflow_uri=store)  # without tracker=mlflow
    assert len(client.search_runs([experiment])) == 1
