"""pages: params, the detectors' code -> data/pages/<detector>.py. The page of each detector of this run, as it stands.

A training depends on its own page alone. Several detectors may be variants of one page, and DVC cannot look that up while it
reads dvc.yaml: so the page is copied to the detector's name.
"""

import shutil
from pathlib import Path

from nullscope import detectors
from nullscope.config import read_params, section_of
from nullscope.files import replacing_directory
from nullscope.ranks import launch

OUT = Path("data/pages")


def main() -> None:
    params = read_params()
    names = section_of(params, "run.detectors")
    with replacing_directory(OUT) as partial:
        for name in names:
            page = detectors.page_of(name, section_of(params, f"detectors.{name}"))
            shutil.copyfile(detectors.file_of(page), partial / f"{name}.py")
    print(f"pages: {', '.join(names)} -> {OUT}")


if __name__ == "__main__":
    launch(main, alone=True)
