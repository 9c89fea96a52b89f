"""A small project as the stages leave it: two detectors, two seeds, five test subsets, and the files the report reads."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from nullscope.contracts import CLEAN, FAKE, INDEX, REAL, SCORES
from nullscope.data.tables import write_table

SUBSETS = {"camera": 0.0, "vae": 2.5, "unet": 1.6, "vq": -0.2, "shuffle": 0.7}  # by how much the fakes' logits lie higher
TRAINED = ("vae", "unet")
SKILL = {"ns_net": 1.2, "clip_lora": 0.8}
IMAGES = 60  # of each subset


@pytest.fixture(scope="session")
def make_project():
    """Return the function that fills a folder with the synthetic project."""
    return write_project


def write_project(root: Path) -> Path:
    """Write everything that `evaluate` and `report` read, and return ``root``."""
    rows = [(split, subset, number) for split in ("train", "test") for subset in SUBSETS for number in range(IMAGES)]
    rows = [row for row in rows if row[0] == "test" or row[1] in ("camera", *TRAINED)]
    (root / "params.yaml").parent.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(f"run:\n  detectors: {json.dumps(list(SKILL))}\n  seeds: [0, 1]\n", encoding="utf-8")
    write_index(root, rows)
    for name in SKILL:
        for seed in (0, 1):
            write_scores(root, name, seed, [row for row in rows if row[0] == "test"])
            write_model(root, name, seed)
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


def write_scores(root: Path, name: str, seed: int, rows: list[tuple[str, str, int]]) -> None:
    rng = np.random.default_rng([seed, len(name)])
    records = []
    for row in rows:
        logit = 1.5 * rng.normal() - 1.8 + (row[1] != "camera") * (1 + SKILL[name] * SUBSETS[row[1]])
        label = REAL if row[1] == "camera" else FAKE
        identity = {"image_id": image_id(*row), "subset": row[1], "label": label}
        records.append({**identity, "degradation": CLEAN, "logit": logit})
    write_table(root / f"scores/{name}-{seed}.parquet", pa.Table.from_pylist(records, SCORES), SCORES)


def write_model(root: Path, name: str, seed: int) -> None:
    folder = root / f"models/{name}-{seed}"
    folder.mkdir(parents=True)
    params = {"lr": 0.0005, "lora": {"rank": 6, "dropout": 0.8}, "epochs": 3}
    facts = {"detector": name, "seed": seed, "params": params, "patches": {"patch_px": 16, "grid": 7, "fill": "repeat"}}
    (folder / "detector.json").write_text(json.dumps(facts), encoding="utf-8")
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
