"""What all typed parameters have in common."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Checked before any node runs: an unknown name or a value out of range stops with a list of all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(Options):
    """A plug-in by name, with its own options; a wrong option fails by name when the plug-in is called."""

    name: str
    options: dict = {}
