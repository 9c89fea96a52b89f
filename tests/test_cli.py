"""`nullscope predict`: a person's own images, as they come."""

import json
import os

import pytest
import torch
from click.testing import CliRunner
from conftest import conf_of, noise_image

from nullscope import detectors, saved
from nullscope.cli import main
from nullscope.data.loading import read_whole
from nullscope.scoring import logits


@pytest.fixture(scope="module")
def model(small, tmp_path_factory):
    detector = detectors.build("clip_lora", conf_of("clip_lora"), small.context, seed=0)
    out = tmp_path_factory.mktemp("models") / "clip_lora-0"
    made = saved.Made("clip_lora", 0, conf_of("clip_lora"), small.context.patches, 10**6, {})
    saved.save(out, detector, made, saved.Frozen(small.context.clip, small.context.clip), [])
    return out


def run(model, *arguments, **more):
    return CliRunner().invoke(main, ["predict", *map(str, arguments), "--model", str(model)], **more)


def records(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_scores_are_those_of_the_pipeline(model, small):
    """From the file as from the shard; the sigmoid and the verdict follow from the logit."""
    result = run(model, small.folder / "patches/files", "--json")
    assert result.exit_code == 0, result.output
    detector, _ = saved.load(model, torch.device("cpu"))
    shards = {}
    for rows in read_whole(small.shards("patches"), detector.view, workers=0):
        shards |= dict(zip(rows.image_ids, logits(detector, rows, torch.device("cpu")), strict=True))
    found = [record["logit"] for record in records(result)]
    assert sorted(found) == pytest.approx(sorted(shards.values()), abs=1e-5)
    for record in records(result):
        assert record.keys() == {"source", "logit", "score", "fake"}
        assert record["fake"] == (record["logit"] > 0)
        assert record["score"] == pytest.approx(torch.tensor(record["logit"]).sigmoid().item(), abs=1e-6)


def test_an_image_scores_the_same_alone_in_company_and_under_another_name(model, small, tmp_path):
    files = sorted((small.folder / "patches/files").iterdir())
    copy = tmp_path / "another name.x.PNG"
    copy.write_bytes(files[0].read_bytes())
    alone = records(run(model, copy, "--json"))[0]["logit"]
    company = records(run(model, *files[:5], "--json"))[0]["logit"]
    assert alone == pytest.approx(company, abs=1e-5)


def test_refused_images_are_named_and_the_status_is_one(model, tmp_path):
    (tmp_path / "good.png").write_bytes(noise_image(0, 0))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "strip.png").write_bytes(noise_image(0, 0, side=7))
    (tmp_path / "hollow").mkdir()
    result = run(model, tmp_path, tmp_path / "missing.png", tmp_path / "hollow", "--json")
    assert result.exit_code == 1
    refused = {os.path.basename(r["source"]): r["refused"] for r in records(result) if "refused" in r}
    assert set(refused) == {"empty.png", "text.png", "strip.png", "missing.png", "hollow"}
    assert all(refused.values()) and "No such file" in refused["missing.png"]
    assert sum("logit" in r for r in records(result)) == 1


def test_standard_input_lists_files(model, small):
    files = [str(file) for file in sorted((small.folder / "patches/files").iterdir())[:3]]
    result = run(model, "-", "--json", input="\n".join(files) + "\n")
    assert [record["source"] for record in records(result)] == files


def test_csv_has_a_header_and_a_line_per_image(model, small):
    file = next((small.folder / "patches/files").iterdir())
    lines = run(model, file, "--csv").stdout.splitlines()
    assert lines[0] == "source,logit,score,fake,refused" and len(lines) == 2 and lines[1].startswith(str(file))


def test_table_never_cuts_a_path(model, tmp_path):
    path = tmp_path / ("long" * 50 + ".png")
    path.write_bytes(noise_image(0, 0))
    assert str(path) in run(model, path).stdout


def test_a_folder_that_is_no_detector_is_a_usage_error(tmp_path):
    result = run(tmp_path, tmp_path / "x.png")
    assert result.exit_code == 2 and "not a trained detector" in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["summary", "--help"], ["export", "--help"]])
def test_help_is_there(arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and len(result.output) > 200
