"""How MLflow's list of runs opens: with the columns that people compare, the best run first.

MLflow keeps a shared view as JSON in a tag of the experiment, and opens it by the name in the page's address.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nullscope.tracking.store import Store

KEY = "nullscope"  # of the view, in the address of the page
TAG = f"mlflow.sharedViewState.{KEY}"
METRICS = ("r_acc", "tpr_5_unseen", "auroc_unseen", "auroc_unseen_low", "auroc_unseen_high", "protocol")
TAGS = ("nullscope.seed", "nullscope.weights")
BEST = "metrics.`auroc_unseen`"


def share_view(store: Store) -> None:
    """Write the view to the experiment, unless it is there."""
    columns = ["attributes.`Dataset`", *(f"metrics.`{name}`" for name in METRICS), *(f"tags.`{name}`" for name in TAGS)]
    state = {"selectedColumns": columns, "orderByKey": BEST, "orderByAsc": False, "autoRefreshEnabled": True}
    text = json.dumps(state, sort_keys=True)
    if store.client.get_experiment(store.experiment_id).tags.get(TAG) != text:
        store.client.set_experiment_tag(store.experiment_id, TAG, text)
