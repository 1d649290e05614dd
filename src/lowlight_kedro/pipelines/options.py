"""What all typed parameters have in common."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from lowlight_kedro.executors import EXECUTORS, Executor
from lowlight_kedro.plugins import choose, configured


class Options(BaseModel):
    """Checked before any node runs: an unknown name or a value out of range stops with a list of all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def check_plug_ins(self) -> None:
        """Raise a ValueError where a plug-in or its option does not exist that is too slow to import for every command."""

    def tile_sides(self) -> dict[str, int]:
        """Options that say the side of the tiles, pixels."""
        return {}


class Choice(Options):
    """A plug-in by name; `options` holds those of every plug-in one may switch to, by its name.

    So one word switches, whatever an environment says about the others.
    """

    name: str
    options: dict[str, dict] = {}

    @property
    def chosen(self) -> dict:
        """The options of the plug-in that is chosen; of a dotted one under its whole name, or nested as `--params` gives them."""
        if self.name in self.options:
            return self.options[self.name]
        found: Any = self.options
        for part in self.name.split("."):
            found = found.get(part, {}) if isinstance(found, Mapping) else {}
        return found

    def describe(self) -> dict:
        """Name and chosen options, as stored in checkpoints."""
        return {"name": self.name, "options": self.chosen}

    def check(self, kind: str, table: Mapping[str, Any]) -> None:
        """Raise a ValueError where a plug-in or an option of one does not exist, chosen or not; dotted ones count when they are chosen."""
        for name in self.options:
            if "." not in name and name != self.name.split(".")[0]:
                configured(kind, table, name, self.options[name])
        configured(kind, table, self.name, self.chosen)


def checked(check: Callable[[Any], object]) -> AfterValidator:
    """Beside a type in an annotation: a value for which `check` raises no ValueError."""

    def unchanged(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(unchanged)


def known(kind: str, table: Mapping[str, Any]) -> AfterValidator:
    """Beside `str` in an annotation: the name of a plug-in of this kind."""
    return checked(lambda name: choose(kind, table, name))


def of(kind: str, table: Mapping[str, Any]) -> AfterValidator:
    """Beside `Choice` in an annotation: a plug-in of this kind with its options."""
    return checked(lambda choice: choice.check(kind, table))


def _dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values by dotted names; an empty mapping has none."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _dotted(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name: earlier value, now value` of each option that differs, nested options by dotted names."""
    old, new = _dotted(earlier), _dotted(now)
    return [
        f"{name}: {old.get(name, 'not given')}, now {new.get(name, 'not given')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


class ExecutorOptions(Choice):
    """All of `params:executor`: who maps over files."""

    @model_validator(mode="after")
    def _known(self) -> "ExecutorOptions":
        self.check("executor", EXECUTORS)
        return self

    def build(self) -> Executor:
        """The executor with its options."""
        return configured("executor", EXECUTORS, self.name, self.chosen)
