"""Puts the shipped models, which lie beside the package in a checkout, into the wheel. All else: pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithModels(build_py):
    """Copies the models of checkpoints/ into the package, except for an editable install, which finds them there."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for config in Path("checkpoints").glob("*/config.json"):
                shutil.copytree(config.parent, Path(self.build_lib, "imagebart", config.parent), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithModels})
