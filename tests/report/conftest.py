"""A small project as the stages leave it: three detectors, two seeds, five test subsets, and the files the report reads.

What a picture shows is its number: six colours in turn, and no colour or two of them now and then. The logits of the plain
clip_lora lean on the colour. Features hold what the caption says beside what tells real from fake. Degraded images are harder and
look real.

`PLAIN` is that project. `PAPERS` is another one: the subsets of a benchmark that the papers print, fakes in files of their own
format, official weights, a subset that the data set lacks.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from safetensors.numpy import save_file

from nullscope.core.contracts import CAPTIONS, CLEAN, FAKE, REAL, SCORES, feature_schema, text_schema
from nullscope.core.files import sha256, write_json
from nullscope.core.runs import Run
from nullscope.evaluation.file_bias import measure_file_bias
from nullscope.evaluation.protocol import evaluate_with_resamples
from nullscope.evaluation.scores import read_test_scores, read_val_scores, with_origins
from nullscope.report.build import build_report
from nullscope.report.page import write_report
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_table, write_table
from nullscope.world.scenes import COLOURS

STAGES = Path(__file__).parents[2] / "stages"
DEGRADED = {"jpeg_75": (0.4, -0.8), "blur_1.0": (0.7, -0.3)}  # what is left of a logit, and what is added to it
SEEDS = (0, 1)
SKILL = {"ns_net": 1.2, "clip_lora": 0.8, "probe": 0.5}
LEANS = {"ns_net": 0.0, "clip_lora": 1.5, "probe": 0.0}  # by how much a colour of the fakes raises the logit
OWN = {"ns_net": {"null_space": {"scope": "global", "rank": 6}}, "clip_lora": {"null_space": {"scope": "none", "rank": None}}}
OWN |= {"probe": {"method": "linear_probe", "input": "crop", "null_space": {"scope": "none", "rank": None}, "lr": 0.01}}
SHARE = 0.75  # of the training pictures
IMAGES = 60  # of each subset
MEANING = len(COLOURS)  # the first numbers of a feature
WEIGHTS = "weights.safetensors"
FILE = {"width": 128, "height": 128, "format": "JPEG", "bytes": 5000, "jpeg_quality": 90}


@dataclass(frozen=True)
class Plan:
    """What the synthetic project is of. The first subset holds the reals, the others fakes."""

    dataset: str
    subsets: dict[str, float]  # by how much the fakes' logits lie higher
    trained: tuple[str, ...]
    fake_file: dict[str, object] = field(default_factory=dict)  # in what the fakes' files differ from the reals'
    official: tuple[str, ...] = ()  # whose weights were not trained here: one run each, without a seed
    unexpected: dict[str, object] = field(default_factory=dict)  # as metrics/index.json has it

    @property
    def runs(self) -> list[Run]:
        """Every run, those that were trained first."""
        trained = [name for name in SKILL if name not in self.official]
        return [*(Run(name, seed) for name in trained for seed in SEEDS), *(Run(name, None) for name in self.official)]

    @property
    def real(self) -> str:
        """The name of the subset of reals."""
        return next(iter(self.subsets))


PLAIN = Plan("world", {"camera": 0.0, "vae": 2.5, "unet": 1.6, "vq": -0.2, "shuffle": 0.7}, ("vae", "unet"))
DIFFUSION = ("guided", "glide_50_27", "glide_100_10", "glide_100_27", "ldm_100", "ldm_200", "ldm_200_cfg", "dalle")
PAPERS = Plan(
    "universal_fake_detect",
    {"laion": 0.0, **{name: 2.4 - 0.3 * at for at, name in enumerate(DIFFUSION)}},
    DIFFUSION[:2],
    fake_file={"format": "PNG", "bytes": 30_000, "jpeg_quality": None},
    official=("probe",),
    unexpected={"test": {"imagenet": {"real": 0, "fake": 0, "real_published": 1000, "fake_published": 0}}},
)


@pytest.fixture(scope="session")
def make_project():
    """Return the function that fills a folder with the synthetic project."""
    return write_project


@pytest.fixture(scope="session")
def stage():
    """Return the function that runs a stage in a project, with every warning an error."""
    return run_stage


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A project after `evaluate` and `report`, and what `report` printed: (root, text)."""
    root = write_project(tmp_path_factory.mktemp("project"))
    first, *others = PLAIN.runs
    done = run_stage(root, "evaluate", first.name)
    assert done.returncode == 0, done.stderr
    for run in others:
        evaluate_run(root, run.name, PLAIN)
    write_json(root / "metrics/audit.json", measure_file_bias(read_table(root / "data/index.parquet", INDEX)))
    done = run_stage(root, "report")
    assert done.returncode == 0, done.stderr
    return root, done.stdout


@pytest.fixture(scope="session")
def papers_project(tmp_path_factory):
    """The root of a project on a benchmark of the papers, with a report."""
    root = write_project(tmp_path_factory.mktemp("papers"), PAPERS)
    for run in PAPERS.runs:
        evaluate_run(root, run.name, PAPERS)
    write_json(root / "metrics/audit.json", measure_file_bias(read_table(root / "data/index.parquet", INDEX)))
    (root / "reports").mkdir()
    write_report(build_report(root), root / "reports")
    return root


@pytest.fixture
def project_copy(project, tmp_path):
    """A copy of the project, to break."""
    return Path(shutil.copytree(project[0], tmp_path / "copy"))


def evaluate_run(root: Path, run: str, plan: Plan) -> None:
    """As the stage does, without the seconds of a start."""
    path, index = root / f"scores/{run}.parquet", read_table(root / "data/index.parquet", INDEX)
    rows = with_origins(read_test_scores(path), index)
    metrics, resamples = evaluate_with_resamples(rows, frozenset(plan.trained), val=read_val_scores(path))
    write_json(root / f"metrics/{run}.json", metrics)
    write_table(root / f"data/evaluated/{run}.parquet", resamples, resamples.schema)


def run_stage(root: Path, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, "-W", "error", str(STAGES / f"{name}.py"), *arguments], os.environ | environment
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


def write_project(root: Path, plan: Plan = PLAIN) -> Path:
    """Write everything that `evaluate` and `report` read, and return ``root``."""
    rows = [(split, subset, number) for split in ("train", "test") for subset in plan.subsets for number in range(IMAGES)]
    rows = [row for row in rows if row[0] == "test" or row[1] in (plan.real, *plan.trained)]
    tests = [row for row in rows if row[0] == "test"]
    root.mkdir(parents=True, exist_ok=True)
    world = {"shortcut": SHARE} if plan is PLAIN else None
    params = {
        "run": {
            "detectors": [name for name in SKILL if name not in plan.official],
            "seeds": list(SEEDS),
            "official": list(plan.official),
        },
        "dataset": {"name": plan.dataset, "reals": {}, "world": world},
    }
    params |= {"shard": {"prepare": []}, "pipeline": {"world": ["embedded"] if world else []}}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    write_index(root, rows, plan)
    write_captions(root, rows)
    for run in plan.runs:
        write_scores(root, run, tests, plan)
        write_model(root, run, plan)
        write_features(root, run.name, tests, plan)
    write_shards(root, plan)
    return root


def image_id(split: str, subset: str, number: int) -> str:
    """Return a made-up id of the right form."""
    return hashlib.sha256(f"{split} {subset} {number}".encode()).hexdigest()


def write_index(root: Path, rows: list[tuple[str, str, int]], plan: Plan) -> None:
    records = []
    for split, subset, number in rows:
        label = REAL if subset == plan.real else FAKE
        facts = FILE if label == REAL else FILE | plan.fake_file
        identity = {"image_id": image_id(split, subset, number), "split": split, "subset": subset, "label": label}
        generator = "real" if label == REAL else subset
        source_of_real = ("phone", "scan")[number % 2] if label == REAL else None
        origin = {"generator": generator, "source": f"{split}/{subset}/{number}.jpg", "source_of_real": source_of_real}
        records.append({**identity, **origin, **facts})
    write_table(root / "data/index.parquet", pa.Table.from_pylist(records, INDEX), INDEX)
    refused = "source,reason\na/tiny.png,5x5 px: a side is too short\na/small.png,7x9 px: a side is too short\n"
    (root / "data/rejects.csv").write_text(refused + "a/broken.jpg,truncated\n", encoding="utf-8")
    (root / "metrics").mkdir(exist_ok=True)
    counts = {"images": len(records), "duplicates": 4, "leakage": 0, "refused": 3, "ignored": {}, "unexpected": plan.unexpected}
    (root / "metrics/index.json").write_text(json.dumps(counts), encoding="utf-8")


def caption(number: int) -> str:
    """Return what BLIP says of a picture: most of its captions name one colour."""
    if number in (57, 58):
        return "a circle on sand" if number == 57 else "a red circle beside a green one"
    return f"a small {COLOURS[number % MEANING]} circle on sand before sky"


def write_captions(root: Path, rows: list[tuple[str, str, int]]) -> None:
    said = sorted((image_id(*row), caption(row[2])) for row in rows)
    columns = [list(column) for column in zip(*said, strict=True)]
    write_table(root / "data/captions.parquet", pa.table(columns, schema=CAPTIONS), CAPTIONS)
    for split in ("train", "test"):
        own = sorted((image_id(*row), row[2]) for row in rows if row[0] == split)
        text_ND = np.eye(2 * MEANING, dtype=np.float32)[[number % MEANING for _, number in own]]
        write_vectors(root / f"data/text/{split}.parquet", text_schema(2 * MEANING), [key for key, _ in own], text_ND)


def write_features(root: Path, run: str, rows: list[tuple[str, str, int]], plan: Plan) -> None:
    """A feature is the colour, strong and clear, and the subset's trace, weak and noisy; in the shards' own order."""
    rng = np.random.default_rng(len(run))
    shown = sorted(rows, key=lambda row: image_id(*row)[::-1])[::2]
    meaning = 3 * np.eye(MEANING)[[number % MEANING for *_, number in shown]]
    trace = rng.normal(size=(len(shown), MEANING)) + np.array([[plan.subsets[subset]] for _, subset, _ in shown])
    ids = [image_id(*row) for row in shown]
    features = np.hstack([meaning, trace]).astype(np.float32)
    write_vectors(root / f"data/features/{run}.parquet", feature_schema(2 * MEANING), ids, features)


def write_vectors(path: Path, schema: pa.Schema, ids: list[str], rows_NK: np.ndarray) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows_NK.reshape(-1)), rows_NK.shape[1])
    write_table(path, pa.table([ids, column], schema=schema), schema)


def write_scores(root: Path, run: Run, rows: list[tuple[str, str, int]], plan: Plan) -> None:
    name = run.detector
    rng = np.random.default_rng([run.seed or 0, len(name)])
    records = []
    for row in rows:
        logit = 1.5 * rng.normal() - 1.8 + (row[1] != plan.real) * (1 + SKILL[name] * plan.subsets[row[1]])
        logit += LEANS[name] * (row[2] % MEANING >= MEANING // 2)
        label = REAL if row[1] == plan.real else FAKE
        identity = {"image_id": image_id(*row), "split": "test", "subset": row[1], "label": label}
        records.append({**identity, "degradation": CLEAN, "logit": logit})
    for kind, (left, added) in DEGRADED.items():
        noise = iter(0.7 * rng.normal(size=len(rows)))
        records += [
            clean | {"degradation": kind, "logit": left * clean["logit"] + added + next(noise)} for clean in records[: len(rows)]
        ]
    write_table(root / f"scores/{run.name}.parquet", pa.Table.from_pylist(records, SCORES), SCORES)


def write_model(root: Path, run: Run, plan: Plan) -> None:
    name, seed, folder = run.detector, run.seed or 0, root / f"models/{run.name}"
    folder.mkdir(parents=True)
    params = {"lr": 0.0005, "lora": {"rank": 6, "dropout": 0.8}, "epochs": 3, "input": "patches", **OWN[name]}
    facts = {"detector": name, "seed": seed, "params": params, "patches": {"patch_px": 16, "grid": 7, "fill": "repeat"}}
    facts |= {"prepare": [], "dataset": plan.dataset, "weights": "official" if run.is_official else "retrained"}
    (folder / "detector.json").write_text(json.dumps(facts), encoding="utf-8")
    save_file(
        {"null_space.basis_DK": np.eye(2 * MEANING, MEANING if name == "ns_net" else 0, dtype=np.float32)}, folder / WEIGHTS
    )
    if run.is_official:
        return
    rng, lines = np.random.default_rng(seed), ["step,epoch,phase,loss,bce,contrastive,val_ap"]
    for step in range(120):
        bce = 0.7 * np.exp(-step / 40) + 0.02 * rng.random()
        contrastive = "" if step < 40 else f"{0.5 - step / 400:.6g}"
        phase, total = "probe" if step < 40 else "lora", bce + float(contrastive or 0)
        val_ap = f"{0.6 + step / 400:.6g}" if step % 40 == 39 else ""
        lines.append(f"{step},{step // 40},{phase},{total:.6g},{bce:.6g},{contrastive},{val_ap}")
    (folder / "history.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_shards(root: Path, plan: Plan) -> None:
    rng = np.random.default_rng(0)
    for view, suffix, kind in (("images", "jpg", "JPEG"), ("patches", "webp", "WEBP")):
        folder = root / f"data/shards/{view}/test"
        folder.mkdir(parents=True)
        with tarfile.open(folder / "test-000000.tar", "w") as tar:
            for label, subset in ((FAKE, list(plan.subsets)[1]), (FAKE, list(plan.subsets)[-2]), (REAL, plan.real)):
                side, buffer = (128, io.BytesIO()) if view == "images" else (112, io.BytesIO())
                pixels = np.kron(rng.integers(0, 256, (side // 16, side // 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
                Image.fromarray(pixels).save(buffer, kind)
                key = image_id("test", subset, 0)
                facts = json.dumps({"image_id": key, "label": label}).encode()
                for name, data in ((f"{key}.{suffix}", buffer.getvalue()), (f"{key}.json", facts)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        listed = {"name": "test-000000.tar", "samples": 3, "sha256": sha256(folder / "test-000000.tar")}
        write_json(folder / "shards.json", {"shards": [listed]})


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(items):
    """What needs the report of a whole project is slow: the first test that asks for it waits half a minute."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and {"project", "papers_project"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
