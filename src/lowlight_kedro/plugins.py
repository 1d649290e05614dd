"""Choose a plug-in by name: one rule for every kind of it."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import sha256
from importlib import import_module
from importlib.metadata import entry_points
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeVar

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


def code_of(kind: str, table: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """What results depend on beside this package: the plug-ins from elsewhere, by name, with a digest of the module that each is in."""
    installed = {point.name: point.module for point in entry_points(group=f"lowlight_kedro.{kind}")}
    modules = {name: installed.get(name, name.rpartition(".")[0]) for name in sorted(set(names) - table.keys())}
    files = {name: import_module(module).__file__ for name, module in modules.items()}
    return {name: sha256(Path(file).read_bytes()).hexdigest() for name, file in files.items() if file}


def configured(kind: str, table: Mapping[str, T], name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """The plug-in with its options bound, checked before any work begins.

    Raises:
        ValueError: no such plug-in, or it does not have such an option; the message lists those it has.
    """
    plugin: Any = choose(kind, table, name)
    known = signature(plugin).parameters
    own = [option for option, parameter in known.items() if parameter.kind is Parameter.KEYWORD_ONLY]
    wrong = [option for option in options if option not in own]
    if wrong and not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values()):
        raise ValueError(f"{kind} {name!r} has no option {', '.join(map(repr, wrong))}; its options: {', '.join(own) or 'none'}")
    return partial(plugin, **options)
