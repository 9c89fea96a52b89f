"""The shape of the project: what imports what, what DVC watches, and what the configuration and the names promise."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from nullscope.core.config import read_params
from nullscope.core.files import sha256
from nullscope.core.imports import closure as recorded
from nullscope.detectors import NAMES, SHARED, method_of
from nullscope.detectors import module_name as module_of_method

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
PACKAGE = SRC / "nullscope"

# What a room may import from, beside itself (DESIGN of the house: imports point down). `core` is open to all.
MAY_IMPORT = {
    "core": set(),
    "ops": set(),
    "tables": set(),
    "records": set(),
    "archives": set(),
    "world": set(),
    "fetching": {"records"},
    "images": {"ops"},
    "sources": {"archives", "tables", "images"},
    "shards": {"archives", "tables", "images", "ops"},
    "backbones": {"ops"},
    "detectors": {"backbones", "images", "ops", "shards"},
    "evaluation": {"decision", "ops", "tables"},
    "captioning": {"archives", "backbones", "images", "tables"},
    "caption_writer": {"backbones"},
    "embedding": {"tables"},
    "decision": set(),
    "copying": set(),
    "committed": {"repository"},
    "project": {"repository"},
    "repository": set(),
    "provenance": set(),
    "verdicts": {"decision", "model_facts"},
    "calibration": {"copying", "decision", "model_facts", "prediction", "verdicts"},
    "card": {"decision", "model_facts", "records"},
    "explanation": {"images", "prediction"},
    "serving": {"decision", "explanation", "model_facts", "prediction", "verdicts"},
    "model_facts": set(),
    "model_folder": {"detectors", "model_facts", "ops"},
    "importing": {"backbones", "detectors", "model_facts", "model_folder", "project", "records"},
    "training": {"backbones", "detectors", "model_folder", "shards", "tables", "validation"},
    "validation": {"detectors", "scoring", "shards", "tables"},
    "scoring": {"detectors", "shards", "tables"},
    "prediction": {
        *("archives", "backbones", "caption_writer", "images", "model_facts", "model_folder", "ops", "provenance", "scoring"),
        *("shards", "sources", "tables", "verdicts"),
    },
    "report": {"evaluation", "locked", "records", "shards", "tables", "world"},
    "tracking": {"detectors", "evaluation", "locked", "repository"},
    "served": {"prediction"},
    "nullscope": {"prediction"},
    "cli": {
        "backbones",
        "calibration",
        "card",
        "committed",
        "copying",
        "decision",
        "evaluation",
        "fetching",
        "importing",
        "model_facts",
        "model_folder",
        "prediction",
        "project",
        "report",
        "serving",
        "shards",
        "tracking",
        "verdicts",
        "verification",
    },
    "locked": set(),
    "verification": {"locked"},
}
# Rooms that a stage uses without a change of its result. `caption` and `shard` check every original against its hash in the
# index: with other code of `archives` they get the same bytes, or an error. `audit` prints a table of the report at its end.
PASSED_OVER = {"caption": {"archives"}, "shard": {"archives"}, "audit": {"report"}}
# The way to MLflow, the line that compares a table with the commit's, and the package's own `__init__`, which offers `load` to
# people: no stage waits for what they import.
CHANGES_NO_RESULT = {"tracking", "committed", "nullscope"}
OPS_MAY_IMPORT = {"torch", "numpy", "pydantic", "nullscope.core.config", "nullscope.ops"}


# Reading imports


@cache
def parsed(file: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def module_name(file: Path) -> str:
    """``nullscope.ops.patches`` for its file, ``nullscope.ops`` for the package's ``__init__``, ``stages.train`` for a script."""
    base = SRC if file.is_relative_to(SRC) else ROOT
    parts = file.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def file_of(module: str) -> Path | None:
    """The file of a module of this package, if it is one."""
    path = SRC.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def is_type_checking(node: ast.AST) -> bool:
    """Whether this is ``if TYPE_CHECKING:``, whose imports never run."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(tree: ast.AST, *, types_too: bool) -> Iterator[ast.AST]:
    """All nodes, those inside functions included; imports for types only on request."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if types_too or not is_type_checking(child):
            yield from nodes(child, types_too=types_too)


@cache
def imports(file: Path, *, types_too: bool = True) -> set[str]:
    """The absolute names of all modules that a file imports; ``from nullscope.core import ranks`` counts as that module."""
    found: set[str] = set()
    for node in nodes(parsed(file), types_too=types_too):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module_name(file).split(".") if file.name == "__init__.py" else module_name(file).split(".")[:-1]
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name for name in names if file_of(name)} | ({base} if any(not file_of(name) for name in names) else set())
    return found


def room_of(module: str) -> str:
    """The room that a module belongs to: ``ops`` of ``nullscope.ops.patches``, ``training`` of ``nullscope.training``."""
    names = module.split(".")
    return names[1] if names[0] == "nullscope" and len(names) > 1 else names[0]


def python_files() -> list[Path]:
    """Every Python file of the package and every stage."""
    files = sorted(PACKAGE.rglob("*.py")), sorted((ROOT / "stages").glob("*.py"))
    assert all(files), "no package or no stages: these tests would pass over nothing"
    return [*files[0], *files[1]]


# (a) Imports point downward


def test_every_room_stands_in_the_table() -> None:
    """A new room finds its place in the table above before anything else."""
    rooms = {room_of(module_name(file)) for file in python_files()} - {"stages"}
    assert rooms == set(MAY_IMPORT)


def test_no_two_rooms_import_each_other() -> None:
    """The table has no circle: what a room may import, and what that may import in turn, does not come back to it."""
    for room in MAY_IMPORT:
        seen, waiting = set(), list(MAY_IMPORT[room])
        while waiting:
            below = waiting.pop()
            seen.add(below)
            waiting += MAY_IMPORT[below] - seen
        assert room not in seen


@pytest.mark.parametrize("file", [file for file in python_files() if file.is_relative_to(PACKAGE)], ids=module_name)
def test_imports_point_downward(file: Path) -> None:
    """Imports for types count too: a type from above is knowledge of what is above."""
    room = room_of(module_name(file))
    ours = {module for module in imports(file) if module.split(".")[0] in ("nullscope", "stages")}
    wrong = sorted(module for module in ours if room_of(module) not in {room, "core", *MAY_IMPORT.get(room, ())})
    assert not wrong, f"{module_name(file)} imports {', '.join(wrong)}; {room} may import {sorted(MAY_IMPORT[room])}"


def test_detectors_do_not_know_each_other() -> None:
    """A detector's module is read alone: it may import what detectors share, and no other detector."""
    assert NAMES, "no detectors: this test would pass over nothing"
    for file in sorted((PACKAGE / "detectors").glob("*.py")):
        others = {f"nullscope.detectors.{name}" for name in NAMES} - {module_name(file)}
        assert not imports(file) & others


@pytest.mark.parametrize("file", python_files(), ids=module_name)
def test_only_tracking_imports_mlflow(file: Path) -> None:
    """MLflow shows a copy of the results: everything else runs without it. MLflow itself runs `served`."""
    tops = {module.split(".")[0] for module in imports(file)}
    assert "mlflow" not in tops or room_of(module_name(file)) in ("tracking", "served")


def test_operations_import_numbers_only() -> None:
    """torch, numpy, pydantic, the standard library, and the base class of parameters."""
    files = sorted((PACKAGE / "ops").glob("*.py"))
    assert len(files) > 1
    for file in files:
        for module in imports(file):
            known = module.split(".")[0] in sys.stdlib_module_names or any(
                module == name or module.startswith(f"{name}.") for name in OPS_MAY_IMPORT
            )
            assert known, f"{module_name(file)} imports {module}"


# (b) DVC watches the code that a stage runs

OFFICIAL = "_official"  # behind the name of a stage's twin, for models that were not trained here
TWINS = ("score", "evaluate")


def holds_code(file: Path) -> bool:
    """Whether anything stands in a file beside its docstring: an empty ``__init__`` changes no result."""
    body = parsed(file).body
    start = 1 if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) else 0
    return any(not (isinstance(node, ast.ImportFrom) and node.module == "__future__") for node in body[start:])


def with_packages(module: str) -> set[str]:
    """A module and the packages around it, whose ``__init__`` runs on its import."""
    names = module.split(".")
    return {".".join(names[:length]) for length in range(1, len(names) + 1)}


def closure(roots: Iterable[Path], passed_over: Iterable[str] = ()) -> set[Path]:
    """The files that run when these run and can change a result, the roots included; without the rooms of ``passed_over``."""
    seen: set[Path] = set()
    waiting = list(roots)
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            modules = {name for module in imports(file, types_too=False) for name in with_packages(module)}
            modules = {module for module in modules if room_of(module) not in {*CHANGES_NO_RESULT, *passed_over}}
            waiting += [found for module in modules if (found := file_of(module))]
    return {file for file in seen if holds_code(file)}


@cache
def files_of(detector: str) -> frozenset[Path]:
    """The files that the record of a detector of params.yaml names (stage `detector_code`)."""
    method = method_of(detector, read_params(ROOT / "params.yaml")["detectors"][detector])
    return frozenset(PACKAGE / name for name in recorded(module_of_method(method)))


class Stage:
    """What these tests want to know of a stage of dvc.yaml, its matrix resolved."""

    def __init__(self, name: str, cmd: str, deps: list[str]) -> None:
        self.name, self.cmd, self.deps = name, cmd, deps

    def covers(self, file: Path) -> bool:
        """Whether a file, or a folder around it, is among the dependencies, or in a record that is."""
        records = [Path(dep).stem for dep in self.deps if dep.startswith("data/detector_code/")]
        folders = [ROOT / dep for dep in self.deps]
        return any(file in files_of(detector) for detector in records) or any(map(file.is_relative_to, folders))

    @property
    def scripts(self) -> list[Path]:
        """The scripts that the command runs."""
        return [ROOT / word for word in self.cmd.split() if word.endswith(".py")]

    @property
    def detector(self) -> str | None:
        """The detector that the stage's name names: ``train@ns_net-0``."""
        return self.name.partition("@")[2].rpartition("-")[0] or None


@cache
def stages() -> tuple[Stage, ...]:
    """Every stage, resolved by DVC itself."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        found = repo.index.stages
        return tuple(
            Stage(stage.name, stage.cmd, [dep.def_path for dep in stage.deps if type(dep).__name__ != "ParamsDependency"])
            for stage in found
        )


def test_every_script_is_a_stage_and_every_stage_runs_one_script() -> None:
    """``stages/x.py`` is the stage ``x``; ``track`` is the one step that is run by hand, as nothing depends on it.

    A stage that another data set switches off stands in dvc.yaml too. A model that was not trained here is scored and evaluated
    by the same scripts.
    """
    named = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert named - {f"{name}{OFFICIAL}" for name in TWINS} == {file.stem for file in (ROOT / "stages").glob("*.py")} - {"track"}
    assert stages()
    for stage in stages():
        assert [script.stem for script in stage.scripts] == [stage.name.partition("@")[0].removesuffix(OFFICIAL)]


def test_a_matrix_stage_exists_for_every_detector_and_seed() -> None:
    """As params.yaml says."""
    run = read_params(ROOT / "params.yaml")["run"]
    items = {f"{detector}-{seed}" for detector in run["detectors"] for seed in run["seeds"]}
    assert items
    for name in ("train", "score", "evaluate"):
        assert {stage.name.partition("@")[2] for stage in stages() if stage.name.startswith(f"{name}@")} == items


@pytest.mark.parametrize("name", TWINS)
def test_a_model_that_was_not_trained_here_waits_for_the_same_and_leaves_the_same(name: str) -> None:
    """A stage over detectors and seeds, and its twin over folders: they differ in the name of the run alone."""
    described = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    stage, twin = (
        {key: yaml.safe_dump(value) for key, value in described[own].items() if key not in ("matrix", "desc")}
        for own in (name, f"{name}{OFFICIAL}")
    )
    renamed = {
        key: value.replace("${item.detector}-${item.seed}", "${item.official}").replace("${item.detector}", "${item.official}")
        for key, value in stage.items()
    }
    assert renamed == twin


def test_code_that_a_stage_depends_on_exists() -> None:
    """A dependency on a file that was renamed would stop the pipeline."""
    code = {dep for stage in stages() for dep in stage.deps if dep.startswith(("src/", "stages/"))}
    assert code
    assert sorted(dep for dep in code if not (ROOT / dep).exists()) == []


def test_stages_depend_on_all_the_code_they_run() -> None:
    """Every stage's dependencies cover what its script imports, directly or not, and its detector where it runs one.

    Otherwise an edit leaves stale results behind. Imports inside functions count, imports for types do not.
    """
    missing: list[str] = []
    for stage in stages():
        files = closure(stage.scripts, PASSED_OVER.get(stage.name, ()))
        if stage.detector and PACKAGE / "detectors" / "__init__.py" in files:
            method = method_of(stage.detector, read_params(ROOT / "params.yaml")["detectors"][stage.detector])
            files = closure([*stage.scripts, PACKAGE / "detectors" / f"{method}.py"])
        missing += sorted(f"{stage.name}: {file.relative_to(ROOT).as_posix()}" for file in files if not stage.covers(file))
    assert not missing, "dvc.yaml lacks these dependencies:\n" + "\n".join(missing)


@pytest.mark.parametrize("name", NAMES)
def test_the_record_of_a_detector_is_its_import_closure(name: str) -> None:
    """As this file finds it on its own: all that runs, with its hash; and a record lies in the folder that makes it run again."""
    found = recorded(module_of_method(name))
    expected = closure([PACKAGE / "detectors" / f"{name}.py"])
    assert expected <= {PACKAGE / file for file in found}
    assert {PACKAGE / file for file in found} <= expected | {PACKAGE / "detectors" / "__init__.py"} | closure(
        [PACKAGE / "detectors" / "__init__.py"]
    )
    assert all(sha256(PACKAGE / file) == digest for file, digest in found.items())
    (stage,) = (stage for stage in stages() if stage.name == "detector_code")
    assert all(stage.covers(PACKAGE / file) for file in found)


# What reruns after an edit: the first stages. What they lead to follows where their outputs change.
TRAIN = {"train", "score"}
RERUNS = {
    "src/nullscope/images/degradations.py": {"score"},
    "src/nullscope/images/transforms.py": TRAIN,
    "src/nullscope/images/preparation.py": {"shard", "score"},
    "src/nullscope/images/decoder.py": {"index", "caption", "shard", "audit", *TRAIN},
    "src/nullscope/images/formats/png.py": {"index", "caption", "shard", "audit", *TRAIN},
    "src/nullscope/archives/reading.py": {"index"},
    "src/nullscope/archives/split_zip.py": {"index"},
    "src/nullscope/sources/folders.py": {"index"},
    "src/nullscope/shards/upload.py": set(),
    "src/nullscope/shards/plan.py": {"shard"},
    "src/nullscope/captioning.py": {"caption"},
    "src/nullscope/embedding.py": {"embed"},
    "src/nullscope/training.py": {"train"},
    "src/nullscope/scoring.py": TRAIN,
    "src/nullscope/evaluation/metrics.py": {"audit", "evaluate"},
    "src/nullscope/report/page.py": set(),
    "src/nullscope/records/licences.py": set(),
    "src/nullscope/tracking/store.py": set(),
    "src/nullscope/prediction.py": set(),
    "src/nullscope/cli/predict.py": set(),
    "src/nullscope/tables/index.py": {"index", "caption", "shard", "audit", "embed", "score", "evaluate"},
    "src/nullscope/fetching/hub.py": set(),
    "src/nullscope/ops/a_new_file.py": set(),
    "src/nullscope/backbones/a_new_file.py": set(),
    "src/nullscope/detectors/a_new_file.py": set(),
    "src/nullscope/core/files.py": {"world", "encoders", "index", "caption", "shard", "audit", "embed", *TRAIN, "evaluate"},
}
NEVER_WAITED_FOR = {"report", "detector_code"}  # the report is drawn again by many edits, and a record is made in a second


@pytest.mark.parametrize("edited", RERUNS)
def test_an_edit_reruns_what_depends_on_it_and_nothing_else(edited: str) -> None:
    """The table above, read off dvc.yaml."""
    assert "a_new_file" in edited or (ROOT / edited).is_file()
    found = {stage.name.partition("@")[0] for stage in stages() if stage.covers(ROOT / edited)} - NEVER_WAITED_FOR
    assert found == RERUNS[edited]


@pytest.mark.parametrize("folder", ["detectors", "ops", "backbones"])
def test_what_one_detector_alone_uses_trains_it_alone(folder: str) -> None:
    """A detector's module, and an operation or a backbone that only some use, are in the records of those and of no other."""
    for file in sorted((PACKAGE / folder).glob("*.py")):
        users = {name for name in NAMES if file in closure([PACKAGE / "detectors" / f"{name}.py"])}
        trained = {stage.detector for stage in stages() if stage.name.startswith("train@") and stage.covers(file)}
        params = read_params(ROOT / "params.yaml")
        expected = {name for name in params["run"]["detectors"] if method_of(name, params["detectors"][name]) in users}
        assert trained == expected or file.name == "__init__.py", file.name


@pytest.mark.parametrize("folder", ["report", "tracking", "fetching"])
def test_nothing_but_the_report_waits_for_what_people_look_at(folder: str) -> None:
    """A table, a figure, the way to MLflow: an edit must train nothing again."""
    files = list((PACKAGE / folder).rglob("*.py"))
    assert files, "nothing to look for: this test would pass over it"
    assert {stage.name for stage in stages() if any(stage.covers(file) for file in files)} <= {"report"}


# (c) The committed parameters are the composition of conf/


def test_params_are_the_composition_of_conf() -> None:
    """`dvc repro` reads params.yaml, `dvc exp run` composes conf/: both must mean the same."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        composed = compose("config")
    OmegaConf.resolve(composed)
    assert read_params(ROOT / "params.yaml") == OmegaConf.to_container(composed, throw_on_missing=True)


EXPERIMENTS = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml"))
PRESETS = sorted(file.stem for file in (ROOT / "conf" / "detectors").glob("*.yaml"))


@pytest.mark.parametrize("override", [f"experiment={name}" for name in EXPERIMENTS] + [f"detectors=[{name}]" for name in PRESETS])
def test_every_experiment_and_every_preset_names_detectors_with_valid_parameters(override: str) -> None:
    """What `dvc exp run` would compose: no run of an hour ends at a misspelt key."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from nullscope import detectors
    from nullscope.core.config import validate

    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        composed = compose("config", overrides=[override])
    values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert values["run"]["detectors"] == list(values["detectors"])
    for name, params in values["detectors"].items():
        method = method_of(name, params)
        validate(name, {key: value for key, value in params.items() if key != "method"}, detectors.load(method).Config)


# (d) Names


def test_every_detector_has_a_module_and_a_configuration() -> None:
    """``conf/detectors/x.yaml`` is ``src/nullscope/detectors/x.py``, and the other way round; a preset names its method."""
    files = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / "conf" / "detectors").glob("*.yaml")}
    modules = {file.stem for file in (PACKAGE / "detectors").glob("*.py")} - {"__init__", *SHARED}
    assert {values.get("method", name) for name, values in files.items()} == modules
    assert modules <= set(files), "no detectors: this test would pass over nothing"


def test_a_detectors_configuration_stands_under_its_name() -> None:
    """Hydra would put it beside the others without the header."""
    for file in (ROOT / "conf" / "detectors").glob("*.yaml"):
        assert file.read_text(encoding="utf-8").splitlines()[0] == f"# @package detectors.{file.stem}", file.name


# (e) Nothing of the machine it was written on

FOLDERS = "|".join(("root", "home", "work", "Users"))
PUBLIC = ("pypi.org", "files.pythonhosted.org", "download.pytorch.org", "github.com", "huggingface.co")
MACHINE_PATH = re.compile(rf"(?<![\w.\-}}*~])/(?:{FOLDERS})/[\w.\-]".encode())
PACKAGE_INDEX = re.compile(rb"https?://(?:[^/\s@]*@)?([\w.\-]+)(?::\d+)?/[^\s\"')]*(?:simple|packages|wheels?|whl)\b")
INDEX_OPTION = re.compile(rb"(?:--|^|\s)(?:extra-)?(?:index-url|find-links|trusted-host)[ =]+(\S+)", re.MULTILINE)


def tracked_files() -> list[Path]:
    """What git tracks or would track: everything it does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    files = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    assert len(files) > 20, "git lists next to nothing: this test would pass over it"
    return files


def traces(content: bytes) -> list[bytes]:
    """Paths of a machine and hosts of private package indices in a file's bytes."""
    hosts = [host for host in PACKAGE_INDEX.findall(content) if not host.decode().endswith(PUBLIC)]
    return [match.group() for match in MACHINE_PATH.finditer(content)] + hosts + INDEX_OPTION.findall(content)


@pytest.mark.parametrize(
    ("content", "clean"),
    [
        ("see /{}/somebody/project".format("home"), False),
        ("path=/{}/x".format("root"), False),
        ('"/{}/main/src"'.format("work"), False),
        ("https://user:pw@{}:8080/pypi/simple/".format("mirror.example"), False),
        ("--{} http://mirror.example/x".format("index-url"), False),
        ("https://files.pythonhosted.org/packages/ab/c.whl", True),
        ("data/{}/x and ./{}/y".format("work", "home"), True),
        ("src/nullscope/world/camera.py", True),
        ("https://example.org/{}/page".format("home"), True),
    ],
)
def test_traces_are_recognised(content: str, clean: bool) -> None:
    """The search itself, on lines that it must find and lines that it must not."""
    assert (traces(content.encode()) == []) is clean


def test_no_tracked_file_names_a_machine() -> None:
    """No absolute path of somebody's folders, no private package index: neither exists on the next machine."""
    found = {file.relative_to(ROOT).as_posix(): traces(file.read_bytes()) for file in tracked_files()}
    assert {name: lines for name, lines in found.items() if lines} == {}
