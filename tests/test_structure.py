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

from nullscope.config import read_params

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
PACKAGE = SRC / "nullscope"

# From the top to the ground. A part imports from layers below its own: never upward, never from a neighbour on its layer.
LAYERS = (
    {"stages"},
    {"cli"},
    {"report", "tracking", "prediction", "fetching"},
    {"training", "scoring", "captioning", "embedding"},
    {"saved"},
    {"detectors"},
    {"data", "encoders", "world"},
    {"paired", "audit"},
    {"ops", "metrics"},
    {"resampling"},
    {"records"},
    {"contracts", "config", "files", "ranks"},
)
LEVEL = {part: depth for depth, layer in enumerate(LAYERS) for part in layer}
CHANGES_NO_RESULT = {"tracking"}  # a mirror of the results: what it imports in turn is its own affair, and no stage waits for it
OPS_MAY_IMPORT = {"torch", "numpy", "pydantic", "nullscope.config", "nullscope.ops"}


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
    """The absolute names of all modules that a file imports; ``from nullscope import ranks`` counts as ``nullscope.ranks``."""
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


def part_of(module: str) -> str:
    """The part of the project that a module belongs to: ``ops`` of ``nullscope.ops.patches``."""
    names = module.split(".")
    return names[1] if names[0] == "nullscope" and len(names) > 1 else names[0]


def python_files() -> list[Path]:
    """Every Python file of the package and every stage."""
    files = sorted(PACKAGE.rglob("*.py")), sorted((ROOT / "stages").glob("*.py"))
    assert all(files), "no package or no stages: these tests would pass over nothing"
    return [*files[0], *files[1]]


# (a) Imports point downward


def test_every_part_has_a_layer() -> None:
    """A new module finds its place in the table above before anything else."""
    parts = {part_of(module_name(file)) for file in python_files()} - {"nullscope"}
    assert parts == set(LEVEL)


@pytest.mark.parametrize("file", python_files(), ids=module_name)
def test_imports_point_downward(file: Path) -> None:
    """Imports for types count too: a type from above is knowledge of what is above."""
    part = part_of(module_name(file))
    below = {other for other in LEVEL if part in LEVEL and LEVEL[other] > LEVEL[part]}
    ours = {module for module in imports(file) if module.split(".")[0] in ("nullscope", "stages")}
    wrong = sorted(module for module in ours if part_of(module) not in {part, *below})
    assert not wrong, f"{module_name(file)} imports {', '.join(wrong)}, which is not below {part}"


def test_detectors_do_not_know_each_other() -> None:
    """A detector's page is read alone: it may import ``base``, no other page."""
    pages = [file for file in sorted((PACKAGE / "detectors").glob("*.py")) if file.stem not in ("__init__", "base")]
    assert pages, "no detectors: this test would pass over nothing"
    for page in (*pages, PACKAGE / "detectors" / "base.py"):
        others = {f"nullscope.detectors.{other.stem}" for other in pages} - {module_name(page)}
        assert not imports(page) & others


@pytest.mark.parametrize("file", python_files(), ids=module_name)
def test_only_tracking_imports_mlflow(file: Path) -> None:
    """MLflow is a mirror: everything else runs without it."""
    tops = {module.split(".")[0] for module in imports(file)}
    assert "mlflow" not in tops or part_of(module_name(file)) == "tracking"


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


def holds_code(file: Path) -> bool:
    """Whether anything stands in a file beside its docstring: an empty ``__init__`` changes no result."""
    body = parsed(file).body
    start = 1 if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) else 0
    return any(not (isinstance(node, ast.ImportFrom) and node.module == "__future__") for node in body[start:])


def with_packages(module: str) -> set[str]:
    """A module and the packages around it, whose ``__init__`` runs on its import."""
    names = module.split(".")
    return {".".join(names[:length]) for length in range(1, len(names) + 1)}


def closure(roots: Iterable[Path]) -> set[Path]:
    """The files that run when these run and can change a result, the roots included."""
    seen: set[Path] = set()
    waiting = list(roots)
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            modules = {name for module in imports(file, types_too=False) for name in with_packages(module)}
            modules = {module for module in modules if part_of(module) not in CHANGES_NO_RESULT}
            waiting += [found for module in modules if (found := file_of(module))]
    return {file for file in seen if holds_code(file)}


@cache
def page_named(detector: str) -> Path | None:
    """The page of a detector of params.yaml, which may be a variant of another name."""
    params = read_params(ROOT / "params.yaml")["detectors"].get(detector)
    return None if params is None else PACKAGE / "detectors" / f"{params.get('page', detector)}.py"


class Stage:
    """What these tests want to know of a stage of dvc.yaml, its matrix resolved."""

    def __init__(self, name: str, cmd: str, deps: list[str]) -> None:
        self.name, self.cmd, self.deps = name, cmd, deps

    def covers(self, file: Path) -> bool:
        """Whether a file, or a folder around it, is among the dependencies. ``data/pages/x.py`` is a copy of the page of x."""
        copies = [own for dep in self.deps if (own := page_named(Path(dep).stem)) and dep.startswith("data/pages/")]
        return file in copies or any(file.is_relative_to(ROOT / dep) for dep in self.deps)

    @property
    def scripts(self) -> list[Path]:
        """The scripts that the command runs."""
        return [ROOT / word for word in self.cmd.split() if word.endswith(".py")]

    def detector_page(self) -> Path | None:
        """The page of the detector that the stage's name names: ``train@ns_net-0``."""
        return page_named(self.name.partition("@")[2].rpartition("-")[0])


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

    A stage that another data set switches off stands in dvc.yaml too.
    """
    named = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert named == {file.stem for file in (ROOT / "stages").glob("*.py")} - {"track"}
    assert stages()
    for stage in stages():
        assert [script.stem for script in stage.scripts] == [stage.name.partition("@")[0]]


def test_a_matrix_stage_exists_for_every_detector_and_seed() -> None:
    """As params.yaml says."""
    run = read_params(ROOT / "params.yaml")["run"]
    items = {f"{detector}-{seed}" for detector in run["detectors"] for seed in run["seeds"]}
    assert items
    for name in ("train", "score", "evaluate"):
        assert {stage.name.partition("@")[2] for stage in stages() if stage.name.startswith(f"{name}@")} == items


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
        files = closure(stage.scripts)
        page = stage.detector_page()
        if page and PACKAGE / "detectors" / "__init__.py" in files:
            files = closure([*stage.scripts, page])
        missing += sorted(f"{stage.name}: {file.relative_to(ROOT).as_posix()}" for file in files if not stage.covers(file))
    assert not missing, "dvc.yaml lacks these dependencies:\n" + "\n".join(missing)


def test_no_stage_depends_on_what_changes_no_result() -> None:
    """An edit of the mirror must not train everything again."""
    files = [file for part in CHANGES_NO_RESULT for file in PACKAGE.glob(f"{part}/**/*.py")]
    assert files, "nothing to look for: this test would pass over it"
    assert not [stage.name for stage in stages() if any(stage.covers(file) for file in files)]


def test_no_stage_depends_on_the_page_of_another_detector() -> None:
    """Editing one detector trains that one again, and no other."""
    pages = [file for file in (PACKAGE / "detectors").glob("*.py") if file.stem not in ("__init__", "base")]
    seen = 0
    for stage in stages():
        if (page := stage.detector_page()) and any(dep.startswith("data/pages/") for dep in stage.deps):
            seen += 1
            assert not [other.stem for other in pages if other != page and stage.covers(other)], stage.name
    assert seen


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
    from nullscope.config import validate

    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        composed = compose("config", overrides=[override])
    values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert values["run"]["detectors"] == list(values["detectors"])
    for name, params in values["detectors"].items():
        page = detectors.page_of(name, params)
        validate(name, {key: value for key, value in params.items() if key != "page"}, detectors.load(page).Config)


# (d) Names


def test_every_detector_has_a_page_and_a_configuration() -> None:
    """``conf/detectors/x.yaml`` is ``src/nullscope/detectors/x.py``, and the other way round; a preset names its page."""
    files = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / "conf" / "detectors").glob("*.yaml")}
    pages = {file.stem for file in (PACKAGE / "detectors").glob("*.py")} - {"__init__", "base"}
    assert {values.get("page", name) for name, values in files.items()} == pages
    assert pages <= set(files), "no detectors: this test would pass over nothing"


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
