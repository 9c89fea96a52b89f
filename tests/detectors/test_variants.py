"""Variants: a section of the parameters that names another's page is a detector of its own, beside the others."""

import importlib.util
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import ROOT, conf_of, save_model
from ruamel.yaml import YAML

from nullscope import detectors, model_folder
from nullscope.core import ranks
from nullscope.detectors import dgs_net, linear_probe
from nullscope.scoring import logits
from nullscope.shards.loading import read_whole
from nullscope.training import Training

CPU = torch.device("cpu")
committed = cache(conf_of)


def build(small, name, page=None, seed=0, **changes):
    params = {**committed(page or name), **changes} | ({"method": page} if page else {})
    return detectors.build(name, params, small.context, seed=seed)


def trained(small, folder, name, page=None, **changes):
    detector = build(small, name, page, epochs=1, batch_size=8, **changes)
    list(Training(detector, small.data(detector), seed=0, device=CPU, scratch=folder).run())
    return detector


def equal(a, b):
    a, b = model_folder.kept(a), model_folder.kept(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# A page under another name


def test_a_variant_is_built_from_the_page_it_names(small):
    """Even where its name is that of another page."""
    assert type(build(small, "my ablation", "dgs_net")) is dgs_net.Detector
    assert type(build(small, "ns_net", "linear_probe")) is linear_probe.Detector
    assert type(build(small, "dgs_net")) is dgs_net.Detector


@pytest.mark.parametrize("page", detectors.NAMES)
def test_variants_of_a_page_begin_alike_and_seeds_apart(small, page):
    """What is random in a detector comes from its page and the seed: so an ablation differs in what it is an ablation of."""
    plain = build(small, page)
    assert equal(plain, build(small, "another name", page))
    assert not equal(plain, build(small, "another name", page, seed=1))


def test_a_variant_with_the_same_parameters_trains_to_the_same_weights(small, tmp_path):
    plain = trained(small, tmp_path / "a", "ns_net")
    assert equal(plain, trained(small, tmp_path / "b", "another name", "ns_net"))
    assert not equal(plain, trained(small, tmp_path / "c", "another name", "ns_net", bce_weight=0.9))


def test_building_disturbs_no_generator(small):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    build(small, "another name", "dgs_net")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_saved_variant_is_loaded_from_its_page_under_its_name(small, tmp_path):
    detector = trained(small, tmp_path / "scratch", "my ablation", "dgs_net", suppress="sum")
    params = {**committed("dgs_net"), "method": "dgs_net", "epochs": 1, "batch_size": 8, "suppress": "sum"}
    save_model(tmp_path / "model", detector, "my ablation", params, small.context)
    loaded, back = model_folder.load_unmerged(tmp_path / "model")
    assert type(loaded) is dgs_net.Detector and loaded.params.suppress == "sum"
    assert (back.detector, back.params) == ("my ablation", params)
    for rows in read_whole(small.shards("patches"), detector.transform, workers=0):
        assert logits(loaded, rows, CPU) == logits(detector, rows, CPU)


# What is wrong with it is said


def test_an_unknown_page_is_an_error_with_the_near_one_and_all_others(small):
    known = ", ".join(detectors.NAMES)
    for attempt in (
        lambda: detectors.build("my ablation", {"method": "dgsnet"}, small.context, seed=0),
        lambda: detectors.load("dgsnet"),
        lambda: detectors.file_of("dgsnet"),
    ):
        with pytest.raises(ValueError, match=rf"no detector 'dgsnet'; known: {known}; did you mean 'dgs_net'\?"):
            attempt()


@pytest.mark.parametrize("page", [None, 3, ["ns_net"], "", "base", "../ns_net", "nullscope.detectors.ns_net"])
def test_a_page_that_is_no_name_of_a_detector_is_the_same_error(small, page):
    """Not a traceback, and no other module: `base` is no detector."""
    with pytest.raises(ValueError, match=r"no detector .*; known: "):
        detectors.build("my ablation", {"method": page}, small.context, seed=0)


@pytest.mark.parametrize("params", [None, 3, ["page"], "dgs_net"])
def test_parameters_that_are_no_mapping_are_named(small, params):
    with pytest.raises(ValueError, match=rf"detectors.ns_net`: expected a mapping, found {type(params).__name__}"):
        detectors.build("ns_net", params, small.context, seed=0)


def test_errors_in_its_parameters_name_the_variant(small):
    with pytest.raises(ValueError, match=r"(?s)detectors.my ablation`.*supress: unknown.*did you mean `suppress`"):
        build(small, "my ablation", "dgs_net", supress="none")
    with pytest.raises(ValueError, match=r"no detector 'my ablation'"):
        detectors.build("my ablation", {**committed("dgs_net"), "pages": "dgs_net"}, small.context, seed=0)


def test_the_published_code_differs_from_the_paper_in_what_the_page_says():
    paper, official = committed("dgs_net"), committed("dgs_net_official")
    differences = {key: official[key] for key in official if official[key] != paper.get(key)}
    assert differences == {"method": "dgs_net", "suppress": "sum", "prior_scale": "batch", "epsilon": 1e-6}
    assert paper.keys() <= official.keys()


# The stage that copies pages


class Pages:
    """A project of three detectors, two of one page, and pages that may be edited."""

    def __init__(self, folder, monkeypatch):
        self.source, self.out, self.params = folder / "source", folder / "data/pages", folder / "params.yaml"
        shutil.copytree(Path(detectors.__file__).parent, self.source, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(detectors, "__file__", str(self.source / "__init__.py"))
        monkeypatch.chdir(folder)
        self.write({"ns_net": {}, "mine": {"method": "dgs_net"}, "dgs_net": {}})
        spec = importlib.util.spec_from_file_location("pages", ROOT / "stages/pages.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)

    def write(self, sections):
        with open(self.params, "w", encoding="utf-8") as file:
            YAML().dump({"run": {"detectors": list(sections)}, "detectors": sections}, file)

    def run(self):
        ranks.launch(self.module.main, alone=True)
        return {file.name: file.read_bytes() for file in self.out.iterdir()}


@pytest.fixture
def pages(tmp_path, monkeypatch):
    return Pages(tmp_path, monkeypatch)


def test_each_detector_gets_an_exact_copy_of_its_page(pages):
    source = {name: (pages.source / f"{name}.py").read_bytes() for name in ("ns_net", "dgs_net")}
    assert pages.run() == {"ns_net.py": source["ns_net"], "mine.py": source["dgs_net"], "dgs_net.py": source["dgs_net"]}


def test_editing_a_page_changes_its_copies_and_no_other(pages):
    before = pages.run()
    with open(pages.source / "ns_net.py", "ab") as file:
        file.write("# caf\u00e9, without a line's end".encode("latin-1"))
    after = pages.run()
    assert {name for name in before if before[name] != after[name]} == {"ns_net.py"}
    assert after["ns_net.py"] == (pages.source / "ns_net.py").read_bytes()
    with open(pages.source / "dgs_net.py", "ab") as file:
        file.write(b"# edited\n")
    last = pages.run()
    assert {name for name in after if after[name] != last[name]} == {"mine.py", "dgs_net.py"}


def test_editing_what_is_no_page_of_the_run_changes_no_copy(pages):
    before = pages.run()
    for name in ("base", "clip_lora", "__init__"):
        (pages.source / f"{name}.py").write_bytes(b"")
    assert pages.run() == before


def test_a_detector_that_left_the_run_leaves_no_copy_behind(pages):
    pages.run()
    pages.write({"ns_net": {}})
    assert pages.run().keys() == {"ns_net.py"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "dgsnet"}, "error: no detector 'dgsnet'; known: .*did you mean 'dgs_net'"),
        ({}, "error: no detector 'mine'; known: "),
        (None, "error: parameters `detectors.mine`: expected a mapping, found NoneType"),
    ],
)
def test_a_mistake_ends_in_one_line_and_leaves_the_old_copies(pages, section, message):
    before = pages.run()
    pages.write({"ns_net": {}, "mine": section})
    with pytest.raises(SystemExit, match=message) as stopped:
        pages.run()
    assert "\n" not in str(stopped.value)
    assert {file.name: file.read_bytes() for file in pages.out.iterdir()} == before
