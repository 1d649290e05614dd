"""Kedro's settings of the project."""

import os

os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "1")

from lowlight_kedro.config_loader import ConfigLoader
from lowlight_kedro.hooks import Interrupted, KnownNames, OneTraining, PlainParameters, ShowResults
from lowlight_kedro.package import PACKAGE, conf_source

HOOKS = (KnownNames(), Interrupted(), PlainParameters(), ShowResults(), OneTraining())
DISABLE_HOOKS_FOR_PLUGINS = () if os.environ.get("RANK", "0") == "0" else ("kedro_mlflow",)  # of several ranks the first one tracks alone
CONFIG_LOADER_CLASS = ConfigLoader
CONF_SOURCE = str(conf_source())  # also of a wheel, whatever folder it is run from; --conf-source gives another
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow.yml"]},
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    "custom_resolvers": {"package": lambda path: (PACKAGE / path).as_posix()},  # a file that comes with the package
}
