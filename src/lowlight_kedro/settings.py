"""Kedro's settings of the project."""

import os

os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "1")

from lowlight_kedro.hooks import ShowResults

HOOKS = (ShowResults(),)
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
}
