"""A small project as the stages leave it: three detectors, two seeds, five test subsets, and the files the report reads.

What a picture shows is its number: six colours in turn, and no colour or two of them now and then. The logits of the plain
clip_lora lean on the colour. Features hold what the caption says beside what tells real from fake.
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
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from safetensors.numpy import save_file

from nullscope.audit import audit
from nullscope.contracts import CAPTIONS, CLEAN, FAKE, INDEX, REAL, SCORES, feature_schema, text_schema
from nullscope.data.tables import read_table, write_table
from nullscope.files import write_json
from nullscope.metrics import evaluate_with_resamples
from nullscope.world.scenes import COLOURS

STAGES = Path(__file__).parents[2] / "stages"
SUBSETS = {"camera": 0.0, "vae": 2.5, "unet": 1.6, "vq": -0.2, "shuffle": 0.7}  # by how much the fakes' logits lie higher
TRAINED = ("vae", "unet")
SKILL = {"ns_net": 1.2, "clip_lora": 0.8, "probe": 0.5}
LEANS = {"ns_net": 0.0, "clip_lora": 1.5, "probe": 0.0}  # by how much a colour of the fakes raises the logit
OWN = {"ns_net": {"null_space": {"scope": "global", "rank": 6}}, "clip_lora": {"null_space": {"scope": "none", "rank": None}}}
OWN |= {"probe": {"page": "linear_probe", "view": "crop", "null_space": {"scope": "none", "rank": None}, "lr": 0.01}}
SHARE = 0.75  # of the training pictures
IMAGES = 60  # of each subset
MEANING = len(COLOURS)  # the first numbers of a feature
WEIGHTS = "weights.safetensors"


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
    runs = [f"{name}-{seed}" for name in SKILL for seed in (0, 1)]
    done = run_stage(root, "evaluate", runs[0])
    assert done.returncode == 0, done.stderr
    for run in runs[1:]:  # as the stage does, without the seconds of a start
        metrics, resamples = evaluate_with_resamples(read_table(root / f"scores/{run}.parquet", SCORES), frozenset(TRAINED))
        write_json(root / f"metrics/{run}.json", metrics)
        write_table(root / f"data/evaluated/{run}.parquet", resamples, resamples.schema)
    write_json(root / "metrics/audit.json", audit(read_table(root / "data/index.parquet", INDEX)))
    done = run_stage(root, "report")
    assert done.returncode == 0, done.stderr
    return root, done.stdout


@pytest.fixture
def project_copy(project, tmp_path):
    """A copy of the project, to break."""
    return Path(shutil.copytree(project[0], tmp_path / "copy"))


def run_stage(root: Path, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, "-W", "error", str(STAGES / f"{name}.py"), *arguments], os.environ | environment
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


def write_project(root: Path) -> Path:
    """Write everything that `evaluate` and `report` read, and return ``root``."""
    rows = [(split, subset, number) for split in ("train", "test") for subset in SUBSETS for number in range(IMAGES)]
    rows = [row for row in rows if row[0] == "test" or row[1] in ("camera", *TRAINED)]
    (root / "params.yaml").parent.mkdir(parents=True, exist_ok=True)
    params = {"run": {"detectors": list(SKILL), "seeds": [0, 1]}, "dataset": {"name": "world", "world": {"shortcut": SHARE}}}
    params |= {"shard": {"prepare": []}}
    (root / "params.yaml").write_text(yaml.safe_dump(params | {"pipeline": {"world": ["embedded"]}}), encoding="utf-8")
    write_index(root, rows)
    write_captions(root, rows)
    for name in SKILL:
        for seed in (0, 1):
            write_scores(root, name, seed, [row for row in rows if row[0] == "test"])
            write_model(root, name, seed)
            write_features(root, f"{name}-{seed}", [row for row in rows if row[0] == "test"])
    write_shards(root)
    return root


def image_id(split: str, subset: str, number: int) -> str:
    """Return a made-up id of the right form."""
    return hashlib.sha256(f"{split} {subset} {number}".encode()).hexdigest()


def write_index(root: Path, rows: list[tuple[str, str, int]]) -> None:
    records = []
    for split, subset, number in rows:
        label = REAL if subset == "camera" else FAKE
        facts = {"width": 128, "height": 128, "format": "JPEG", "bytes": 5000, "jpeg_quality": 90}
        identity = {"image_id": image_id(split, subset, number), "split": split, "subset": subset, "label": label}
        generator = "real" if label == REAL else subset
        records.append({**identity, "generator": generator, "source": f"{split}/{subset}/{number}.jpg", **facts})
    write_table(root / "data/index.parquet", pa.Table.from_pylist(records, INDEX), INDEX)
    refused = "source,reason\na/tiny.png,5x5 px: a side is too short\na/small.png,7x9 px: a side is too short\n"
    (root / "data/rejects.csv").write_text(refused + "a/broken.jpg,truncated\n", encoding="utf-8")
    (root / "metrics").mkdir(exist_ok=True)
    counts = {"images": len(records), "duplicates": 4, "leakage": 0, "refused": 3, "ignored": {}}
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


def write_features(root: Path, run: str, rows: list[tuple[str, str, int]]) -> None:
    """A feature is the colour, strong and clear, and the subset's trace, weak and noisy; in the shards' own order."""
    rng = np.random.default_rng(len(run))
    shown = sorted(rows, key=lambda row: image_id(*row)[::-1])[::2]
    meaning = 3 * np.eye(MEANING)[[number % MEANING for *_, number in shown]]
    trace = rng.normal(size=(len(shown), MEANING)) + np.array([[SUBSETS[subset]] for _, subset, _ in shown])
    ids = [image_id(*row) for row in shown]
    features = np.hstack([meaning, trace]).astype(np.float32)
    write_vectors(root / f"data/features/{run}.parquet", feature_schema(2 * MEANING), ids, features)


def write_vectors(path: Path, schema: pa.Schema, ids: list[str], rows_NK: np.ndarray) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows_NK.reshape(-1)), rows_NK.shape[1])
    write_table(path, pa.table([ids, column], schema=schema), schema)


def write_scores(root: Path, name: str, seed: int, rows: list[tuple[str, str, int]]) -> None:
    rng = np.random.default_rng([seed, len(name)])
    records = []
    for row in rows:
        logit = 1.5 * rng.normal() - 1.8 + (row[1] != "camera") * (1 + SKILL[name] * SUBSETS[row[1]])
        logit += LEANS[name] * (row[2] % MEANING >= MEANING // 2)
        label = REAL if row[1] == "camera" else FAKE
        identity = {"image_id": image_id(*row), "subset": row[1], "label": label}
        records.append({**identity, "degradation": CLEAN, "logit": logit})
    write_table(root / f"scores/{name}-{seed}.parquet", pa.Table.from_pylist(records, SCORES), SCORES)


def write_model(root: Path, name: str, seed: int) -> None:
    folder = root / f"models/{name}-{seed}"
    folder.mkdir(parents=True)
    params = {"lr": 0.0005, "lora": {"rank": 6, "dropout": 0.8}, "epochs": 3, "view": "patches", **OWN[name]}
    facts = {"detector": name, "seed": seed, "params": params, "patches": {"patch_px": 16, "grid": 7, "fill": "repeat"}}
    (folder / "detector.json").write_text(json.dumps(facts), encoding="utf-8")
    save_file(
        {"null_space.basis_DK": np.eye(2 * MEANING, MEANING if name == "ns_net" else 0, dtype=np.float32)}, folder / WEIGHTS
    )
    rng, lines = np.random.default_rng(seed), ["step,epoch,phase,loss,bce,contrastive"]
    for step in range(120):
        bce = 0.7 * np.exp(-step / 40) + 0.02 * rng.random()
        contrastive = "" if step < 40 else f"{0.5 - step / 400:.6g}"
        phase, total = "probe" if step < 40 else "lora", bce + float(contrastive or 0)
        lines.append(f"{step},{step // 40},{phase},{total:.6g},{bce:.6g},{contrastive}")
    (folder / "history.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_shards(root: Path) -> None:
    rng = np.random.default_rng(0)
    for view, suffix, kind in (("images", "jpg", "JPEG"), ("patches", "webp", "WEBP")):
        folder = root / f"data/shards/{view}/test"
        folder.mkdir(parents=True)
        with tarfile.open(folder / "test-000000.tar", "w") as tar:
            for label, subset in ((FAKE, "vae"), (FAKE, "vq"), (REAL, "camera")):
                side, buffer = (128, io.BytesIO()) if view == "images" else (112, io.BytesIO())
                pixels = np.kron(rng.integers(0, 256, (side // 16, side // 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
                Image.fromarray(pixels).save(buffer, kind)
                key = image_id("test", subset, 0)
                facts = json.dumps({"image_id": key, "label": label}).encode()
                for name, data in ((f"{key}.{suffix}", buffer.getvalue()), (f"{key}.json", facts)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
