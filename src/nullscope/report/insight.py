"""Reading what the section "What the detectors look at" needs: features, captions, and scores by the colour of the object.

Only test images, and for the classifier of captions the training captions beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from nullscope.core import lanes
from nullscope.core.contracts import CAPTIONS, FAKE, ContractError, feature_schema, text_schema
from nullscope.evaluation.scores import read_test_scores
from nullscope.evaluation.semantics import Basis, Semantics, compare
from nullscope.evaluation.separation import CaptionsAlone, FeatureMap, Features, captions_alone, feature_map
from nullscope.evaluation.shortcut import Coloured, Shortcut, chance_half_width, effect
from nullscope.report.project import Models, Project
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_batches, read_table, vector_width, vectors_of
from nullscope.world.colours import is_fake_colour

SHOWN = 8  # detectors whose features are drawn
CAPTIONS_READ = 10_000  # of each split: the tables are in the order of the images' hashes, so the first are a fair sample
PROBE = "linear_probe"  # the method whose features are CLIP's own
BASIS = "null_space.basis_DK"

Vectors = tuple[list[str], NDArray[np.float32]]  # N image_ids, (N, K)


def read_feature_maps(project: Project, seen: frozenset[str]) -> dict[str, FeatureMap]:
    """Return the maps of the features of the first `SHOWN` detectors, first seed. ``seen``: `metrics.seen_subsets`."""
    names = list(project.runs)[:SHOWN]
    return dict(zip(names, lanes.each(feature_map, _read_features(project, names, seen)), strict=True))


def read_captions_alone(project: Project) -> CaptionsAlone | None:
    """Return how well the captions alone tell real from fake; None where a split holds one kind only."""
    (train_ids, train_ND), (test_ids, test_ND) = (
        _read_vectors(project.root / f"data/text/{split}.parquet", "text", text_schema, most=CAPTIONS_READ)
        for split in ("train", "test")
    )
    train_is_fake_N, test_is_fake_N = (
        np.array([is_fake for is_fake, _ in _read_labels(project, split, ids)], bool)
        for split, ids in (("train", train_ids), ("test", test_ids))
    )
    return captions_alone(train_ND, train_is_fake_N, test_ND, test_is_fake_N)


def read_semantics(project: Project, models: Models, seen: frozenset[str]) -> Semantics | None:
    """Return NS-Net's figure 1; None without a frozen probe, a detector with a global null space, or enough images."""
    probe, basis = find_probe(models), _read_basis(project, models)
    if not probe or not basis:
        return None
    (features,) = _read_features(project, [probe], seen)
    _, text_ND = _read_vectors(project.root / "data/text/test.parquet", "text", text_schema, wanted=features.image_ids)
    return compare(probe, models[probe]["params"]["input"], features, text_ND, basis)


def read_shortcut(project: Project) -> Shortcut | None:
    """Return how far the colour of the object moves the scores of every run; None for another data set than the world."""
    if not project.section("pipeline.world"):
        return None
    captions = read_table(project.root / "data/captions.parquet", CAPTIONS)
    colours = pa.array([is_fake_colour(caption) for caption in captions["caption"].to_pylist()], pa.bool_())
    effects: dict[str, dict[str, float]] = {}
    for shown, run in project.all_runs.items():
        rows = read_test_scores(project.root / f"scores/{run}.parquet", clean_only=True)
        fake_colour_N = colours.take(pc.index_in(rows["image_id"], captions["image_id"]).combine_chunks())
        known = rows.filter(pc.is_valid(fake_colour_N))
        coloured = Coloured(
            is_fake_N=known["label"].to_numpy() == FAKE,
            is_fake_colour_N=fake_colour_N.drop_null().to_numpy(zero_copy_only=False),
            subset_N=known["subset"].to_numpy().astype(str),
            logit_N=known["logit"].to_numpy(),
        )
        effects[shown] = effect(coloured)
    share = project.section("dataset.world.shortcut")  # every run scores the same pictures, so the counts of the last are all's
    return Shortcut(share, effects, len(known), len(rows) - len(known), chance_half_width(coloured))


def find_probe(models: Models) -> str | None:
    """Return the detector whose features are CLIP's own, one that sees whole images if there are several; None without one."""
    own = [name for name, model in models.items() if model["params"].get("method", name) == PROBE and _scope(model) == "none"]
    return min(own, key=lambda name: models[name]["params"]["input"] == "patches", default=None)


def _read_basis(project: Project, models: Models) -> Basis | None:
    """Return the directions that the first detector with a global null space removes; None without one."""
    name = next((name for name, model in models.items() if _scope(model) == "global"), None)
    if name is None:
        return None
    path = project.root / f"models/{project.runs[name][0]}/weights.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            return Basis(name, file.get_tensor(BASIS))
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it (stage `train`)") from None
    except SafetensorError as error:
        raise ContractError(f"{path}: expected the tensor {BASIS} ({error}); delete it and run `dvc repro`") from None


def _scope(model: dict[str, Any]) -> str | None:
    return model["params"].get("null_space", {}).get("scope")


def _read_features(project: Project, names: Sequence[str], seen: frozenset[str]) -> list[Features]:
    """Return the features of the first seed of each detector. Raises `ContractError` if one is not of a test image."""
    paths = [project.root / f"data/features/{project.runs[name][0]}.parquet" for name in names]
    vectors = [_read_vectors(path, "feature", feature_schema) for path in paths]
    labels = iter(_read_labels(project, "test", [image_id for image_ids, _ in vectors for image_id in image_ids]))
    found = []
    for image_ids, feature_NK in vectors:
        own = [next(labels) for _ in image_ids]
        is_fake_N, is_seen_N = np.array([fake for fake, _ in own], bool), np.array([subset in seen for _, subset in own], bool)
        found.append(Features(image_ids, feature_NK, is_fake_N, is_seen_N))
    return found


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


def _read_labels(project: Project, split: str, image_ids: Sequence[str]) -> list[tuple[bool, str]]:
    """Return for each image whether it is fake, and its subset. Raises `ContractError` on one that is not in the split."""
    path, wanted, facts = project.root / "data/index.parquet", pa.array(set(image_ids), pa.string()), {}
    for batch in read_batches(path, INDEX):
        own = batch.filter(pc.and_(pc.equal(batch["split"], split), pc.is_in(batch["image_id"], wanted)))
        rows = zip(*(own[name].to_pylist() for name in ("image_id", "label", "subset")), strict=True)
        facts |= {image_id: (label == FAKE, subset) for image_id, label, subset in rows}
    missing = [image_id for image_id in image_ids if image_id not in facts]
    if missing:
        raise ContractError(
            f"{path}: expected every image with features in the split {split}, found no {missing[0]!r}; run `dvc repro`"
        )
    return [facts[image_id] for image_id in image_ids]
