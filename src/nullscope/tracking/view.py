"""How MLflow's list of runs opens: with the columns that people compare, the best run first, and their charts before the others.

MLflow keeps a shared view as JSON in a tag of the experiment, and opens it by the name in the page's address. Its fields are
those of the page's state (mlflow/server/js, ExperimentPageUIState and RunsChartsCardConfig).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nullscope.tracking.facts import CURVE

if TYPE_CHECKING:
    from nullscope.tracking.store import Store

KEY = "nullscope"  # of the view, in the address of the page
TAG = f"mlflow.sharedViewState.{KEY}"
METRICS = ("r_acc", "tpr_5_unseen", "auroc_unseen", "auroc_unseen_low", "auroc_unseen_high", "protocol")
TAGS = ("nullscope.seed", "nullscope.weights")
BEST = "metrics.`auroc_unseen`"
BARS = ("auroc_unseen", "tpr_5_unseen", "r_acc")
LINES = tuple(CURVE + name for name in ("val_ap", "val_auroc", "val_loss", "bce", "loss"))  # what every detector's history has


LINE = {
    "lineSmoothness": 0,
    "scaleType": "linear",
    "xAxisKey": "step",
    "xAxisScaleType": "linear",
    "selectedXAxisMetricKey": "",
    "yAxisKey": "metric",
    "yAxisExpressions": [],
    "range": {},
    "ignoreOutliers": False,
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}


def share_view(store: Store) -> None:
    """Write the view to the experiment, unless it is there."""
    columns = ["attributes.`Dataset`", *(f"metrics.`{name}`" for name in METRICS), *(f"tags.`{name}`" for name in TAGS)]
    state = {"selectedColumns": columns, "orderByKey": BEST, "orderByAsc": False, "autoRefreshEnabled": True}
    state |= {
        "compareRunSections": [_section("Compared"), _section("Training")],
        "isAccordionReordered": True,  # or MLflow sorts the sections by name
        "compareRunCharts": [
            *(_chart("Compared", "BAR", name) for name in BARS),
            *(_chart("Training", "LINE", name, **LINE) for name in LINES),
        ],
    }
    text = json.dumps(state, sort_keys=True)
    if store.client.get_experiment(store.experiment_id).tags.get(TAG) != text:
        store.client.set_experiment_tag(store.experiment_id, TAG, text)


def _section(name: str) -> dict[str, Any]:
    return {"uuid": name, "name": name, "display": True, "isReordered": False, "deleted": False, "isGenerated": False}


def _chart(section: str, kind: str, metric: str, **more: Any) -> dict[str, Any]:
    own = {"uuid": metric, "type": kind, "metricKey": metric, "displayName": metric, "metricSectionId": section}
    return own | {"runsCountToCompare": 20, "deleted": False, "isGenerated": False} | more
