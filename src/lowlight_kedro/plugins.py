"""Choose a plug-in by name: one rule for every kind of it."""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec, resolve_name
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A question with the known name that is most like a wrong one; empty where none is."""
    near = get_close_matches(wrong, sorted(known), 1)
    return f"did you mean {near[0]}?" if near else ""


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
            hint = "; a module must be installed, or its folder be in PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
            raise ValueError(f"{kind} {name!r} cannot be imported: {error}{hint}") from error
    valid = ", ".join(sorted({*table, *installed}))
    raise ValueError(f"unknown {kind} {name!r}; choose one of: {valid}, or a dotted path package.module.thing")


def code_of(kind: str, table: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """What results depend on beside this package: the plug-ins from elsewhere, by name, with a digest of their code.

    That is the module of the plug-in and what it imports of its own package or of folders where nothing is installed. Docstrings and
    comments are no code.
    """
    installed = {point.name: point.module for point in entry_points(group=f"lowlight_kedro.{kind}")}
    modules = {name: installed.get(name, name.rpartition(".")[0]) for name in sorted(set(names) - table.keys())}
    return {name: sha256("".join(_code(module)).encode()).hexdigest() for name, module in modules.items()}


def _code(module: str) -> list[str]:
    """The code of a module and of those it imports, see `code_of`; in the order of their names."""
    top, code, waiting = module.partition(".")[0], {}, {module}
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name in code or file is None or not (name.partition(".")[0] == top or _is_own(name, file)):
            continue
        if file.suffix == ".py":
            tree = ast.parse(file.read_bytes())
            code[name] = ast.dump(_without_docstrings(tree))
            parent = name.rpartition(".")[0]
            waiting |= {parent, *_imports(tree, name if file.stem == "__init__" else parent)} - {""}
        else:
            code[name] = sha256(file.read_bytes()).hexdigest()
    return [code[name] for name in sorted(code)]


def _file(module: str) -> Path | None:
    try:
        found = find_spec(module)
    except (ImportError, ValueError):  # its parent is no package: what is imported of a module is no module always
        return None
    return Path(found.origin) if found and found.has_location and found.origin else None


def _is_own(module: str, file: Path) -> bool:
    """Whether somebody may be at work on it: it is not this package's, whose stages have versions, not Python's, and not installed."""
    here = module.partition(".")[0] in {*sys.stdlib_module_names, __package__}
    return not here and not {"site-packages", "dist-packages"} & set(file.parts)


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Absolute names of all that a module imports, names that it imports of a package among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package or None) if node.level else node.module or ""
            yield from (origin, *(f"{origin}.{alias.name}" for alias in node.names))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return tree


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
        rule = "" if set(wrong).isdisjoint(known) else " (options are the keyword-only arguments, those after `*`)"
        raise ValueError(f"{kind} {name!r} has no option {', '.join(map(repr, wrong))}; its options: {', '.join(own) or 'none'}{rule}")
    return partial(plugin, **options)
