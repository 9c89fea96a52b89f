"""`nullscope predict`, `summary` and `export`."""

import csv
import dataclasses
import json
import os
from importlib.resources import files
from pathlib import Path

import open_clip
import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, conf_of, noise_image, save_model, write_noise_shards
from safetensors.torch import load_file

from nullscope import caption_writer, captioning, detectors, model_folder
from nullscope.backbones.blip import Captioner, CaptionParams
from nullscope.backbones.clip import load_text_encoder
from nullscope.cli import main
from nullscope.core.config import validate
from nullscope.core.contracts import image_id
from nullscope.detectors.base import Context
from nullscope.embedding import embed
from nullscope.model_facts import read_facts
from nullscope.ops.patches import PatchParams
from nullscope.scoring import logits
from nullscope.shards.loading import read_whole
from nullscope.shards.reading import list_shards
from nullscope.tables.listing import Item
from nullscope.tables.text import TextTable

CPU = torch.device("cpu")
ASSETS = Path(str(files("nullscope") / "assets"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in a stage (`ranks.device`), where what is compared here with the command is made."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(small, tmp_path_factory):
    detector = detectors.build("clip_lora", conf_of("clip_lora"), small.context, seed=0)
    out = tmp_path_factory.mktemp("models") / "clip_lora-0"
    return save_model(out, detector, "clip_lora", conf_of("clip_lora"), small.context)


def run(model, *arguments, **more):
    return CliRunner().invoke(main, ["predict", *map(str, arguments), "--model", str(model)], **more)


def records(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_scores_are_those_of_the_pipeline(model, small):
    """From the file as from the shard; the sigmoid and the verdict follow from the logit."""
    result = run(model, small.folder / "patches/files", "--json")
    assert result.exit_code == 0, result.output
    detector, _ = model_folder.load(model, torch.device("cpu"))
    shards = {}
    for rows in read_whole(small.shards("patches"), detector.transform, workers=0):
        shards |= dict(zip(rows.image_ids, logits(detector, rows, torch.device("cpu")), strict=True))
    found = [record["logit"] for record in records(result)]
    assert sorted(found) == sorted(shards.values())
    for record in records(result):
        assert record.keys() == {"source", "logit", "score", "answer", "fake", "probability", "claims"}
        assert record["fake"] == (record["logit"] > 0)
        assert record["score"] == pytest.approx(torch.tensor(record["logit"]).sigmoid().item(), abs=1e-6)


def test_an_image_scores_the_same_alone_in_company_and_under_another_name(model, small, tmp_path):
    files = sorted((small.folder / "patches/files").iterdir())
    copy = tmp_path / "another name.x.PNG"
    copy.write_bytes(files[0].read_bytes())
    alone = records(run(model, copy, "--json"))[0]["logit"]
    company = records(run(model, *files[:5], "--json"))[0]["logit"]
    assert alone == company


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
    assert all(refused.values()) and refused["missing.png"].startswith("nothing there")
    assert sum("logit" in r for r in records(result)) == 1


@pytest.mark.slow
def test_standard_input_lists_files(model, small):
    files = [str(file) for file in sorted((small.folder / "patches/files").iterdir())[:3]]
    result = run(model, "-", "--json", input="\n".join(files) + "\n")
    assert [record["source"] for record in records(result)] == files


def test_csv_has_a_header_and_a_line_per_image(model, small):
    file = next((small.folder / "patches/files").iterdir())
    lines = run(model, file, "--csv").stdout.splitlines()
    assert lines[0] == "source,logit,score,answer,fake,probability,claims,caption,refused"
    assert len(lines) == 2 and lines[1].startswith(str(file))


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


# A detector that needs captions


@dataclasses.dataclass
class Captioned:
    """A detector that takes every image off its own caption, on the encoders of the package, and what the pipeline gives it."""

    model: Path
    folder: Path  # of the shards and of the files in them
    captions: dict[str, str]  # BLIP's own, by source

    @property
    def sources(self) -> list[str]:
        return list(self.captions)

    def scored(self, captions: dict[str, str]) -> dict[str, float]:
        """The logits of the pipeline with these captions, by source."""
        detector, _ = model_folder.load(self.model, CPU)
        ids = {image_id(Path(source).read_bytes()): source for source in self.sources}
        words = [captions[source] for source in ids.values()]
        text = TextTable(list(ids), load_text_encoder(ASSETS / "clip", CPU)(words), "the test")
        found = {}
        for rows in read_whole(list_shards(self.folder), detector.transform, workers=0):
            found |= dict(zip((ids[name] for name in rows.image_ids), logits(detector, rows, CPU, text), strict=True))
        return found

    def csv(self, path: Path, rows: dict[str, str]) -> Path:
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("source", "caption"), *rows.items()])
        return path


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    patches, folder = PatchParams(patch_px=16, grid=7, fill="repeat"), tmp_path_factory.mktemp("captioned")
    write_noise_shards(folder / "shards", "patches", patches, images=10, per_shard=4)
    conf = {**conf_of("ns_net"), "null_space": {"scope": "sample", "rank": None, "energy": None}}
    detector = detectors.build("ns_net", conf, Context({"clip": ASSETS / "clip"}, patches), seed=0)
    with torch.no_grad():
        detector.head.weight *= 5  # logits of some size, as after training
    caption = {"max_new_tokens": 40, "batch_size": 4, "precision": "fp32"}
    context = Context({"clip": ASSETS / "clip"}, patches)
    save_model(folder / "model", detector, "ns_net", conf, context, caption=caption, blip=ASSETS / "blip")
    paths = sorted((folder / "shards/files").iterdir(), key=lambda path: int(path.stem))
    items = [Item(image_id(path.read_bytes()), 0, path, "PNG") for path in paths]
    params = validate("caption", caption, CaptionParams)
    [table] = captioning.captions([items], ASSETS / "blip", params, 10**6, CPU, workers=0)
    return Captioned(folder / "model", folder / "shards", dict(zip(map(str, paths), table["caption"].to_pylist(), strict=True)))


@pytest.fixture
def asked(monkeypatch):
    """How many images BLIP is asked for, call by call."""
    calls, caption = [], Captioner.caption
    monkeypatch.setattr(Captioner, "caption", lambda self, pixels: calls.append(len(pixels)) or caption(self, pixels))
    return calls


def by_source(result):
    assert result.exit_code == 0, result.output
    return {record["source"]: record["logit"] for record in records(result)}


def test_the_folder_of_a_detector_that_needs_captions_holds_what_writes_them(captioned, model):
    assert (captioned.model / "blip/model.safetensors").is_file() and (captioned.model / "clip/tokenizer.json").is_file()
    assert not (model / "blip").exists()


def test_captions_that_predict_writes_are_those_of_the_pipeline(captioned, asked):
    """As many images at once as the stage `caption` takes; the same captions, the same text features, the same logits."""
    found = by_source(run(captioned.model, *captioned.sources, "--json"))
    assert list(found) == captioned.sources
    assert found == captioned.scored(captioned.captions)
    assert asked == [4, 4, 2]
    said = records(run(captioned.model, *captioned.sources[:2], "--json"))
    assert [record["caption"] for record in said] == [captioned.captions[source] for source in captioned.sources[:2]]
    foreign = captioned.scored(dict.fromkeys(captioned.sources, "a large green ring on grass before sea"))
    assert all(abs(found[source] - foreign[source]) > 1e-3 for source in found)  # a caption is seen in the logit


def test_the_features_of_predicted_captions_are_those_of_the_stage_embed(captioned):
    """One encoder for both, to the last bit, many at a time and one at a time."""
    caption = read_facts(captioned.model).caption
    writer = caption_writer.CaptionWriter(captioned.model / "blip", captioned.model / "clip", caption, CPU)
    given = writer.features(list(captioned.captions.values()))
    table = captioning.pa.table(
        {"image_id": captioned.sources, "caption": list(captioned.captions.values())}, schema=captioning.CAPTIONS
    )
    [embedded] = embed(table.to_batches(), load_text_encoder(ASSETS / "clip", CPU))
    expected = torch.tensor(embedded["text"].to_pylist())
    assert given.dtype == torch.float32 and torch.equal(given, expected)
    for caption, expected_D in zip(captioned.captions.values(), expected, strict=True):
        assert torch.equal(writer.features([caption])[0], expected_D)


def test_given_captions_are_taken_and_missing_ones_are_written(captioned, asked, tmp_path):
    """BLIP is not asked for what is given; captions of other images change nothing."""
    mine = dict(zip(captioned.sources[1::2], ["a ring", "grass, sea", "sky", 'a "disc"', "sand"], strict=True))
    file = captioned.csv(tmp_path / "captions.csv", {**mine, "elsewhere.png": "a disc"})
    found = by_source(run(captioned.model, *captioned.sources, "--captions", file, "--json"))
    assert found == captioned.scored({**captioned.captions, **mine})
    assert sum(asked) == 5


def test_with_all_captions_given_blip_is_not_asked(captioned, asked, tmp_path):
    """Whatever else the file holds, with a byte order mark as spreadsheets write it, and blanks around a caption."""
    file = captioned.csv(tmp_path / "captions.csv", {source: f"  {words} " for source, words in captioned.captions.items()})
    lines = file.read_text(encoding="utf-8").replace("source,caption", "source,caption,note")
    file.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    found = by_source(run(captioned.model, *captioned.sources, "--captions", file, "--json"))
    assert found == captioned.scored(captioned.captions)
    assert asked == []


def test_refused_files_leave_captions_and_order_of_the_others_alone(captioned, tmp_path):
    """Among good files, some twice: every verdict stands where its source stood."""
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "strip.png").write_bytes(noise_image(0, 0, side=9))
    good, bad = captioned.sources, [str(tmp_path / name) for name in ("text.png", "strip.png", "missing.png")]
    mixed = [bad[0], good[3], good[1], bad[1], bad[2], good[3], good[0], bad[0]]
    result = run(captioned.model, *mixed, "--json")
    assert result.exit_code == 1
    found = records(result)
    assert [record["source"] for record in found] == mixed
    assert ["refused" in record for record in found] == [source in bad for source in mixed]
    expected = captioned.scored(captioned.captions)
    assert all(record["logit"] == expected[record["source"]] for record in found if "logit" in record)


def test_nothing_but_refused_files_writes_no_caption(captioned, asked, tmp_path):
    result = run(captioned.model, tmp_path / "missing.png", "--json")
    assert result.exit_code == 1 and len(records(result)) == 1 and asked == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "expected the columns source and caption, found none"),
        (b"file,words\na.png,a ring\n", "expected the columns source and caption, found file, words"),
        (b"source\na.png\n", "expected the columns source and caption, found source"),
        (b"source,caption\na.png,a ring\nb.png,  \n", "the caption of b.png is empty"),
        (b"source,caption\na.png\n", "the caption of a.png is empty"),
        (b"source,caption\na.png,caf\xe9\n", "is not CSV in UTF-8"),
        (b"s\xf6urce,caption\na.png,a ring\n", "is not CSV in UTF-8"),
        (b'source,caption\na.png,"' + b"x" * 200_000 + b'"\n', "is not CSV in UTF-8: field larger"),
    ],
    ids=["empty", "other columns", "one column", "blank caption", "short line", "latin-1", "latin-1 header", "endless field"],
)
def test_a_bad_file_of_captions_ends_in_a_sentence_that_names_it(captioned, tmp_path, content, sentence):
    """Before anything is loaded or scored."""
    file = tmp_path / "captions.csv"
    file.write_bytes(content)
    result = run(captioned.model, captioned.sources[0], "--captions", file, "--json")
    assert result.exit_code == 2 and result.stdout == ""
    assert f"Error: {file}" in result.stderr and sentence in result.stderr and "Traceback" not in result.stderr


def test_a_file_of_captions_that_is_not_there_ends_in_a_sentence(captioned, tmp_path):
    result = run(captioned.model, captioned.sources[0], "--captions", tmp_path / "captions.csv")
    assert result.exit_code == 2 and "captions.csv" in result.stderr and "does not exist" in result.stderr


def test_captions_for_nothing_end_in_a_sentence(captioned, model, tmp_path):
    """Names that fit no image, or a detector that reads none: the user would think that they had been used."""
    file = captioned.csv(tmp_path / "captions.csv", {"elsewhere.png": "a disc"})
    result = run(captioned.model, captioned.sources[0], "--captions", file)
    assert result.exit_code == 2 and "none of its 1 captions is of an image that was asked for" in result.stderr
    assert "found 'elsewhere.png'" in result.stderr
    result = run(model, captioned.sources[0], "--captions", file)
    assert result.exit_code == 2 and "clip_lora needs no captions; leave them out" in result.stderr


# summary and export


def test_summary_prints_the_table_of_the_summary(tmp_path):
    """Every detector and every generator of the file, and its numbers as percentages."""
    result = CliRunner().invoke(main, ["summary", "--metrics", str(ROOT / "metrics/summary.json")])
    assert result.exit_code == 0, result.output
    summary = json.loads((ROOT / "metrics/summary.json").read_text())
    for name in summary:
        assert name.rpartition("-")[0] in result.output
    assert "reports/index.html" in result.output and "MLflow" in result.output


def test_a_summary_that_is_not_there_ends_in_a_sentence(tmp_path):
    result = CliRunner().invoke(main, ["summary", "--metrics", str(tmp_path / "summary.json")])
    assert result.exit_code == 2 and "run `dvc repro` first" in result.output and "Traceback" not in result.output


# Merged, without adapters, not merged, and without the projection.
@pytest.mark.parametrize("name", ["clip_lora", "linear_probe", "anchored_ns_net", "effort"])
def test_an_exported_tower_is_that_of_the_detector_in_stock_open_clip(name, small, tmp_path):
    """Every name and shape fits, and stock open_clip computes the features of the detector as it was trained."""
    detector = detectors.build(name, conf_of(name), small.context, seed=0)
    with torch.no_grad():
        for parameter_name, parameter in detector.named_parameters():
            if "lora_B" in parameter_name or parameter_name.endswith((".u", ".s", ".v")):
                parameter.normal_(std=0.1)
    model, out = save_model(tmp_path / "model", detector, name, conf_of(name), small.context), tmp_path / "tower.safetensors"
    result = CliRunner().invoke(main, ["export", str(model), str(out)])
    assert result.exit_code == 0, result.output
    stock = open_clip.create_model(f"local-dir:{small.context.backbone('clip')}", precision="fp32").visual.eval()
    image = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        frozen = stock(image)
        stock.load_state_dict(load_file(out), strict=True)
        stock.proj = stock.proj if detector.clip.tower.proj is not None else None
        torch.testing.assert_close(stock(image), detector.eval().clip.tower(image), rtol=0, atol=1e-5)
        stock.proj = torch.nn.Parameter(load_file(out)["proj"])
        assert torch.equal(stock(image), frozen) == (name == "linear_probe")


def test_what_has_no_tower_cannot_be_exported(small, small_resnet, tmp_path):
    detector = detectors.build(small_resnet, conf_of(small_resnet), small.context, seed=0)
    model = save_model(tmp_path / "model", detector, small_resnet, conf_of(small_resnet), small.context)
    assert not (model / "clip").exists()
    result = CliRunner().invoke(main, ["export", str(model), str(tmp_path / "out")])
    assert result.exit_code == 2 and "adapts no CLIP" in result.output and not (tmp_path / "out").exists()
