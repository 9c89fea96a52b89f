"""What the validation split says of a detector while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from nullscope.core import ranks
from nullscope.detectors.base import Detector
from nullscope.scoring import score
from nullscope.shards.loading import read_whole
from nullscope.shards.reading import Shard
from nullscope.tables.text import TextTable


class Validated(NamedTuple):
    """What came out."""

    numbers: dict[str, float]
    logit_N: Tensor  # float32
    is_fake_N: Tensor  # float32, 0 or 1


def validate(
    detector: Detector, shards: Sequence[Shard], text: TextTable | None, *, device: torch.device, workers: int
) -> Validated:
    """Return the logits of the images of ``shards``, their ``val_loss`` and, of both labels, ``val_ap`` and ``val_auroc``.

    The loss is the binary cross-entropy of the logits, whatever the training minimises, so that detectors can be compared by it.
    ``text`` holds the captions' features, where the detector asks for them at inference. Ranks share the shards, and all of them
    get the numbers of one rank. The detector is left in evaluation mode.
    """
    ends = np.cumsum([0, *(shard.samples for shard in shards)])
    logit_N, is_fake_N = torch.zeros(ends[-1]), torch.zeros(ends[-1])
    own = list(ranks.mine(range(len(shards))))
    read = read_whole([shards[number] for number in own], detector.transform, workers=workers)
    for number, rows in zip(own, read, strict=True):
        part = slice(ends[number], ends[number + 1])
        logit_N[part], is_fake_N[part] = score(detector, rows, device, text)[0], rows.labels
    ranks.add_up(logit_N)  # zeros where another rank's are: the sum is exact
    ranks.add_up(is_fake_N)
    numbers = {"val_loss": F.binary_cross_entropy_with_logits(logit_N.double(), is_fake_N.double()).item()}
    if 0 < is_fake_N.sum() < len(is_fake_N):
        numbers["val_ap"] = float(average_precision_score(is_fake_N.numpy(), logit_N.numpy()))
        numbers["val_auroc"] = float(roc_auc_score(is_fake_N.numpy(), logit_N.numpy()))
    return Validated(numbers, logit_N, is_fake_N)
