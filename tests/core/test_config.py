"""Parameters: unknown, missing and mistyped keys stop the program with a message that helps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import PositiveFloat, PositiveInt, ValidationError

from nullscope.core.config import Params, ParamsError, load_params, read_params, section_of, validate


class Inner(Params):
    """A section inside a section."""

    momentum: float
    nesterov: bool = False


class Train(Params):
    """What a stage's parameters look like."""

    lr: PositiveFloat
    batch_size: PositiveInt
    precision: Literal["bf16", "fp32"] = "fp32"
    optimizer: Inner | None = None


GOOD = {"lr": 1e-4, "batch_size": 32}


def write(folder: Path, text: str) -> Path:
    """A parameter file with this text."""
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, line: str) -> Train:
    """Training parameters read from a file in which ``line`` stands in place of the good one of its key."""
    values = {"lr": "lr: 0.0001", "batch_size": "batch_size: 32", line.split(":")[0]: line}
    return load_params("train", Train, path=write(folder, "train:\n" + "".join(f"  {text}\n" for text in values.values())))


# Good files


def test_a_section_is_read_into_its_type(tmp_path: Path) -> None:
    """A dotted name reaches into the file; other sections are nobody's business."""
    path = write(tmp_path, "seed: 0\nstages:\n  train: {lr: 0.5, batch_size: 2, optimizer: {momentum: 0.9}}\n  x: [1]\n")
    params = load_params("stages.train", Train, path=path)
    assert params == Train(lr=0.5, batch_size=2, optimizer=Inner(momentum=0.9))
    assert params.precision == "fp32"


def test_the_default_file_is_the_one_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages run in the project's root."""
    write(tmp_path, "train: {lr: 0.5, batch_size: 2}\n")
    monkeypatch.chdir(tmp_path)
    assert load_params("train", Train).batch_size == 2
    assert set(read_params()) == {"train"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [("lr: 1", 1.0), ("lr: 0.0001", 1e-4), ("lr: 1.0e-4", 1e-4), ("lr: 1.0e-05", 1e-5)],
)  # fmt: skip
def test_numbers_as_people_and_dvc_write_them(tmp_path: Path, line: str, expected: float) -> None:
    """A whole number serves where a float is wanted; DVC dumps small floats as ``1.0e-05``."""
    params = load(tmp_path, line)
    assert params.lr == expected
    assert type(params.lr) is float


def test_scientific_notation_without_a_point_is_a_number_or_an_error_that_says_how_to_write_it(tmp_path: Path) -> None:
    """YAML 1.1 reads ``1e-4`` as text. Whoever writes it means a number, and Hydra and DVC read it as one."""
    try:
        assert load(tmp_path, "lr: 1e-4").lr == 1e-4
    except ParamsError as error:
        assert "1.0e-4" in str(error), "either behaviour will do, a riddle will not"


SMALL_AND_LARGE = [1e-4, 1e-5, 3e-7, 1.5e-10, 1.0, 1e16, 1e22]


def test_what_hydra_composes_is_read_back(tmp_path: Path) -> None:
    """`dvc exp run` writes params.yaml from conf/ whatever way a number was written there."""
    from dvc.utils.hydra import compose_and_dump

    (tmp_path / "conf").mkdir()
    for lr in (*SMALL_AND_LARGE, "1e-5", "0.00001"):
        (tmp_path / "conf" / "config.yaml").write_text(f"train: {{lr: {lr}, batch_size: 2}}\n")
        compose_and_dump(tmp_path / "params.yaml", str(tmp_path / "conf"), None, "config", str(tmp_path), [])
        assert load_params("train", Train, path=tmp_path / "params.yaml").lr == float(lr)


def test_what_dvc_writes_is_read_back(tmp_path: Path) -> None:
    """Without Hydra DVC edits params.yaml itself (``1e-05``, YAML 1.2). What it calls a number is one for a stage too."""
    from dvc.utils.serialize import dump_yaml

    for lr in SMALL_AND_LARGE:
        dump_yaml(tmp_path / "params.yaml", {"train": {"lr": lr, "batch_size": 2}})
        assert load_params("train", Train, path=tmp_path / "params.yaml").lr == lr


# Wrong keys


def test_an_unknown_key_is_named_with_the_known_ones_and_the_near_one() -> None:
    """A typo must not become a default."""
    with pytest.raises(ParamsError) as error:
        validate("train", {**GOOD, "batchsize": 8}, Train)
    message = str(error.value)
    assert all(word in message for word in ("train", "batchsize", "unknown", *Train.model_fields))
    assert "did you mean `batch_size`?" in message


def test_an_unknown_key_far_from_all_gets_no_false_hint() -> None:
    """No suggestion is better than a wrong one."""
    with pytest.raises(ParamsError) as error:
        validate("train", {**GOOD, "zzz": 8}, Train)
    assert "zzz: unknown" in str(error.value)
    assert "did you mean" not in str(error.value)


def test_an_unknown_key_of_an_inner_section_is_measured_against_that_section() -> None:
    """``optimizer.nestorov``: what is known there is ``momentum`` and ``nesterov``, not ``lr``."""
    with pytest.raises(ParamsError) as error:
        validate("train", {**GOOD, "optimizer": {"momentum": 0.9, "nestorov": True}}, Train)
    message = str(error.value)
    assert "optimizer.nestorov" in message
    assert "did you mean `nesterov`?" in message
    assert "batch_size" not in message


def test_every_wrong_key_is_reported_at_once() -> None:
    """Nobody likes to run a program once per typo."""
    with pytest.raises(ParamsError) as error:
        validate("train", {"lr": -1.0, "batch_size": "many", "epoch": 3}, Train)
    assert all(word in str(error.value) for word in ("lr", "batch_size", "'many'", "epoch"))


@pytest.mark.parametrize("missing", ["lr", "batch_size"])
def test_a_missing_key_is_named(missing: str) -> None:
    """With the section it belongs to."""
    with pytest.raises(ParamsError, match=f"(?s)`train`.*{missing}: field required"):
        validate("train", {key: value for key, value in GOOD.items() if key != missing}, Train)


# Wrong values


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lr: fast", "fast"), ("lr: '0.1'", "0.1"), ("lr: true", "True"), ("lr: null", "None"), ("lr: -0.1", "-0.1"),
        ("lr: 0", "0"), ("lr: .nan", "nan"), ("lr: .inf", "inf"), ("lr: [0.1]", "[0.1]"), ("batch_size: 2.5", "2.5"),
        ("batch_size: 32.0", "32.0"), ("batch_size: true", "True"), ("batch_size: '32'", "32"), ("precision: fp64", "fp64"),
        ("optimizer: sgd", "sgd"),
        ("optimizer: {momentum: 0.9, nesterov: 1}", "1"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_named_with_what_was_found(tmp_path: Path, line: str, found: str) -> None:
    """Nothing is converted in silence: not text to a number, not a truth value to one, not 32.0 to 32."""
    with pytest.raises(ParamsError) as error:
        load(tmp_path, line)
    assert line.split(":")[0] in str(error.value)
    assert found in str(error.value)


@pytest.mark.parametrize("values", [None, [], "lr", 3])
def test_a_section_that_is_no_mapping_is_an_error(values: object) -> None:
    """Such as one whose lines were all commented out."""
    with pytest.raises(ParamsError, match="`train`: expected a mapping, found"):
        validate("train", values, Train)


# Frozen


def test_parameters_cannot_be_changed() -> None:
    """Neither a field nor a new one, at any depth; equal parameters hash alike."""
    params = validate("train", {**GOOD, "optimizer": {"momentum": 0.9}}, Train)
    for owner, name in ((params, "lr"), (params, "fresh"), (params.optimizer, "momentum")):
        with pytest.raises(ValidationError):
            setattr(owner, name, 0.5)
    assert hash(params) == hash(validate("train", {**GOOD, "optimizer": {"momentum": 0.9}}, Train))


# Missing sections and files


def test_a_missing_section_names_the_known_ones_and_the_near_one(tmp_path: Path) -> None:
    """At the top and further in."""
    path = write(tmp_path, "train: {}\ndetectors: {ns_net: {}, npr: {}}\n")
    with pytest.raises(ParamsError, match=r"params.yaml has no `trian`; known: detectors, train; did you mean `train`\?"):
        load_params("trian", Train, path=path)
    with pytest.raises(ParamsError, match=r"detectors has no `nsnet`; known: npr, ns_net; did you mean `ns_net`\?"):
        load_params("detectors.nsnet", Train, path=path)


def test_a_name_that_goes_deeper_than_the_file_is_an_error() -> None:
    """``train.lr.x``, where ``train.lr`` is a number."""
    with pytest.raises(ParamsError, match=r"train\.lr has no `x`"):
        section_of({"train": {"lr": 0.1}}, "train.lr.x")


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    """With the path and the remedy."""
    with pytest.raises(ParamsError, match=r"nowhere.yaml: No such file.*project's root"):
        read_params(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2\nb: }", "is not YAML"),
        (b"train: {lr: 1}\n\tx: 2\n", "is not YAML"),
        (b"", "expected a mapping of sections, found NoneType"),
        (b"- 1\n- 2\n", "expected a mapping of sections, found list"),
        (b"just words", "expected a mapping of sections, found str"),
        (b"train: {name: caf\xe9}\n", "params.yaml"),
        (b"x: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_a_file_that_holds_no_parameters_is_an_error_with_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    """Broken YAML, other YAML, another encoding, code: each a `ParamsError`, never a traceback from inside a parser."""
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError, match=message) as error:
        read_params(path)
    assert "params.yaml" in str(error.value)


def test_a_key_written_twice_is_an_error(tmp_path: Path) -> None:
    """YAML forbids it, PyYAML lets the last one win: the first edit would be lost in silence."""
    path = write(tmp_path, "train:\n  lr: 0.1\n  batch_size: 2\n  lr: 0.2\n")
    with pytest.raises(ParamsError, match="lr"):
        read_params(path)


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    """As every other file that cannot be read."""
    with pytest.raises(ParamsError, match=str(tmp_path)):
        read_params(tmp_path)


def test_reading_parameters_is_light() -> None:
    """A stage reads them before anything else: torch, pandas and mlflow stay out of it."""
    import subprocess

    code = "import sys, nullscope.core.config; print(sorted({'torch', 'pandas', 'mlflow', 'dvc'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
