"""detector_code: params, the detectors' code -> data/detector_code/<detector>.json. Path and SHA-256 of all code of a detector.

A training depends on the record of its own detector alone: its module, and the operations and backbones that it uses. A new
file beside them trains nothing again. DVC cannot look up imports while it reads dvc.yaml, so this stage does.
"""

from pathlib import Path

from nullscope import detectors
from nullscope.core.config import load_params, read_params, section_of
from nullscope.core.files import replacing_directory, write_json
from nullscope.core.imports import closure
from nullscope.core.ranks import launch
from nullscope.core.runs import runs_of
from nullscope.images.degradations import ScoreParams

OUT = Path("data/detector_code")


def main() -> None:
    params = read_params()
    load_params("score", ScoreParams)  # a misspelt degradation is found here, before any training, and not behind all of them
    methods = {}
    for run in runs_of(params):
        if run.is_official:
            methods[run.detector] = detectors.method_named(run.detector)
        else:
            methods[run.detector] = detectors.method_of(run.detector, section_of(params, f"detectors.{run.detector}"))
    with replacing_directory(OUT) as partial:
        for name, method in methods.items():
            write_json(partial / f"{name}.json", {"method": method, "files": closure(detectors.module_name(method))})
    print(f"detector_code: {', '.join(methods)} -> {OUT}")


if __name__ == "__main__":
    launch(main, alone=True)
