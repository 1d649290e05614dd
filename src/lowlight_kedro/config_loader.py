"""How the configuration is read: environments as Kedro has them, and globals, a machine and a tracker by `--params`."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf

LAID_OVER = {"machine": "parameters", "tracker": "catalog"}  # names of environments, and what such an environment must hold
GROUP = re.compile(r"^[\"']?([\w.]+)[\"']?\s*:", re.MULTILINE)
COMMENT = re.compile(r"(?:^|(?<=\s))#.*", re.MULTILINE)
NAMED_IN_CATALOG = re.compile(r"(?:runtime_params|globals):(\w+)")


class ConfigLoader(OmegaConfigLoader):
    """Kedro's loader, with more that `--params` may name.

    A global (`raw`, `data`, `tile_size`, `photograph_folder`, ...): it wins over globals.yml. `machine` and `tracker`: environments
    that are laid over that of `--env`, so that data, machine and tracker are three choices; globals.yml may name them too. Parameters
    are merged key by key, entries of a catalog replaced. All other parameters of `--params` win over them.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """See `OmegaConfigLoader`.

        Raises:
            ValueError: the machine or the tracker is no such environment.
        """
        if key in self:  # the files were read before: a run asks six times, and they do not change in between
            return deepcopy(super().__getitem__(key))
        found = super().__getitem__(key)
        if key == "globals":
            found = _merged(found, self.runtime_params)
        for environment in self._laid_over() if key != "globals" else ():
            path = self._get_conf_env_path(environment)
            over = self._merge_and_resolve(key, self._read_dir_configs(path, [*self.config_patterns[key]], key, set(), False))
            found = _merged(found, over) if key == "parameters" else found | over
        self[key] = deepcopy(found)
        return found

    def _laid_over(self) -> Iterator[str]:
        """The environments that `machine` and `tracker` name."""
        for choice, needed in LAID_OVER.items():
            name = (self.runtime_params or {}).get(choice, self._globals.get(choice))
            if name is None:
                continue
            if not self._files(name, needed):
                folder = Path(self.conf_source)
                names = sorted({file.parent.name for file in folder.glob(f"*/{needed}*.yml")} - {self.base_env})
                raise ValueError(
                    f"{choice} must be an environment with {needed}, a folder of {folder}, got {name!r}; there are: {', '.join(names)}"
                )
            yield name

    def known_names(self) -> set[str]:
        """Groups that mean something: those in conf/base, and what the configuration asks for by `runtime_params:` or `globals:`."""
        environments = {self.base_env, self.env or self.default_run_env}
        groups = {name for key in ("parameters", "globals") for text in self._texts(self.base_env, key) for name in GROUP.findall(text)}
        texts = [text for name in environments for key in self.config_patterns for text in self._texts(name, key)]
        return groups | {name for text in texts for name in NAMED_IN_CATALOG.findall(text)} | LAID_OVER.keys()

    def _files(self, environment: str, key: str) -> list[str]:
        path = self._get_conf_env_path(environment)
        found = {file for pattern in self.config_patterns[key] for file in self._fs.glob(f"{path}/{pattern}")}
        return sorted(file for file in found if self._fs.isfile(file))

    def _texts(self, environment: str, key: str) -> list[str]:
        """The files of an environment without their comments: to look for names in them ten times as fast as YAML is read."""
        return [COMMENT.sub("", self._fs.cat_file(file).decode()) for file in self._files(environment, key)]


def _merged(*configs: Any) -> dict[str, Any]:
    """Later ones win, key by key; lists are replaced."""
    return OmegaConf.to_container(OmegaConf.merge(*(config or {} for config in configs)))  # type: ignore[return-value]
