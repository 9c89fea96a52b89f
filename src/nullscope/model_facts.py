"""What a model folder says of itself: the names of its files, and the facts in ``detector.json``. Nothing here imports torch.

A model folder holds all that a prediction needs:

- ``detector.json``: `ModelFacts`;
- ``weights.safetensors``: what training added to the frozen backbones;
- a folder per frozen backbone that the detector is built on, such as ``clip/``; none, for a detector without one;
- ``blip/`` and ``clip/``, where a test image needs its caption, so that it can be written and encoded;
- ``validation.json``: `Validation`, from which every threshold is derived. A model without it has the threshold of training;
- ``history.csv``: the losses of every step, where it was trained in this pipeline. A model without it is a model.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from nullscope.core.config import Params, ParamsError, validate
from nullscope.core.files import sha256, write_json

FORMAT = 5  # of the folder; another one is refused
FACTS, WEIGHTS, HISTORY, VALIDATION = "detector.json", "weights.safetensors", "history.csv", "validation.json"
ALWAYS_VERIFIED = 64 * 2**20  # bytes of a file that is hashed at every loading, in 0.05 s; of a larger one the size is compared

AGAIN = "get it again (`dvc pull`), or train it again (`dvc repro train`)"


class FileFacts(Params):
    """One file of a frozen backbone."""

    bytes: NonNegativeInt
    sha256: str  # hexadecimal


class ModelFacts(Params):
    """What a trained detector is, how its input is made, and what it came from."""

    detector: str
    seed: int
    params: dict[str, Any]  # of the detector, as `nullscope.detectors.build` takes them
    patches: dict[str, Any]  # how mosaics are made (`nullscope.ops.patches.PatchParams`)
    max_pixels: PositiveInt  # larger images are refused
    caption: dict[str, Any]  # the parameters of BLIP, for a detector that needs captions at inference
    prepare: list[str] = Field(default_factory=list)  # what is done to every image first (`nullscope.images.preparation`)
    dataset: str = ""  # name of the data set it was trained on
    images: NonNegativeInt = 0  # that it was trained on
    rendered: bool = False  # all of them scenes of the embedded world, none of them pictures of anything else
    weights: Literal["retrained", "official"] = "retrained"  # in this pipeline, or those that its authors released
    checkpoint: str = ""  # SHA-256 of the published file that official weights came from
    backbones: dict[str, dict[str, FileFacts]] = Field(default_factory=dict)  # frozen, by name and file; `save` fills it in


class Validation(Params):
    """The logits of images that nothing was trained on, and that are not of the test."""

    reals: str  # where the real ones are from
    fakes: str  # where the fake ones are from
    real: list[float]
    fake: list[float]


def trained_on(facts: ModelFacts) -> str:
    """Return what a model was trained on, as every door says it."""
    if facts.weights == "official":
        return "trained by its authors; see its page for the data"
    if not facts.dataset:
        return "it is not known what it was trained on"
    of = "rendered scenes of the embedded world" if facts.rendered else "images"
    return f"trained on `{facts.dataset}`: {facts.images:,} {of}"


def write_facts(folder: Path, facts: ModelFacts) -> None:
    """Write ``detector.json`` to a model folder."""
    write_json(Path(folder) / FACTS, {**facts.model_dump(), "format": FORMAT})


def read_facts(folder: Path) -> ModelFacts:
    """Return the facts of a model folder. Raises `ValueError` that says what was expected, what was found and what to do."""
    path = Path(folder) / FACTS
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise OSError(errno.EINVAL, "not a file")
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is not JSON of a trained detector: it is nested too deeply; {AGAIN}") from None
    except OSError as error:
        raise ValueError(
            f"{folder} is not a trained detector ({FACTS}: {error.strerror}); expected a folder such as models/ns_net-0"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): it is cut off or was edited; {AGAIN}") from None
    found = values.pop("format", None) if isinstance(values, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{folder}: expected a model folder of format {FORMAT}, found {found}: another version of nullscope wrote it; "
            "train it again with `dvc repro train`, or use that version"
        )
    expected = ModelFacts.model_fields.keys()
    if values.keys() != expected:
        missing, unknown = sorted(expected - values.keys()), sorted(values.keys() - expected)
        raise ValueError(f"{path}: missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}; {AGAIN}")
    try:
        return validate("detector.json", values, ModelFacts)
    except ParamsError as error:
        raise ValueError(f"{path}: {one_line(error)}; {AGAIN}") from None


def write_validation(folder: Path, validation: Validation) -> None:
    """Write ``validation.json`` to a model folder, its logits in order."""
    in_order = {kind: sorted(getattr(validation, kind)) for kind in ("real", "fake")}
    write_json(Path(folder) / VALIDATION, {**validation.model_dump(), **in_order})


def read_validation(folder: Path) -> Validation | None:
    """Return the validation logits of a model folder, None if it has none. Raises `ValueError` if they are damaged."""
    path = Path(folder) / VALIDATION
    try:
        return validate(VALIDATION, json.loads(path.read_text(encoding="utf-8")), Validation)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no list of validation logits ({one_line(error)}); {AGAIN}") from None


def one_line(error: Exception) -> str:
    """Return an error's message as one sentence: at every door a damaged folder ends in one."""
    return " ".join(str(error).split())


def file_facts(folder: Path) -> dict[str, FileFacts]:
    """Return size and hash of every file of a backbone's folder, by name."""
    files = sorted(file for file in Path(folder).iterdir() if file.is_file())
    return {file.name: FileFacts(bytes=file.stat().st_size, sha256=sha256(file)) for file in files}


def check_backbones(folder: Path, facts: ModelFacts, *, verify: bool = False) -> None:
    """Raise `ValueError` unless the backbones of a model folder have the bytes that ``facts`` names.

    Sizes are always compared, and the hashes of small files. Those of large ones are only where ``verify`` asks for it: the
    1.7 GB of a ViT-L/14 take seconds, and a file that was cut off has another size.
    """
    for name, files in facts.backbones.items():
        outside = [each for each in (name, *files) if Path(each).name != each]
        if outside:
            raise ValueError(f"{folder}: {outside[0]!r} is no name of a backbone or of its file; {AGAIN}")
        for file, expected in files.items():
            _check_file(Path(folder) / name / file, expected, verify)


def _check_file(path: Path, expected: FileFacts, verify: bool) -> None:
    if not path.is_file():
        raise ValueError(f"{path} is missing, a file of a frozen backbone; {AGAIN}")
    size = path.stat().st_size
    if size != expected.bytes:
        raise ValueError(f"{path}: expected {expected.bytes} bytes, found {size}; {AGAIN}")
    if (verify or size <= ALWAYS_VERIFIED) and (found := sha256(path)) != expected.sha256:
        raise ValueError(f"{path}: expected the SHA-256 {expected.sha256}, found {found}: this is another backbone; {AGAIN}")
