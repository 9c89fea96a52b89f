"""What a team sees in MLflow: its pages in a real browser, with pictures of them in tests/artefacts/ afterwards."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path

import pytest
from browser import ARTEFACTS, NEEDS_BROWSER, browse
from servers import Mlflow
from tracking.synthetic import DETECTORS, Project

from nullscope import tracking
from nullscope.tracking import registry, store, view

pytestmark = [*NEEDS_BROWSER, pytest.mark.slow]
BUDGETS = (20_000, 60_000, 120_000)  # ms of virtual time until a page is looked at: scripts draw it, from many answers
COMPARED = {"auroc_unseen": 0.91, "auroc_unseen_low": 0.89, "auroc_unseen_high": 0.93, "tpr_5_unseen": 0.7, "r_acc": 0.95}


def test_a_team_sees_runs_charts_comparison_files_and_models(project: Project, server: Mlflow, tmp_path: Path) -> None:
    for name in DETECTORS:
        project.evaluate(name, **COMPARED)
    tracking.publish(project.root)
    registry.register(project.root)
    page = tracking.viewer(project.root)
    here = f"{server.uri}/#/experiments/{store.open_store(project.root).experiment_id}"
    runs = {run.info.run_name: run.info.run_id for run in project.runs()}
    both = urllib.parse.urlencode({"runs": json.dumps(list(runs.values())), "experiments": json.dumps([here.rpartition("/")[2]])})
    shown = {
        "list": (page, [*runs, "auroc_unseen", "tpr_5_unseen", "r_acc", "world (01234567)", "0.91"]),
        "charts": (f"{page}&compareRunsMode=CHART", ["Compared", "Training", *view.BARS, *view.LINES[:3]]),
        "compare": (f"{server.uri}/#/compare-runs?{both}", [*runs, "Parallel Coordinates Plot", "train/bce"]),
        "artifacts": (f"{here}/runs/{runs['ns_net-0']}/artifacts", ["reports", "model", "metrics"]),
        "model": (f"{server.uri}/#/models/nullscope-world", ["Version 1", "Version 2"]),
    }
    ARTEFACTS.mkdir(exist_ok=True)
    for name, (address, words) in shown.items():
        picture = ARTEFACTS / f"mlflow-{name}.png"
        for budget in BUDGETS:
            look = (f"--virtual-time-budget={budget}", "--timeout=100000", "--dump-dom", f"--screenshot={picture}")
            dom = browse(tmp_path, address, *look, window="1700,1300")
            missing = [word for word in words if word not in dom]
            if not missing:
                break
        assert not missing, f"{name}: {missing}"
