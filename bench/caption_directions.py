"""Why the null space leaves the shortcut: is the object's colour still in the frozen features without the captions' directions?

Run it after `dvc repro` on the embedded world with `linear_probe` among the detectors. For a growing number of removed directions
(the leading ones of all training captions, as in `nullscope.ops.null_space`) it prints the cross-validated AUROC of a linear
classifier that tells colours of the reals from colours of the fakes, and the share of the energy that is left of the features and
of the captions' features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from nullscope.evaluation.separation import separability
from nullscope.ops.null_space import basis_of_gram, gram, remove
from nullscope.world.colours import is_fake_colour

REMOVED = (0, 1, 4, 8, 16, 32, 64, 96)


def main() -> None:
    colour = {row["image_id"]: is_fake_colour(row["caption"]) for row in pq.read_table("data/captions.parquet").to_pylist()}
    rows = pq.read_table(Path("data/features/linear_probe-0.parquet")).to_pylist()
    rows = [row for row in rows if colour[row["image_id"]] is not None]
    feature_ND = torch.tensor([row["feature"] for row in rows], dtype=torch.float64)
    is_fake_colour_N = np.array([colour[row["image_id"]] for row in rows])
    text_ND = torch.tensor(pq.read_table("data/text/train.parquet")["text"].to_pylist(), dtype=torch.float64)
    text_ND = torch.nn.functional.normalize(text_ND, dim=1)
    gram_DD = gram([text_ND])
    table = Table("directions removed", "colour AUROC (%)", "energy left (%)", "of the captions (%)", box=None)
    for rank in REMOVED:
        basis_DK = basis_of_gram(gram_DD, rank=rank) if rank else gram_DD[:, :0]
        left_ND = remove(feature_ND, basis_DK)
        legible = separability(left_ND.numpy(), is_fake_colour_N)
        energies = [
            float(left.square().sum() / all_.square().sum())
            for left, all_ in ((left_ND, feature_ND), (remove(text_ND, basis_DK), text_ND))
        ]
        table.add_row(str(rank), f"{100 * legible.mean:.1f}", *(f"{100 * energy:.1f}" for energy in energies))
    Console().print(table)


if __name__ == "__main__":
    main()
