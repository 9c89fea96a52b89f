"""Two machines and a remote: what one has computed the other gets without computing, and the other way round.

The commands are those of docs/remote.md and docs/shared_cache.md, in their order.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import servers
from e2e.project import RUNS, SMALL, overrides, run, stages_run
from e2e.test_pipeline import runs_in_mlflow, summary

from nullscope.verification import verify

pytestmark = pytest.mark.e2e
KINDS = {"folder": servers.folder, "ssh": servers.ssh, "s3": servers.s3}
ONLY_ASKED_FOR = pytest.mark.servers


@pytest.mark.parametrize("kind", ["folder", pytest.param("ssh", marks=ONLY_ASKED_FOR), pytest.param("s3", marks=ONLY_ASKED_FOR)])
def test_two_machines_share_results_through_a_remote(clone, tmp_path, kind, request):
    """A's path is its own; B's holds a blank, and its files are for its user alone (umask 077)."""
    if kind != "folder" and "servers" not in (request.config.getoption("-m") or ""):
        pytest.skip("with servers, only with -m servers")
    first, second = clone, tmp_path / "the second machine"
    with KINDS[kind](tmp_path / "place") as place:
        environment = place.environment
        run(first, "dvc", "remote", "add", "--default", "lab", place.url)
        for key, value in place.shared.items():
            run(first, "dvc", "remote", "modify", "lab", key, value)
        for key, value in place.local.items():
            run(first, "dvc", "remote", "modify", "--local", "lab", key, value)
        run(first, "git", "commit", "-qam", "a remote")
        run(first, "dvc", "push", **environment)

        run(tmp_path, "git", "clone", "-q", str(first), str(second))
        for key, value in place.local.items():
            run(second, "dvc", "remote", "modify", "--local", "lab", key, value)
        masked = ("sh", "-c", 'umask 077; exec "$0" "$@"')
        run(second, *masked, "dvc", "pull", **environment)
        assert "up to date" in run(second, "dvc", "repro", **environment), "nothing is computed twice"
        run(second, "python", "stages/track.py")
        assert set(runs_in_mlflow(second)) == RUNS

        changed = overrides(*SMALL, "detectors.linear_probe.lr=0.03")
        ran = stages_run(run(second, *masked, "dvc", "exp", "run", *changed, **environment))
        assert ran == ["detector_code", "train@linear_probe-0", "score@linear_probe-0", "evaluate@linear_probe-0", "report"]
        run(second, "git", "commit", "-qam", "another rate")
        run(second, "dvc", "push", **environment)

        before, moved = summary(first), {"linear_probe-0"}
        run(first, "python", "stages/track.py")
        known = shown(first)
        run(first, "git", "pull", "-q", str(second), "HEAD")
        run(first, "dvc", "pull", **environment)
        run(first, "python", "stages/track.py")
        after = summary(first)
        assert {name for name in after if after[name] != before[name]} == moved
        assert len(shown(first)) == len(known) + 1 and set(known) < set(shown(first)), "one new run, and nothing else moved"
        report = verify(first, "lab") if not environment else verify(first)
        assert report.findings == []


def test_a_lab_shares_one_cache_and_links_to_it(clone, tmp_path):
    """The second clone gets everything without computing or copying, and a stage that writes again leaves the first one alone."""
    second = tmp_path / "second"
    run(tmp_path, "git", "clone", "-q", str(clone), str(second))
    for setting in (["cache.dir", str(clone / ".dvc/cache")], ["cache.type", "hardlink,symlink"], ["cache.shared", "group"]):
        run(second, "dvc", "config", "--local", *setting)
    run(second, "dvc", "checkout")
    weights = second / "models/ns_net-0/weights.safetensors"
    assert weights.stat().st_nlink > 1 and not weights.stat().st_mode & 0o222, "a protected link, no copy"
    assert "up to date" in run(second, "dvc", "repro")
    for stage in ("index", "evaluate@ns_net-0", "report"):
        run(second, "dvc", "repro", "--force", "--single-item", stage)
    assert verify(second).findings == verify(clone).findings == []
    assert set(runs_in_mlflow(clone)) == RUNS


def shown(root: Path) -> list[str]:
    """The identifiers of all runs in MLflow."""
    script = (
        "import mlflow; from nullscope import tracking; c = mlflow.MlflowClient(tracking.tracking_uri())\n"
        "print('runs', *(r.info.run_id for r in c.search_runs([x.experiment_id for x in c.search_experiments()])))"
    )
    return run(root, "python", "-c", script).splitlines()[-1].split()[1:]
