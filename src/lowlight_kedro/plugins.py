"""Choose a plug-in by name: one rule for every kind of it."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import TypeVar

T = TypeVar("T")


def choose(kind: str, table: Mapping[str, T], name: str) -> T:
    """Return the plug-in `name` of `kind` (`"guidance"`, `"network"`, ...).

    Looked for in this order: the project's own `table`, the entry points
    `lowlight_kedro.<kind>` of installed packages, a dotted path `package.module.thing`.

    Raises:
        ValueError: no such plug-in; the message lists the names that exist.
    """
    if name in table:
        return table[name]
    installed = {point.name: point for point in entry_points(group=f"lowlight_kedro.{kind}")}
    if name in installed:
        return installed[name].load()
    module, _, attribute = name.rpartition(".")
    if module:
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{kind} {name!r} cannot be imported: {error}") from error
    valid = ", ".join(sorted({*table, *installed}))
    raise ValueError(f"unknown {kind} {name!r}; choose one of: {valid}, or a dotted path package.module.thing")
