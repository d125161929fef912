"""Puts the shipped model, which lies beside the package in a checkout, into the wheel. All else: pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithModel(build_py):
    """Copies checkpoints/avatars into the package, except for an editable install, which finds it beside itself."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            model = Path("checkpoints", "avatars")
            shutil.copytree(model, Path(self.build_lib, "imagebart", model), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithModel})
