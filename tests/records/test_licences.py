"""The licence table and the manifest of weights: complete, well-formed, and true of the files that we can see."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import nullscope
from nullscope.detectors import NAMES
from nullscope.records import licences as module
from nullscope.records.licences import UNLICENSED, licences, weights

PACKAGE = Path(nullscope.__file__).parent
ROOT = PACKAGE.parents[1]
OF_THE_PAPERS = {
    *("ns_net", "advanced_ns_net", "dgs_net", "cnn_spot", "univfd", "freqnet", "npr", "ladeda"),
    *("aide", "c2p_clip", "dffreq", "safe", "effort", "vib_net"),
}
DATASETS = {"aigibench", "genimage", "genimage17", "forensynths", "universal_fake_detect", "dalle_recognition", "world"}


def test_every_detector_of_the_papers_has_its_own_code_and_ours():
    code = [row for row in licences() if row.kind == "detector" and row.part == "code"]
    assert {row.name for row in code if row.source != "nullscope"} >= OF_THE_PAPERS
    ours = {row.name: row.licence for row in code if row.source == "nullscope"}
    assert set(ours) >= {*OF_THE_PAPERS, *NAMES}, "a new detector needs a row in licences.csv"
    assert set(ours.values()) == {"Apache-2.0"}
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()


def test_every_data_set_has_terms():
    assert {row.name for row in licences() if row.part == "data"} >= DATASETS


@pytest.mark.parametrize(
    ("name", "part", "licence", "commercial"),
    [
        ("aigibench", "data", "CC BY-NC-SA 4.0", "no"),
        ("genimage", "data", "CC BY-NC-SA 4.0", "no"),
        ("clip_vit_l_14", "weights", "MIT", "yes"),
        ("blip_base", "weights", "BSD-3-Clause", "yes"),
        ("univfd", "code", "MIT", "yes"),
        ("safe", "code", "Apache-2.0", "yes"),
        ("effort", "code", "CC BY-NC 4.0", "no"),
        ("cnn_spot", "code", "CC BY-NC-SA 4.0", "no"),
        ("ladeda", "code", "Yissum Software Research License", "no"),
        ("npr", "code", "none found", "unclear"),
    ],
)
def test_terms_that_are_known(name, part, licence, commercial):
    (row,) = [row for row in licences() if (row.name, row.part) == (name, part) and row.source != "nullscope"]
    assert (row.licence, row.commercial) == (licence, commercial)


def test_sources_are_names_without_hosts():
    for where in [*(row.source for row in licences()), *(row.where_from for row in weights())]:
        assert re.fullmatch(r"nullscope|open_clip|arXiv:\d{4}\.\d{5}|(HF |Kaggle )?[\w.-]+/[\w.-]+(@[0-9a-f]{40})?", where), where


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"commercial": "maybe"}, "yes, no, unclear"),
        ({"kind": "package"}, "detector, dataset, encoder"),
        ({"part": "paper"}, "code, weights, data"),
        ({"licence": ""}, "licence"),
        *(({"licence": licence, "commercial": "yes"}, "unclear") for licence in UNLICENSED),
    ],
)
def test_a_wrong_licence_row_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(licences()[0], **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "abc"}, "64"),
        ({"sha256_begins": "abcde"}, "neither alone"),
        ({"sha256": "", "sha256_begins": "xyzzy"}, "neither alone"),
        ({"sha256": ""}, "sha256sum"),
        ({"trained_on": ""}, "unknown"),
    ],
)
def test_a_wrong_weights_row_is_refused(change, message):
    embedded = next(row for row in weights() if row.in_package)
    with pytest.raises(ValueError, match=message):
        replace(embedded, **change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,bytes,in_package\nx,4 kB,no\n", "number of bytes"),
        ("name,bytes,in_package\nx,4,perhaps\n", "yes, no"),
        ("name,bytes,in_package\nx,4\n", "3 cells"),
    ],
)
def test_a_wrong_manifest_is_refused(text, message, tmp_path, monkeypatch):
    (tmp_path / "weights.csv").write_text(text)
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    with pytest.raises(ValueError, match=message):
        weights.__wrapped__()


def test_a_row_that_stands_twice_is_refused(tmp_path, monkeypatch):
    header, first, *_ = Path(module.__file__).with_name("licences.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "licences.csv").write_text("\n".join([header, first, first]))
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    with pytest.raises(ValueError, match="one row each"):
        licences.__wrapped__()


# The manifest against the files


def test_the_manifest_is_true_of_the_weights_in_the_package():
    """All of them, with their real size and hash."""
    listed = {row.file: row for row in weights() if row.in_package}
    there = {file.relative_to(PACKAGE).as_posix(): file.read_bytes() for file in PACKAGE.rglob("*.safetensors")}
    assert there and set(listed) == set(there)
    for file, content in there.items():
        assert (listed[file].bytes, listed[file].sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_manifest_pins_the_encoders_as_the_configuration_does():
    pinned = yaml.safe_load((ROOT / "conf" / "encoder" / "vit_l_14.yaml").read_text())
    by_name = {row.name: row for row in weights()}
    for name, tower in [("clip_vit_l_14", "clip"), ("blip_base", "blip")]:
        assert by_name[name].where_from == f"HF {pinned[tower]['repository']}@{pinned[tower]['revision']}"


def test_the_released_weights_that_were_seen_are_listed():
    sizes = {row.file: row.bytes for row in weights()}
    assert sizes["pretrained_weights/fc_weights.pth"] == 4083
    assert sizes["weights/Tiny_LaDeDa/ForenSynth_Tiny_LaDeDa.pth"] == 12405
    assert sizes["weights/Tiny_LaDeDa/WildRF_Tiny_LaDeDa.pth"] == 11654


def test_detectors_of_the_manifest_are_known():
    assert {row.detector for row in weights()} - {""} <= {*OF_THE_PAPERS, *NAMES}
