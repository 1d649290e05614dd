"""What is installed: its version, and where its configuration lies."""

from pathlib import Path

__version__ = "0.1.0"


PACKAGE = Path(__file__).parent


def conf_source() -> Path:
    """The configuration: inside an installed package, at the root of a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent.parent / "conf"
