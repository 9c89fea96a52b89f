"""What the section "What the detectors look at" is made of: features, captions, and the scores by colour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from nullscope.core.config import section_of
from nullscope.core.contracts import CAPTIONS, CLEAN, FAKE, INDEX, SCORES, ContractError, feature_schema, text_schema
from nullscope.report.semantics import Basis, Semantics, compare
from nullscope.report.separation import CaptionsAlone, Features, captions_alone
from nullscope.report.shortcut import Coloured, Shortcut, chance_half_width, effect, fake_colour
from nullscope.tables.parquet import read_batches, read_table, vector_width, vectors_of

SHOWN = 8  # detectors whose features are drawn
CAPTIONS_READ = 10_000  # of each split: the tables are in the order of the images' hashes, so the first are a fair sample
PROBE = "linear_probe"  # the page of the detector whose features are CLIP's own
BASIS = "null_space.basis_DK"

Runs = dict[str, list[str]]  # detector -> <detector>-<seed> of every seed
Models = dict[str, dict[str, Any]]  # detector -> detector.json of its first seed
Vectors = tuple[list[str], NDArray[np.float32]]  # image_ids, (N, K)


@dataclass(frozen=True)
class Insight:
    """What the detectors look at, as far as it can be told."""

    features: dict[str, Features]  # of the first seed of the first `SHOWN` detectors
    captions: CaptionsAlone | None  # none where a split holds one kind only
    semantics: Semantics | None  # none without a frozen probe, a global null space or enough images
    shortcut: Shortcut | None  # of the embedded world only


def read_insight(root: Path, params: dict[str, Any], runs: Runs, models: Models, seen: frozenset[str]) -> Insight:
    """Read all of it under the project's ``root``. Raises `ValueError` naming the first file that is missing or wrong."""
    probe, basis = _find_probe(models), _read_basis(root, runs, models)
    shown = {*list(runs)[:SHOWN], *([probe] if probe else [])}
    vectors = {
        name: _read_vectors(root / f"data/features/{runs[name][0]}.parquet", "feature", feature_schema)
        for name in runs
        if name in shown
    }
    texts = [
        _read_vectors(root / f"data/text/{split}.parquet", "text", text_schema, most=CAPTIONS_READ) for split in ("train", "test")
    ]
    labels = _Labels(root / "data/index.parquet", [ids for ids, _ in (*vectors.values(), *texts)], seen)
    features = {name: Features(ids, rows, labels.is_fake(ids), labels.is_seen(ids)) for name, (ids, rows) in vectors.items()}
    (train_ids, train_ND), (test_ids, test_ND) = texts
    semantics = None
    if probe and basis:
        own = features[probe]
        _, text_ND = _read_vectors(root / "data/text/test.parquet", "text", text_schema, wanted=own.image_ids)
        semantics = compare(probe, models[probe]["params"]["input"], own, text_ND, basis)
    return Insight(
        features={name: features[name] for name in list(runs)[:SHOWN]},
        captions=captions_alone(train_ND, labels.is_fake(train_ids), test_ND, labels.is_fake(test_ids)),
        semantics=semantics,
        shortcut=_read_shortcut(root, params, runs) if section_of(params, "pipeline.world") else None,
    )


def _find_probe(models: Models) -> str | None:
    """Return the detector whose features are CLIP's own: of whole images rather than of mosaics, if there is the choice."""
    own = [name for name, model in models.items() if model["params"].get("method", name) == PROBE and _scope(model) == "none"]
    return min(own, key=lambda name: models[name]["params"]["input"] == "patches", default=None)


def _read_basis(root: Path, runs: Runs, models: Models) -> Basis | None:
    """Return what the first detector with a global null space removes."""
    name = next((name for name, model in models.items() if _scope(model) == "global"), None)
    if name is None:
        return None
    path = root / f"models/{runs[name][0]}/weights.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            return Basis(name, file.get_tensor(BASIS))
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it (stage `train`)") from None
    except SafetensorError as error:
        raise ContractError(f"{path}: expected the tensor {BASIS} ({error}); delete it and run `dvc repro`") from None


def _scope(model: dict[str, Any]) -> str | None:
    return model["params"].get("null_space", {}).get("scope")


def _read_shortcut(root: Path, params: dict[str, Any], runs: Runs) -> Shortcut:
    captions = read_table(root / "data/captions.parquet", CAPTIONS)
    colours = pa.array([fake_colour(caption) for caption in captions["caption"].to_pylist()], pa.bool_())
    effects: dict[str, dict[str, float]] = {}
    for run in (run for own in runs.values() for run in own):
        rows = read_table(root / f"scores/{run}.parquet", SCORES)
        rows = rows.filter(pc.equal(rows["degradation"], CLEAN))
        fake_colour_N = colours.take(pc.index_in(rows["image_id"], captions["image_id"]).combine_chunks())
        known = rows.filter(pc.is_valid(fake_colour_N))
        coloured = Coloured(
            is_fake_N=known["label"].to_numpy() == FAKE,
            is_fake_colour_N=fake_colour_N.drop_null().to_numpy(zero_copy_only=False),
            subset_N=known["subset"].to_numpy().astype(str),
            logit_N=known["logit"].to_numpy(),
        )
        effects[run] = effect(coloured)
    share = section_of(params, "dataset.world.shortcut")  # every run scores the same pictures, so the last counts for all
    return Shortcut(share, effects, len(known), len(rows) - len(known), chance_half_width(coloured))


def _read_vectors(
    path: Path,
    column: str,
    schema_of: Callable[[int], pa.Schema],
    *,
    wanted: Sequence[str] | None = None,
    most: int | None = None,
) -> Vectors:
    """Return the features of all images, of those ``wanted`` in their order, or of the first ``most``."""
    schema = schema_of(vector_width(path, column))
    parts, rows = [], 0
    for batch in read_batches(path, schema):
        parts.append(batch if wanted is None else batch.filter(pc.is_in(batch["image_id"], pa.array(wanted, pa.string()))))
        rows += batch.num_rows
        if most is not None and rows >= most:
            break
    table = pa.Table.from_batches(parts, schema).slice(0, most)
    if wanted is not None:
        place = pc.index_in(pa.array(wanted, pa.string()), table["image_id"].combine_chunks())
        if place.null_count:
            raise ContractError(f"{path}: {place.null_count} of {len(wanted)} images are missing; rerun `caption` and `embed`")
        table = table.take(place)
    return table["image_id"].to_pylist(), vectors_of(table, column)


class _Labels:
    """What the index says of some images; a test row counts more than a training row of the same image."""

    def __init__(self, index: Path, groups: Iterable[list[str]], seen: frozenset[str]) -> None:
        wanted = pa.array(sorted({image_id for ids in groups for image_id in ids}), pa.string())
        self.path, self.facts = index, {}
        for batch in read_batches(index, INDEX):
            own = batch.filter(pc.is_in(batch["image_id"], wanted)).select(["image_id", "split", "subset", "label"])
            for image_id, split, subset, label in zip(*(column.to_pylist() for column in own.columns), strict=True):
                if split == "test" or image_id not in self.facts:
                    self.facts[image_id] = (label == FAKE, subset in seen)

    def is_fake(self, image_ids: list[str]) -> NDArray[np.bool_]:
        """Return the labels of some images. Raises `ContractError` on one that the index does not know."""
        return self._column(image_ids, 0)

    def is_seen(self, image_ids: list[str]) -> NDArray[np.bool_]:
        """Return whether each is of a subset whose generator was trained on."""
        return self._column(image_ids, 1)

    def _column(self, image_ids: list[str], at: int) -> NDArray[np.bool_]:
        try:
            return np.array([self.facts[image_id][at] for image_id in image_ids], bool)
        except KeyError as error:
            raise ContractError(f"{self.path}: no image {error}; another index made the features; run `dvc repro`") from None
