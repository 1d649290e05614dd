"""How the configuration is read: environments as Kedro has them, and globals and a machine by `--params`."""

import re
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf

MACHINE = "machine"
NAMED_IN_CATALOG = re.compile(r"(?:runtime_params|globals):(\w+)")


class ConfigLoader(OmegaConfigLoader):
    """Kedro's loader, with two more things that `--params` may name.

    A global (`raw`, `data`, `tile_size`, `photograph_folder`, ...): it wins over globals.yml. `machine`: an environment whose parameters
    are laid over those of `--env`, so that data and machine are two choices; globals.yml may name it too. All other parameters
    of `--params` win over both.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """See `OmegaConfigLoader`.

        Raises:
            ValueError: the machine is no environment with parameters.
        """
        found = super().__getitem__(key)
        if key == "globals":
            return _merged(found, self.runtime_params)
        if key == "parameters" and (machine := self.machine()):
            return _merged(found, self._parameters_of(machine), self.runtime_params)
        return found

    def machine(self) -> str | None:
        """The environment that holds what the machine wants."""
        return (self.runtime_params or {}).get(MACHINE, self._globals.get(MACHINE))

    def _raw(self, environment: str, key: str) -> list[Any]:
        """The files of an environment, unresolved; none where there is no such folder."""
        path = self._get_conf_env_path(environment)
        if not self._fs.exists(path):
            return []
        return list(self._read_dir_configs(path, [*self.config_patterns[key]], key, set(), False).values())

    def _parameters_of(self, machine: str) -> dict[str, Any]:
        files = self._raw(machine, "parameters")
        if not files:
            folder = Path(self.conf_source)
            names = sorted(file.parent.name for file in folder.glob("*/parameters.yml") if file.parent.name != self.base_env)
            raise ValueError(
                f"machine must be an environment with parameters, a folder of {folder}, got {machine!r}; there are: {', '.join(names)}"
            )
        return OmegaConf.to_container(OmegaConf.merge(*files), resolve=True)  # type: ignore[return-value]

    def known_names(self) -> set[str]:
        """Groups that mean something: those in conf/base, and what the configuration asks for by `runtime_params:` or `globals:`."""
        environments = {self.base_env, self.env or self.default_run_env}
        groups = {str(name) for key in ("parameters", "globals") for file in self._raw(self.base_env, key) for name in file}
        texts = [OmegaConf.to_yaml(file) for name in environments for key in ("catalog", "parameters") for file in self._raw(name, key)]
        return groups | {name for text in texts for name in NAMED_IN_CATALOG.findall(text)} | {MACHINE}


def _merged(*configs: Any) -> dict[str, Any]:
    """Later ones win, key by key; lists are replaced."""
    return OmegaConf.to_container(OmegaConf.merge(*(config or {} for config in configs)))  # type: ignore[return-value]
