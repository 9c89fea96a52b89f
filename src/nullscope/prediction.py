"""A person's own images and a trained detector: what `nullscope predict` does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from nullscope.contracts import REAL
from nullscope.data.images import ImageError, decode, image_id
from nullscope.data.loading import Rows
from nullscope.data.views import View, image_rng
from nullscope.ops.patches import PatchParams, select
from nullscope.saved import load
from nullscope.scoring import BATCH_SIZE, logits

FEW = 32  # images below which starting other processes costs more than it saves


@dataclass(frozen=True)
class Verdict:
    """What came out for one source: a logit, or the reason why there is none."""

    source: str
    logit: float | None = None
    refused: str | None = None

    @property
    def score(self) -> float:
        """Sigmoid of the logit: how generated the image looks, from 0 to 1."""
        return 1 / (1 + math.exp(-max(-700.0, self.logit)))

    @property
    def fake(self) -> bool:
        """Whether the image is taken for a generated one: a score above one half."""
        return self.logit > 0

    def as_dict(self) -> dict[str, object]:
        """Return what is printed: ``source``, ``logit``, ``score``, ``fake``, or ``source`` and ``refused``."""
        if self.refused is not None:
            return {"source": self.source, "refused": self.refused}
        return {"source": self.source, "logit": self.logit, "score": self.score, "fake": self.fake}


def expand(sources: Iterable[str]) -> Iterator[str | Verdict]:
    """Yield the files that ``sources`` name, folders with all their visible files in the order of their names.

    A folder without files is refused. Files need not exist: that is found out when they are read.
    """
    for source in sources:
        path = Path(source)
        if not path.is_dir():
            yield source
            continue
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file.relative_to(path))]
        yield from map(str, files)
        if not files:
            yield Verdict(source, refused="the folder holds no files")


def predict(model: Path, sources: list[str], device: torch.device, workers: int) -> Iterator[Verdict]:
    """Yield a verdict for every file of ``sources``, in order. Raises `ValueError` if ``model`` is not a trained detector.

    An image scores as it does in the pipeline: the same decoder, the same patches, an order of patches drawn from the image's
    bytes; so it scores the same alone, in a folder and under another name.
    """
    detector, made = load(model, device)
    read = _Read(sources, detector.view, made.patches, made.max_pixels)
    loader = DataLoader(read, batch_size=BATCH_SIZE, num_workers=0 if len(sources) < FEW else workers, collate_fn=list)
    for items in loader:
        good = [(number, item) for number, item in enumerate(items) if not isinstance(item, Verdict)]
        if good:
            for (number, _), logit in zip(good, logits(detector, _stack([item for _, item in good]), device), strict=True):
                items[number] = Verdict(items[number][0], logit=logit)
        yield from items


class _Read(Dataset):
    """One source to (source, image id, arrays of the view), or to a refusal."""

    def __init__(self, sources: list[str], view: View, patches: PatchParams, max_pixels: int) -> None:
        self.sources, self.view, self.patches, self.max_pixels = sources, view, patches, max_pixels

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> tuple[str, str, dict[str, NDArray]] | Verdict:
        source = self.sources[index]
        try:
            data = Path(source).read_bytes()
            image = decode(data, max_pixels=self.max_pixels)
            if self.view.kind == "patches":
                image = select(image, self.patches)
        except OSError as error:
            return Verdict(source, refused=error.strerror or str(error))
        except (ImageError, ValueError) as error:
            return Verdict(source, refused=str(error))
        name = image_id(data)
        return source, name, self.view(image, image_rng(name), training=False)


def _stack(items: list[tuple[str, str, dict[str, NDArray]]]) -> Rows:
    inputs = {name: torch.from_numpy(np.stack([arrays[name] for _, _, arrays in items])) for name in items[0][2]}
    labels = torch.full((len(items),), float(REAL))  # unknown, and not looked at
    return Rows(0, np.arange(len(items)), [name for _, name, _ in items], labels, inputs)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
