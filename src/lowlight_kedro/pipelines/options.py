"""What all typed parameters have in common."""

from pydantic import BaseModel, ConfigDict

from lowlight_kedro.executors import EXECUTORS, Executor
from lowlight_kedro.plugins import configured


class Options(BaseModel):
    """Checked before any node runs: an unknown name or a value out of range stops with a list of all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(Options):
    """A plug-in by name; `options` holds those of every plug-in one may switch to, by its name.

    So one word switches, whatever an environment says about the others. A wrong option fails by name when the
    plug-in is called.
    """

    name: str
    options: dict[str, dict] = {}

    @property
    def chosen(self) -> dict:
        """The options of the plug-in that is chosen."""
        return self.options.get(self.name, {})

    def describe(self) -> dict:
        """Name and chosen options, as stored in checkpoints."""
        return {"name": self.name, "options": self.chosen}


class ExecutorOptions(Choice):
    """All of `params:executor`: who maps over files."""

    def build(self) -> Executor:
        """The executor with its options."""
        return configured("executor", EXECUTORS, self.name, self.chosen)
