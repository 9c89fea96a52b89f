"""What an explanation names moves the score: blanking the parts that spoke most for "generated" lowers it more than others do."""

from __future__ import annotations

import numpy as np
import pytest

from nullscope import load
from nullscope.explanation import explain, logit_without

pytestmark = pytest.mark.e2e
FIRST = 4  # parts that are blanked together


@pytest.mark.parametrize("name", ["ns_net-0", "linear_probe-0"])
def test_the_parts_that_are_named_move_the_score_more_than_random_ones(project, name):
    judge, draws = load(project / f"models/{name}", "cpu", anyway=True), np.random.default_rng(0)
    top, random, last = [], [], []
    for path in sorted((project / "data/world/test").rglob("1_fake/*.png")):
        data = path.read_bytes()
        found = explain(judge, data)
        assert found.logit == judge.predict(data).logit
        order = np.argsort(found.change_N)[::-1]
        picked = [order[:FIRST], draws.permutation(len(order))[:FIRST], order[-FIRST:]]
        for kind, cells in zip((top, random, last), picked, strict=True):
            kind.append(found.logit - logit_without(judge, data, found, cells))
    assert len(top) >= 10
    assert np.mean(top) > np.mean(random) > np.mean(last), "the logit falls most without the first, and rises without the last"
    assert np.mean(np.array(top) > np.array(random)) > 0.8, "on nearly every image"


def test_one_part_at_a_time_is_what_is_told(project):
    judge = load(project / "models/ns_net-0", "cpu", anyway=True)
    data = next((project / "data/world/test").rglob("1_fake/*.png")).read_bytes()
    found = explain(judge, data)
    for at in (0, 5, len(found.change_N) - 1):
        assert found.logit - logit_without(judge, data, found, np.array([at])) == pytest.approx(found.change_N[at], abs=1e-6)
    assert found.change_N.shape == (found.rows * found.columns,) == (judge.patches.cells,)
