"""Put what makes a project (`nullscope.project.PARTS`) into the wheel. Everything else of the build stands in pyproject.toml."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
project = runpy.run_path(str(ROOT / "src/nullscope/project.py"))


class WithProject(build_py):
    """Copies the template of a project beside the package's modules."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable install finds the checkout
            for part in project["PARTS"]:
                project["copy_part"](ROOT, Path(self.build_lib) / "nullscope" / project["TEMPLATE"], part)


setup(cmdclass={"build_py": WithProject})
