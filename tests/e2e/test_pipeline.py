"""The pipeline as its users run it: in a copy of the project, small, with dvc, git and MLflow as they are."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from conftest import PATCHES, conf_of
from e2e.project import MADE, RUNS, SMALL, STEPS, clean_logits, one_epoch, overrides, run, stages_run

from nullscope import detectors, model_folder
from nullscope.core.contracts import FAKE, REAL
from nullscope.detectors.base import Context
from nullscope.model_facts import read_validation

pytestmark = pytest.mark.e2e


def summary(root: Path) -> dict:
    return json.loads((root / "metrics/summary.json").read_text())


def scored(root: Path, name: str) -> dict[str, float]:
    """The logits of the stage `score` by the path of the image, as `nullscope predict` prints it."""
    index, logit = pq.read_table(root / "data/index.parquet"), clean_logits(root, name, "val", "test")
    rows = zip(index["source"].to_pylist(), index["image_id"].to_pylist(), strict=True)
    return {str(root / "data/world" / source): logit[image_id] for source, image_id in rows if image_id in logit}


def predicted(root: Path, name: str, images: list[str]) -> dict[str, float]:
    printed = run(root, "nullscope", "predict", *images, "--model", f"models/{name}", "--json")
    records = [json.loads(found) for found in re.findall(r'\{"source".*?\}', printed)]  # the progress bar stands between them
    assert [record["source"] for record in records] == images
    return {record["source"]: record["logit"] for record in records}


def runs_in_mlflow(root: Path) -> dict[str, dict]:
    script = (
        "import json, mlflow; from nullscope import tracking; c = mlflow.MlflowClient(tracking.tracking_uri())\n"
        "e = [x.experiment_id for x in c.search_experiments()]\n"
        "print(json.dumps({r.info.run_name: r.data.metrics for r in c.search_runs(e)}))"
    )
    return json.loads(run(root, "python", "-c", script).splitlines()[-1])


# More threads than the small pipeline had.
THREADS = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}


def test_every_stage_leaves_what_it_promises(project):
    results = summary(project)
    assert set(results) == RUNS and len(RUNS) > 1
    for name, result in results.items():
        assert {"r_acc", "f_acc", "acc", "ap"} <= result.keys()
        judged = [subset for subset in result["subsets"].values() if subset["n_fake"]]
        assert len(judged) == 8
        for subset in judged:
            assert {"r_acc", "f_acc", "acc", "ap"} <= subset.keys()
        assert json.loads((project / f"metrics/{name}.json").read_text()) == result
        assert (project / f"models/{name}/clip/open_clip_model.safetensors").is_file()
        assert len((project / f"models/{name}/history.csv").read_text().splitlines()) == 1 + STEPS[name.removesuffix("-0")]
    assert (project / "reports/index.html").stat().st_size > 10_000
    assert (project / "data/rejects.csv").read_text().splitlines() == ["source,reason"]


@pytest.mark.parametrize("name", sorted(RUNS))
def test_the_features_for_the_figures_are_those_behind_the_scores(project, name):
    """Of all test images here, in the order of the shards; the trained classifier makes the stored logits of them."""
    detector, _ = model_folder.load(project / f"models/{name}", torch.device("cpu"))
    table, stored = pq.read_table(project / f"data/features/{name}.parquet"), clean_logits(project, name, "test")
    ids = table["image_id"].to_pylist()
    assert ids == sorted(stored)
    logit_B = detector.classify(torch.tensor(table["feature"].to_pylist())).tolist()
    assert dict(zip(ids, logit_B, strict=True)) == pytest.approx(stored, abs=1e-4)


def test_a_second_repro_runs_no_stage_and_mlflow_shows_every_run_once_and_complete(clone):
    """Every training has logged into a run of its own; publishing finds these runs again."""
    assert "up to date" in run(clone, "dvc", "repro")
    for _ in range(2):
        run(clone, "python", "stages/track.py")
    shown = runs_in_mlflow(clone)
    assert set(shown) == RUNS
    for name, metrics in shown.items():
        assert metrics["ap"] == pytest.approx(summary(clone)[name]["ap"])
        assert "loss" in " ".join(metrics)


def test_one_parameter_of_a_detector_retrains_that_detector_alone(clone):
    """Here one that makes it ask for captions at inference: `nullscope predict` then writes those of the pipeline itself."""
    own = ["detectors.ns_net.null_space.scope=sample", "detectors.ns_net.null_space.rank=null"]
    ran = stages_run(run(clone, "dvc", "exp", "run", *overrides(*SMALL, *own)))
    assert ran == ["detector_code", "train@ns_net-0", "score@ns_net-0", "evaluate@ns_net-0", "report"]  # no code changes
    expected = scored(clone, "ns_net-0")
    images = sorted(expected)[::9]
    assert predicted(clone, "ns_net-0", images) == pytest.approx({image: expected[image] for image in images}, abs=1e-4)


def test_an_edited_page_retrains_its_detector_alone(clone):
    """A comment is an edit too; as the weights come out the same, nothing is evaluated or reported again."""
    weights = (clone / "models/dgs_net-0/weights.safetensors").read_bytes()
    with open(clone / "src/nullscope/detectors/dgs_net.py", "a", encoding="utf-8") as page:
        page.write("# edited\n")
    assert stages_run(run(clone, "dvc", "repro")) == ["detector_code", "train@dgs_net-0", "score@dgs_net-0"]
    assert (clone / "models/dgs_net-0/weights.safetensors").read_bytes() == weights
    assert "up to date" in run(clone, "dvc", "repro")


def test_the_trained_detector_judges_files_as_the_pipeline_does(project):
    expected = scored(project, "ns_net-0")
    images = sorted(expected)[::20]
    assert len(images) >= 3
    assert predicted(project, "ns_net-0", images) == pytest.approx({image: expected[image] for image in images}, abs=1e-4)


@pytest.mark.parametrize("name", sorted(RUNS))
def test_the_logits_that_a_model_keeps_are_those_of_the_validation_split(project, name):
    """Its thresholds rest on what the trained detector says of the validation images, as the stage `score` does afterwards."""
    kept, logit = read_validation(project / f"models/{name}"), clean_logits(project, name, "val")
    index = pq.read_table(project / "data/index.parquet", filters=[("split", "=", "val")]).to_pylist()
    for label, found in ((REAL, kept.real), (FAKE, kept.fake)):
        expected = sorted(logit[row["image_id"]] for row in index if row["label"] == label)
        assert found == pytest.approx(expected, abs=1e-4) and len(found) == 16


def test_released_weights_are_scored_and_reported_beside_those_trained_here(clone, tmp_path):
    """As the README says: import, add to DVC, name in `run.official`. Nothing trains again, and no number is mixed up."""
    detector = detectors.build("npr_official", conf_of("npr_official"), Context({}, PATCHES), seed=5)
    state = {detector.official_name(ours): tensor.detach().clone() for ours, tensor in detector.kept_state()}
    torch.save(state, tmp_path / "NPR.pth")
    run(clone, "nullscope", "import-weights", "npr", str(tmp_path / "NPR.pth"), "--out", "models/npr_official")
    run(clone, "dvc", "add", "models/npr_official")
    run(clone, "git", "add", "-A")
    run(clone, "git", "commit", "-qm", "npr_official")
    before = summary(clone)
    ran = stages_run(run(clone, "dvc", "exp", "run", *overrides(*SMALL, "run.official=[npr_official]")))
    own = ["score_official@npr_official", "evaluate_official@npr_official"]
    assert sorted(ran) == sorted(["detector_code", *own, "report"])
    found = summary(clone)
    assert {name: found[name] for name in before} == before and set(found) == {*RUNS, "npr_official"}
    expected = scored(clone, "npr_official")
    images = sorted(expected)[::30]
    assert predicted(clone, "npr_official", images) == pytest.approx({image: expected[image] for image in images}, abs=1e-4)
    assert "npr_official †" in (clone / "reports/index.html").read_text()
    run(clone, "python", "stages/track.py")
    assert set(runs_in_mlflow(clone)) == {*RUNS, "npr_official"}
    wrong = run(clone, "dvc", "exp", "run", *overrides(*SMALL, "run.official=[safe_official]"), status=255)
    assert "models/safe_official" in wrong and "Traceback" not in wrong


def test_everything_deleted_and_made_again_is_the_same_to_the_byte(project, tmp_path):
    """The law DVC's cache rests on: another folder, one worker instead of all, three threads, no cache: the same dvc.lock."""
    again = tmp_path / "again"
    run(tmp_path, "git", "clone", "-q", str(project), "again")
    lock = (again / "dvc.lock").read_text()
    for name in MADE:
        assert not (again / name).exists()
    ran = stages_run(run(again, "dvc", "repro", NULLSCOPE_WORKERS="1", NULLSCOPE_TRACKING="off", **THREADS))
    assert {"world@embedded", "encoders", "index", "caption", "shard", "embed", "report"} <= set(ran)
    assert (again / "dvc.lock").read_text() == lock


def test_two_ranks_score_and_caption_alike(clone):
    lock = (clone / "dvc.lock").read_text()
    stages = ["caption", "embed", "shard", "score@ns_net-0"]
    output = run(clone, "dvc", "repro", "--single-item", "--force", "--no-run-cache", *stages, NULLSCOPE_RANKS="2")
    assert sorted(stages_run(output)) == sorted(stages)
    assert (clone / "dvc.lock").read_text() == lock


def test_a_folder_of_bad_images_goes_through_or_is_listed(clone, tmp_path):
    """Good sources and the whole zoo of bad files, with names DVC itself cannot hold: nothing crashes, nothing is lost.

    The detector is one that another page's preset makes: it goes through under its own name.
    """
    from images.bad_images import bad_files, good_files, write_files

    images = tmp_path / "images"
    for split in ("train", "test"):
        for subset in ("camera", "nearest", "transpose"):
            shutil.copytree(clone / "data/world" / split / subset, images / subset, dirs_exist_ok=True)
    zoo = write_files(images / "zoo/0_real", {**good_files(), **bad_files()})
    (zoo / "loop").symlink_to(zoo)
    Path(os.fsdecode(os.fsencode(zoo) + b"/caf\xe9.png")).write_bytes(good_files()["twin_a.png"])
    variant = "detectors=[dgs_net_official]"
    settings = ["dataset=folder", f"dataset.root={images}", "shard.samples=32", variant, *one_epoch(variant)["dgs_net_official"]]
    run(clone, "dvc", "exp", "run", *overrides(*settings), NULLSCOPE_TRACKING="off")
    with open(clone / "data/rejects.csv", newline="", encoding="utf-8") as file:
        rejects = list(csv.DictReader(file))
    assert all(row["reason"] for row in rejects)
    expected = {*bad_files(), "loop"} - {"strip.png"}  # 31 px hold a patch of 16 px
    assert {Path(row["source"]).name for row in rejects} >= expected
    assert sum("UTF-8" in row["reason"] for row in rejects) == 1
    assert set(summary(clone)) == {"dgs_net_official-0"}
    assert stages_run(run(clone, "dvc", "repro", NULLSCOPE_TRACKING="off")) == ["inventory@folder"]


def test_mistakes_end_in_one_clear_line(clone):
    unknown = run(clone, "python", "stages/train.py", "nsnet", "0", status=1)
    assert "error: " in unknown and "ns_net" in unknown and "Traceback" not in unknown
    params = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(params.replace("bce_weight: 0.2", "bce_weight: high"))
    mistyped = run(clone, "python", "stages/train.py", "ns_net", "0", status=1)
    assert "bce_weight" in mistyped and "high" in mistyped and "Traceback" not in mistyped
