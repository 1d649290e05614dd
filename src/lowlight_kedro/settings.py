"""Kedro's settings of the project."""

import os
from pathlib import Path

os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "1")

from lowlight_kedro.config_loader import ConfigLoader
from lowlight_kedro.hooks import KnownNames, OneTraining, ShowResults

HOOKS = (KnownNames(), ShowResults(), OneTraining())
CONFIG_LOADER_CLASS = ConfigLoader
PACKAGE = Path(__file__).parent
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    "custom_resolvers": {"package": lambda path: (PACKAGE / path).as_posix()},  # a file that comes with the package
}
