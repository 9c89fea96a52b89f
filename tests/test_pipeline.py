"""The pipeline as its users run it: in a copy of the project, small, with dvc, git and MLflow as they are."""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nullscope import model_folder
from nullscope.core.contracts import CLEAN

pytestmark = pytest.mark.e2e


def one_epoch(*choice: str) -> dict[str, list[str]]:
    """Settings that make every phase of every detector of a composition one epoch long, by detector."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        chosen = OmegaConf.to_container(compose("config", overrides=list(choice)).detectors)
    return {name: [f"detectors.{name}.{key}=1" for key in chosen[name] if key.endswith("epochs")] for name in chosen}


SHORT = one_epoch()
RUNS = {f"{name}-0" for name in SHORT}
SMALL = [
    "dataset.world.train_reals=48",
    "dataset.world.train_fakes_per_generator=24",
    "dataset.world.val_reals=16",
    "dataset.world.val_fakes_per_generator=8",
    "dataset.world.test_reals=24",
    "dataset.world.test_fakes_per_generator=6",
    "shard.samples=32",
    *(setting for settings in SHORT.values() for setting in settings),
]
MADE = ["data", "models", "scores", "reports", ".nullscope", ".dvc/cache"]


def run(project: Path, *command: str, status: int = 0, **environment: str) -> str:
    """Run a command in the project; return what it printed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("NULLSCOPE_", "MLFLOW_", "DVC_", "GIT_"))}
    clean["PYTHONPATH"] = str(project / "src")
    who = {f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        command, cwd=project, env={**clean, **who, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == status, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def overrides(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("-S", setting)]


def copy_project(to: Path) -> Path:
    """Copy what git would commit, and commit it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    run(to, "git", "init", "-q", "-b", "main")
    run(to, "git", "add", "-A")
    run(to, "git", "commit", "-qm", "copy")
    return to


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy in which the small pipeline has run once."""
    root = copy_project(tmp_path_factory.mktemp("project"))
    run(root, "dvc", "exp", "run", *overrides(*SMALL))
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "small")
    return root


def summary(root: Path) -> dict:
    return json.loads((root / "metrics/summary.json").read_text())


def clean_logits(root: Path, name: str) -> dict[str, float]:
    """The logits of the stage `score` of images as they are, by their id."""
    scores = pq.read_table(root / f"scores/{name}.parquet", filters=[("degradation", "=", CLEAN)])
    return dict(zip(scores["image_id"].to_pylist(), scores["logit"].to_pylist(), strict=True))


def scored(root: Path, name: str) -> dict[str, float]:
    """The logits of the stage `score` by the path of the image, as `nullscope predict` prints it."""
    index, logit = pq.read_table(root / "data/index.parquet"), clean_logits(root, name)
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
        phases = len(SHORT[name.removesuffix("-0")])
        assert len((project / f"models/{name}/history.csv").read_text().splitlines()) == 1 + phases * (96 // 32)
    assert (project / "reports/index.html").stat().st_size > 10_000
    assert (project / "data/rejects.csv").read_text().splitlines() == ["source,reason"]


@pytest.mark.parametrize("name", sorted(RUNS))
def test_the_features_for_the_figures_are_those_behind_the_scores(project, name):
    """Of all test images here, in the order of the shards; the trained classifier makes the stored logits of them."""
    detector, _ = model_folder.load(project / f"models/{name}", torch.device("cpu"))
    table, stored = pq.read_table(project / f"data/features/{name}.parquet"), clean_logits(project, name)
    ids = table["image_id"].to_pylist()
    assert ids == sorted(stored)
    logit_B = detector.classify(torch.tensor(table["feature"].to_pylist())).tolist()
    assert dict(zip(ids, logit_B, strict=True)) == pytest.approx(stored, abs=1e-4)


def test_a_second_repro_runs_no_stage(project):
    assert "up to date" in run(project, "dvc", "repro")


def test_mlflow_shows_every_run_once_and_complete(project):
    for _ in range(2):
        run(project, "python", "stages/track.py")
    shown = runs_in_mlflow(project)
    assert set(shown) == RUNS
    for name, metrics in shown.items():
        assert metrics["ap"] == pytest.approx(summary(project)[name]["ap"])
        assert "loss" in " ".join(metrics)


def test_one_parameter_of_a_detector_retrains_that_detector_alone(project, tmp_path):
    """Here one that makes it ask for captions at inference: `nullscope predict` then writes those of the pipeline itself."""
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, symlinks=True)
    own = ["detectors.ns_net.null_space.scope=sample", "detectors.ns_net.null_space.rank=null"]
    ran = stages_run(run(clone, "dvc", "exp", "run", *overrides(*SMALL, *own)))
    assert ran == ["pages", "train@ns_net-0", "score@ns_net-0", "evaluate@ns_net-0", "report"]  # pages: no copy changes
    expected = scored(clone, "ns_net-0")
    images = sorted(expected)[::9]
    assert predicted(clone, "ns_net-0", images) == pytest.approx({image: expected[image] for image in images}, abs=1e-4)


def test_an_edited_page_retrains_its_detector_alone(project, tmp_path):
    """A comment is an edit too; as the weights come out the same, nothing is evaluated or reported again."""
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, symlinks=True)
    weights = (clone / "models/dgs_net-0/weights.safetensors").read_bytes()
    with open(clone / "src/nullscope/detectors/dgs_net.py", "a", encoding="utf-8") as page:
        page.write("# edited\n")
    assert stages_run(run(clone, "dvc", "repro")) == ["pages", "train@dgs_net-0", "score@dgs_net-0"]
    assert (clone / "models/dgs_net-0/weights.safetensors").read_bytes() == weights
    assert "up to date" in run(clone, "dvc", "repro")


def test_another_machine_pulls_and_computes_nothing(project, tmp_path):
    """Share: push here, clone and pull there; the results appear in that machine's MLflow too."""
    run(project, "dvc", "remote", "add", "--force", "--default", "--local", "shelf", str(tmp_path / "shelf"))
    run(project, "dvc", "push")
    run(tmp_path, "git", "clone", "-q", str(project), "second")
    second = tmp_path / "second"
    run(second, "dvc", "remote", "add", "--default", "--local", "shelf", str(tmp_path / "shelf"))
    run(second, "dvc", "pull")
    assert "up to date" in run(second, "dvc", "repro")
    run(second, "python", "stages/track.py")
    assert set(runs_in_mlflow(second)) == RUNS


def test_the_trained_detector_judges_files_as_the_pipeline_does(project):
    expected = scored(project, "ns_net-0")
    images = sorted(expected)[::20]
    assert len(images) >= 3
    assert predicted(project, "ns_net-0", images) == pytest.approx({image: expected[image] for image in images}, abs=1e-4)


def test_everything_deleted_and_made_again_is_the_same_to_the_byte(project, tmp_path):
    """The law DVC's cache rests on: another folder, one worker instead of all, no cache: the same dvc.lock."""
    again = tmp_path / "again"
    run(tmp_path, "git", "clone", "-q", str(project), "again")
    lock = (again / "dvc.lock").read_text()
    for name in MADE:
        assert not (again / name).exists()
    ran = stages_run(run(again, "dvc", "repro", NULLSCOPE_WORKERS="1", NULLSCOPE_TRACKING="off"))
    assert {"world@embedded", "encoders", "index", "caption", "shard", "embed", "report"} <= set(ran)
    assert (again / "dvc.lock").read_text() == lock


def test_two_ranks_score_and_caption_alike(project, tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, symlinks=True)
    lock = (clone / "dvc.lock").read_text()
    forced = ["dvc", "repro", "--single-item", "--force", "--no-run-cache"]
    for stage in ("caption", "embed", "shard", "score@ns_net-0"):
        run(clone, *forced, stage, NULLSCOPE_RANKS="2")
    assert (clone / "dvc.lock").read_text() == lock


def test_a_folder_of_bad_images_goes_through_or_is_listed(project, tmp_path):
    """Good sources and the whole zoo of bad files, with names DVC itself cannot hold: nothing crashes, nothing is lost.

    The detector is one that another page's preset makes: it goes through under its own name.
    """
    from images.bad_images import bad_files, good_files, write_files

    clone, images = tmp_path / "clone", tmp_path / "images"
    shutil.copytree(project, clone, symlinks=True)
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


def test_mistakes_end_in_one_clear_line(project, tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, symlinks=True)
    unknown = run(clone, "python", "stages/train.py", "nsnet", "0", status=1)
    assert "error: " in unknown and "ns_net" in unknown and "Traceback" not in unknown
    params = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(params.replace("bce_weight: 0.2", "bce_weight: high"))
    mistyped = run(clone, "python", "stages/train.py", "ns_net", "0", status=1)
    assert "bce_weight" in mistyped and "high" in mistyped and "Traceback" not in mistyped
