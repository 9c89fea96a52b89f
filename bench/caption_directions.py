"""Why the null space leaves the shortcut: is the object's colour still in the frozen features once captions are projected out?

Run it after `dvc repro` on the embedded world with `linear_probe` among the detectors. For a growing number of removed directions
(the leading ones of all training captions, as `nullscope.ops.null_space`): the cross-validated AUROC of a linear classifier that
tells colours of the reals from colours of the fakes, and what is left of the features' energy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nullscope.ops.null_space import basis_of_gram, gram, remove
from nullscope.report.shortcut import fake_colour

REMOVED = (0, 1, 4, 8, 16, 32, 64, 96)


def main() -> None:
    colour = {row["image_id"]: fake_colour(row["caption"]) for row in pq.read_table("data/captions.parquet").to_pylist()}
    rows = pq.read_table(Path("data/features/linear_probe-0.parquet")).to_pylist()
    rows = [row for row in rows if colour[row["image_id"]] is not None]
    feature_ND = torch.tensor([row["feature"] for row in rows], dtype=torch.float64)
    is_fake_colour_N = np.array([colour[row["image_id"]] for row in rows])
    text_ND = torch.tensor(pq.read_table("data/text/train.parquet")["text"].to_pylist(), dtype=torch.float64)
    gram_DD = gram([torch.nn.functional.normalize(text_ND, dim=1)])
    table = Table("directions removed", "colour AUROC (%)", "energy left (%)", box=None)
    for rank in REMOVED:
        left_ND = remove(feature_ND, basis_of_gram(gram_DD, rank=rank)) if rank else feature_ND
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        auroc = cross_val_score(probe, left_ND.numpy(), is_fake_colour_N, cv=5, scoring="roc_auc").mean()
        energy = float(left_ND.square().sum() / feature_ND.square().sum())
        table.add_row(str(rank), f"{100 * auroc:.1f}", f"{100 * energy:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
