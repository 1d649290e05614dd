"""Dark, noisy camera raws restored with a diffusion prior and the camera's own noise.

Four verbs are at the top, see `lowlight_kedro.api`: `load_prior`, `read_raw`, `restore`, `sample`.
"""

from typing import TYPE_CHECKING, Any

from lowlight_kedro.package import __version__

if TYPE_CHECKING:
    from lowlight_kedro.api import load_prior, read_raw, restore, sample

__all__ = ["__version__", "load_prior", "read_raw", "restore", "sample"]


def __getattr__(name: str) -> Any:
    """The verbs, when they are first used: torch takes a second to import."""
    if name in __all__:
        from lowlight_kedro import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
