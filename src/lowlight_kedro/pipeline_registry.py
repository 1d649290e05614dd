"""The pipelines by name. Each is made when something of it is asked for, so a run imports what it uses and no more."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from kedro.pipeline import Pipeline

STAGES = ("preprocessing", "calibration", "validation", "training", "inference", "evaluation")  # of a whole run, in order
BY_NAME = ("import_tiles", "photographs", "comparison", "averaging")  # run by name only


class _Later(Pipeline):
    """The pipeline that `make` gives, made at the first look at its nodes."""

    def __init__(self, make: Callable[[], Pipeline]) -> None:
        self._make: Callable[[], Pipeline] | None = make  # what else a pipeline is comes with `make`

    def __getattr__(self, name: str) -> Any:
        make, self._make = self.__dict__.get("_make"), None
        if make is None:
            raise AttributeError(name)
        self.__dict__.update(vars(make()))
        return getattr(self, name)


def in_namespace(name: str, pipeline: Pipeline) -> Pipeline:
    """`pipeline` with nodes called `<name>.<node>` and the tag `name`, so that Kedro-Viz folds them; datasets keep their names."""
    parameters = {dataset for dataset in pipeline.inputs() if dataset.startswith("params:") or dataset == "parameters"}
    return Pipeline(
        pipeline, namespace=name, tags=name, inputs=pipeline.inputs() - parameters, outputs=pipeline.all_outputs(), parameters=parameters
    )  # fmt: skip


def _create(name: str) -> Pipeline:
    return in_namespace(name, import_module(f"lowlight_kedro.pipelines.{name}").create_pipeline())


def register_pipelines() -> dict[str, Pipeline]:
    """Each stage alone, and all of them in order as `__default__`; what is run by name only."""
    pipelines: dict[str, Pipeline] = {name: _Later(lambda name=name: _create(name)) for name in (*STAGES, *BY_NAME)}  # type: ignore[misc]
    return pipelines | {"__default__": _Later(lambda: sum(map(_create, STAGES), Pipeline([])))}
