"""Everything stands in pyproject.toml; here only: the configuration travels inside the package, from the one place where it is kept."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONF = Path(__file__).parent / "conf"


class BuildWithConfiguration(build_py):
    """Adds conf/ as lowlight_kedro/conf; of conf/local, which is private, only the folder."""

    def run(self) -> None:
        """Called by setuptools."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "lowlight_kedro" / "conf"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(CONF, target, ignore=shutil.ignore_patterns("local", "__pycache__", ".*"))
        (target / "local").mkdir()
        (target / "local" / ".gitkeep").touch()


setup(cmdclass={"build_py": BuildWithConfiguration})
