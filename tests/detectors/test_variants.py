"""Variants: a section of the parameters that names another's method is a detector of its own, beside the others."""

import importlib.util
import json
import shutil
from functools import cache

import pytest
import torch
from conftest import ROOT, conf_of, save_model
from ruamel.yaml import YAML

from nullscope import detectors, model_folder
from nullscope.core import imports, ranks
from nullscope.core.files import sha256
from nullscope.detectors import dgs_net, linear_probe
from nullscope.scoring import logits
from nullscope.shards.loading import read_whole
from nullscope.training import Training

CPU = torch.device("cpu")
committed = cache(conf_of)


def build(small, name, method=None, seed=0, **changes):
    params = {**committed(method or name), **changes} | ({"method": method} if method else {})
    return detectors.build(name, params, small.context, seed=seed)


def trained(small, folder, name, method=None, **changes):
    detector = build(small, name, method, epochs=1, batch_size=8, **changes)
    list(Training(detector, small.data(detector), seed=0, device=CPU, scratch=folder).run())
    return detector


def equal(a, b):
    a, b = model_folder.kept(a), model_folder.kept(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# A method under another name


def test_a_variant_is_built_from_the_method_it_names(small):
    """Even where its name is that of another method."""
    assert type(build(small, "my ablation", "dgs_net")) is dgs_net.Detector
    assert type(build(small, "ns_net", "linear_probe")) is linear_probe.Detector
    assert type(build(small, "dgs_net")) is dgs_net.Detector


@pytest.mark.parametrize("method", detectors.NAMES)
def test_variants_of_a_method_begin_alike_and_seeds_apart(small, method):
    """What is random in a detector comes from its method and the seed: so an ablation differs in what it is an ablation of."""
    plain = build(small, method)
    assert equal(plain, build(small, "another name", method))
    assert not equal(plain, build(small, "another name", method, seed=1))


def test_a_variant_with_the_same_parameters_trains_to_the_same_weights(small, tmp_path):
    plain = trained(small, tmp_path / "a", "ns_net")
    assert equal(plain, trained(small, tmp_path / "b", "another name", "ns_net"))
    assert not equal(plain, trained(small, tmp_path / "c", "another name", "ns_net", bce_weight=0.9))


def test_building_disturbs_no_generator(small):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    build(small, "another name", "dgs_net")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_saved_variant_is_loaded_from_its_method_under_its_name(small, tmp_path):
    detector = trained(small, tmp_path / "scratch", "my ablation", "dgs_net", suppress="sum")
    params = {**committed("dgs_net"), "method": "dgs_net", "epochs": 1, "batch_size": 8, "suppress": "sum"}
    save_model(tmp_path / "model", detector, "my ablation", params, small.context)
    loaded, back = model_folder.load_unmerged(tmp_path / "model")
    assert type(loaded) is dgs_net.Detector and loaded.params.suppress == "sum"
    assert (back.detector, back.params) == ("my ablation", params)
    for rows in read_whole(small.shards("patches"), detector.transform, workers=0):
        assert logits(loaded, rows, CPU) == logits(detector, rows, CPU)


# What is wrong with it is said


def test_an_unknown_method_is_an_error_with_the_near_one_and_all_others(small):
    known = ", ".join(detectors.NAMES)
    for attempt in (
        lambda: detectors.build("my ablation", {"method": "dgsnet"}, small.context, seed=0),
        lambda: detectors.load("dgsnet"),
        lambda: detectors.module_name("dgsnet"),
    ):
        with pytest.raises(ValueError, match=rf"no detector 'dgsnet'; known: {known}; did you mean `dgs_net`\?"):
            attempt()


def test_the_name_of_released_weights_begins_with_their_method():
    named = ("npr", "npr_official", "ladeda_2024", "tiny_ladeda_official", "ns_net_v2")
    assert [detectors.method_named(name) for name in named] == ["npr", "npr", "ladeda", "tiny_ladeda", "ns_net"]
    for name in ("nprx", "official_npr", "npr-1"):
        with pytest.raises(ValueError, match=f"run.official: '{name}': expected a name that begins with its detector's"):
            detectors.method_named(name)


@pytest.mark.parametrize("method", [None, 3, ["ns_net"], "", "base", "../ns_net", "nullscope.detectors.ns_net"])
def test_what_is_no_name_of_a_method_is_the_same_error(small, method):
    """Not a traceback, and no other module: `base` is no detector."""
    with pytest.raises(ValueError, match=r"no detector .*; known: "):
        detectors.build("my ablation", {"method": method}, small.context, seed=0)


@pytest.mark.parametrize("params", [None, 3, ["method"], "dgs_net"])
def test_parameters_that_are_no_mapping_are_named(small, params):
    with pytest.raises(ValueError, match=rf"detectors.ns_net`: expected a mapping, found {type(params).__name__}"):
        detectors.build("ns_net", params, small.context, seed=0)


def test_errors_in_its_parameters_name_the_variant(small):
    with pytest.raises(ValueError, match=r"(?s)detectors.my ablation`.*supress: unknown.*did you mean `suppress`"):
        build(small, "my ablation", "dgs_net", supress="none")
    with pytest.raises(ValueError, match=r"no detector 'my ablation'"):
        detectors.build("my ablation", {**committed("dgs_net"), "methods": "dgs_net"}, small.context, seed=0)


def test_the_published_code_differs_from_the_paper_in_what_its_module_says():
    paper, official = committed("dgs_net"), committed("dgs_net_official")
    differences = {key: official[key] for key in official if official[key] != paper.get(key)}
    assert differences == {"method": "dgs_net", "suppress": "sum", "prior_scale": "batch", "epsilon": 1e-6}
    assert paper.keys() <= official.keys()


# The stage that records code


METHODS = {"ns_net": "ns_net", "mine": "dgs_net", "dgs_net": "dgs_net"}


class Project:
    """A project of three detectors, two of one method, and a copy of the package that may be edited."""

    def __init__(self, folder, monkeypatch):
        self.package, self.out, self.params = folder / "nullscope", folder / "data/detector_code", folder / "params.yaml"
        shutil.copytree(imports.PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__", "assets"))
        monkeypatch.setattr(imports, "PACKAGE", self.package)
        monkeypatch.chdir(folder)
        self.write({"ns_net": {}, "mine": {"method": "dgs_net"}, "dgs_net": {}})
        spec = importlib.util.spec_from_file_location("detector_code", ROOT / "stages/detector_code.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)

    def write(self, sections, degradations=()):
        with open(self.params, "w", encoding="utf-8") as file:
            values = {
                "run": {"detectors": list(sections), "seeds": [0], "official": []},
                "detectors": sections,
                "score": {"degradations": list(degradations)},
            }
            YAML().dump(values, file)

    def run(self):
        ranks.launch(self.module.main, alone=True)
        return {file.stem: json.loads(file.read_text()) for file in self.out.iterdir()}

    def changed(self, name, added):
        """The detectors whose records are others after something was added to a file of the package."""
        before = self.run()
        with open(self.package / name, "ab") as file:
            file.write(added)
        after = self.run()
        return {detector for detector in before if before[detector] != after[detector]}


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


def test_a_misspelt_degradation_is_named_before_any_training(project):
    """This stage runs before them; `score`, which reads the parameter, runs behind them all."""
    project.write({"ns_net": {}}, degradations=["jpg_75"])
    with pytest.raises(SystemExit, match=r"no degradation 'jpg_75'; known: jpeg_<quality>"):
        project.run()


def test_a_record_names_the_method_and_all_files_that_it_runs(project):
    found = project.run()
    assert {name: record["method"] for name, record in found.items()} == {
        "ns_net": "ns_net",
        "mine": "dgs_net",
        "dgs_net": "dgs_net",
    }
    assert found["mine"] == found["dgs_net"]
    files = found["ns_net"]["files"]
    assert {"detectors/ns_net.py", "detectors/base.py", "ops/contrastive.py", "backbones/attention.py"} <= files.keys()
    assert not {"detectors/dgs_net.py", "backbones/blip.py", "training.py", "cli.py"} & files.keys()
    assert all(sha256(project.package / name) == digest for name, digest in files.items())


@pytest.mark.parametrize(
    ("edited", "changed"),
    [
        ("detectors/ns_net.py", {"ns_net"}),
        ("detectors/dgs_net.py", {"mine", "dgs_net"}),
        ("ops/contrastive.py", {"ns_net"}),
        ("backbones/sharing.py", {"ns_net", "mine", "dgs_net"}),
        ("detectors/linear_probe.py", set()),
        ("backbones/blip.py", set()),
        ("ops/a_new_one.py", set()),
        ("backbones/a_new_one.py", set()),
        ("report/page.py", set()),
    ],
)
def test_an_edit_changes_the_records_of_what_runs_the_file(project, edited, changed):
    assert project.changed(edited, "# caf\u00e9\n".encode()) == changed


def test_an_import_inside_a_function_counts_and_one_for_types_does_not(project):
    assert project.changed("detectors/ns_net.py", b"def late():\n    from nullscope.backbones import blip\n") == {"ns_net"}
    assert project.changed("backbones/blip.py", b"# edited\n") == {"ns_net"}
    assert project.changed("detectors/dgs_net.py", b"if TYPE_CHECKING:\n    from nullscope.ops import contrastive\n") == {
        "mine",
        "dgs_net",
    }
    assert project.changed("ops/contrastive.py", b"# edited\n") == {"ns_net"}


def test_a_detector_that_left_the_run_leaves_no_record_behind(project):
    project.run()
    project.write({"ns_net": {}})
    assert project.run().keys() == {"ns_net"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "dgsnet"}, "error: no detector 'dgsnet'; known: .*did you mean `dgs_net`"),
        ({}, "error: no detector 'mine'; known: "),
        (None, "error: parameters `detectors.mine`: expected a mapping, found NoneType"),
    ],
)
def test_a_mistake_ends_in_one_line_and_leaves_the_old_records(project, section, message):
    before = project.run()
    project.write({"ns_net": {}, "mine": section})
    with pytest.raises(SystemExit, match=message) as stopped:
        project.run()
    assert "\n" not in str(stopped.value)
    assert {file.stem for file in project.out.iterdir()} == before.keys()
