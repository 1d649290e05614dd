"""Parameters of the comparison pipeline."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.options import Options

TAKEN = ("scaled", "long")  # what stands beside the methods in tables and pictures


def _free(name: str) -> str:
    if name in TAKEN:
        raise ValueError(f"a method must not be called {' or '.join(TAKEN)}: these stand beside it; got {name}")
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$"), AfterValidator(_free)]  # a folder of results


class Method(Options):
    """One way to restore; whatever it does not say is as in `inference`."""

    guidance: str
    estimate: Literal["mean", "sample", "mean_of_k"]
    evaluations: Annotated[int, Field(ge=1)] | None = None

    def of(self, inference: InferenceOptions) -> InferenceOptions:
        """The options of inference with this method, at full strength; no standard deviation."""
        return inference.model_copy(update={
            "guidance": inference.guidance.model_copy(update={"name": self.guidance}),
            "estimate": self.estimate,
            "strength": 1.0,
            "sample": inference.sample.model_copy(update={"evaluations": self.evaluations or inference.sample.evaluations}),
            "uncertainty": inference.uncertainty.model_copy(update={"probes": 0}),
        })  # fmt: skip


class ComparisonOptions(Options):
    """All of `params:comparison`."""

    methods: Annotated[dict[Name, Method], Field(min_length=1)]
