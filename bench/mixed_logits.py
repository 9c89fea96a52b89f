"""The logit of the frozen probe mixed into that of another detector: fakes found, for a growing share of the probe.

Run it after `dvc exp run -S experiment=forgetting`. Means over seeds with 95 % intervals. The share was chosen on three unseen
generators (`chosen on`), and its effect is measured on the other three (`held out`). At 5 % false alarms, so that no
threshold has to be chosen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from nullscope.core.config import read_params
from nullscope.evaluation.protocol import evaluate
from nullscope.evaluation.scores import read_test_scores
from nullscope.evaluation.seeds import estimate

CHOSEN_ON, HELD_OUT = ("bilinear", "shuffle", "denoiser"), ("cascade", "quantised", "spectral")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    params = read_params()
    seen, seeds = frozenset(params["dataset"]["world"]["train_generators"]), params["run"]["seeds"]
    table = Table("detector", "frozen share", "chosen on", "held out", "seen", box=None)
    for name in ("clip_lora", "ns_net", "dgs_net"):
        for share in SHARES:
            results = [mixed(name, seed, share, seen) for seed in seeds]
            cells = [
                np.array([[r["subsets"][g]["tpr_5"] for g in group] for r in results]) for group in (CHOSEN_ON, HELD_OUT, seen)
            ]
            spreads = [estimate(cell.mean(axis=1)) for cell in cells]
            table.add_row(name, f"{share:.2f}", *(f"{100 * s.mean:.1f} ± {100 * s.half:.1f}" for s in spreads))
    Console().print(table)


def mixed(name: str, seed: int, share: float, seen: frozenset[str]) -> dict:
    """Return the metrics of (1 - share) times the detector's logit plus share times that of the frozen probe."""
    scores, frozen = (read_test_scores(Path(f"scores/{run}-{seed}.parquet")) for run in (name, "linear_probe"))
    logit_N = (1 - share) * scores["logit"].to_numpy() + share * frozen["logit"].to_numpy()
    mixed_N = pa.array(logit_N.astype(np.float32))
    return evaluate(scores.set_column(scores.column_names.index("logit"), "logit", mixed_N), seen)


if __name__ == "__main__":
    main()
