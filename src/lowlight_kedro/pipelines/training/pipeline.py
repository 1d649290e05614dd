"""clean tiles -> training state -> prior and curves."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.training.nodes import export_prior, plot_training, train_prior


def create_pipeline() -> Pipeline:
    """The training pipeline."""
    return Pipeline([
        Node(
            train_prior, ["tiles", "tile_statistics", "earlier_training_state", "earlier_training_history", "initial_prior",
                          "params:training", "parameters"],
            ["snapshots", "training_state", "training_history"], name="train_prior", tags="gpu",
        ),
        Node(export_prior, ["training_state", "snapshots", "params:training"], "prior", name="export_prior"),
        Node(plot_training, "training_history", "training_curves", name="plot_training", tags="report"),
    ])  # fmt: skip
