"""Which reals a subset is compared with: its own, the shared ones, or those it is given; the same for scores and for files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from nullscope.core.contracts import FAKE, REAL
from nullscope.evaluation.file_bias import measure_file_bias
from nullscope.evaluation.protocol import evaluate
from nullscope.evaluation.reals import reals_for
from nullscope.tables.index import INDEX

N_REAL = {"camera": 9, "guided": 0, "lens": 7, "mixed": 5}
N_FAKE = {"camera": 0, "guided": 8, "lens": 0, "mixed": 6}


def test_own_reals_come_before_shared_ones_and_named_ones_before_both():
    found = reals_for(N_REAL, N_FAKE, {})
    assert found == {"camera": ("camera",), "guided": ("camera", "lens"), "lens": ("lens",), "mixed": ("mixed",)}
    found = reals_for(N_REAL, N_FAKE, {"mixed": "lens", "guided": "mixed"})
    assert (found["mixed"], found["guided"]) == (("lens",), ("mixed",))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"nothing": "camera"},
            "the subset is 'nothing', which has no fakes in the test split; .* with fakes: guided, mixed",
        ),
        ({"camera": "lens"}, "the subset is 'camera', which has no fakes"),
        (
            {"guided": "nothing"},
            "lends its reals to 'guided' is 'nothing', which has no reals .* reals: camera, lens, mixed",
        ),
        ({"mixed": "guided"}, "lends its reals to 'mixed' is 'guided', which has no reals"),
    ],
)
def test_a_name_without_images_is_refused(named, message):
    with pytest.raises(ValueError, match=f"dataset.reals: .*{message}"):
        reals_for(N_REAL, N_FAKE, named)


@pytest.mark.slow
def test_scores_and_files_are_compared_with_the_same_reals():
    """With files that show the subset and logits that show it too, both rooms see a subset alike."""
    named, rng = {"guided": "lens"}, np.random.default_rng(0)
    rows = [(name, label, at) for name in N_REAL for label, n in ((REAL, N_REAL), (FAKE, N_FAKE)) for at in range(n[name])]
    size = {"camera": 100, "lens": 200, "mixed": 300, "guided": 200}  # the lens's reals and guided's fakes look alike
    index = [
        {"image_id": f"{name}{label}{at}", "split": "test", "subset": name, "generator": "g", "label": label, "source": "p"}
        | {"width": size[name], "height": 64, "format": "PNG", "bytes": 5000, "jpeg_quality": None}
        for name, label, at in rows
    ]
    scores = pa.table(
        {
            "subset": [name for name, *_ in rows],
            "label": pa.array([label for _, label, _ in rows], pa.int8()),
            "degradation": ["none"] * len(rows),
            "logit": pa.array([float(size[name]) + rng.normal() for name, *_ in rows], pa.float32()),
        }
    )
    for reals, told in (({}, False), (named, True)):
        files = measure_file_bias(pa.Table.from_pylist(index, INDEX), reals=reals)["test"]["subsets"]["guided"]
        numbers = evaluate(scores, frozenset(), reals)["subsets"]["guided"]
        assert numbers["n_real"] == (7 if told else 16)
        alike = files["cross_validated"]["size"]["balanced_acc"] <= 0.5
        assert alike is told, "named: of one size with the fakes; shared: the camera's are smaller"
