"""A person's own images and a trained detector: what `nullscope predict` does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nullscope.core.contracts import REAL, image_id
from nullscope.images.decoder import ImageError, decode
from nullscope.images.preparation import prepared
from nullscope.images.transforms import Transform, image_rng
from nullscope.model_folder import BLIP, CLIP, Made, load
from nullscope.ops.patches import select
from nullscope.scoring import BATCH_SIZE, logits
from nullscope.shards.loading import Rows, Stack

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


def predict(
    model: Path, sources: list[str], device: torch.device, workers: int, captions: Mapping[str, str] | None = None
) -> Iterator[Verdict]:
    """Yield a verdict for every file of ``sources``, in order. Raises `ValueError` if ``model`` is not a trained detector.

    An image scores as it does in the pipeline: the same decoder, the same patches, an order of patches drawn from the image's
    bytes; so it scores the same alone, in a folder and under another name. A detector that needs captions at inference writes
    them itself, with the BLIP of its run, but for the sources that ``captions`` has one for.
    """
    detector, made = load(model, device)
    writer = None
    if detector.captions_at_inference:
        from nullscope.caption_writer import Writer  # transformers takes seconds to import: only where a caption is wanted

        writer = Writer(model / BLIP, model / CLIP, made.caption, captions or {}, device)
    _check_captions(captions or {}, sources, made, writer is not None)
    read = _Read(sources, detector.transform, made, writer.reader if writer else None)
    loader = DataLoader(read, batch_size=BATCH_SIZE, num_workers=0 if len(sources) < FEW else workers, collate_fn=list)
    for items in loader:
        good = [(number, item) for number, item in enumerate(items) if not isinstance(item, Verdict)]
        if good:
            read_ = [item for _, item in good]
            text = writer.features({item.source: item.pixels for item in read_}) if writer else None
            for (number, item), logit in zip(good, logits(detector, _stack(read_), device, text), strict=True):
                items[number] = Verdict(item.source, logit=logit)
        yield from items


def _check_captions(captions: Mapping[str, str], sources: list[str], made: Made, needed: bool) -> None:
    """Raise `ValueError` where captions were given for nothing: the reader would think that they had been used."""
    if captions and not needed:
        raise ValueError(f"{made.detector} needs no captions; leave --captions out")
    if captions and captions.keys().isdisjoint(sources):
        raise ValueError(
            f"none of the {len(captions)} captions is of an image that was asked for; the column source must hold the names as "
            f"they are given to the command, such as {sources[0]!r}; found {min(captions)!r}"
        )


class _Item(NamedTuple):
    """A source that was read: the arrays of the transform, and what BLIP sees of it where the detector asks for a caption."""

    source: str
    arrays: dict[str, NDArray]
    pixels: Tensor | None


class _Read(Dataset):
    """One source to an item, or to a refusal."""

    def __init__(self, sources: list[str], transform: Transform, made: Made, reader: Callable[[NDArray], Tensor] | None) -> None:
        self.sources, self.transform, self.made, self.reader = sources, transform, made, reader

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> _Item | Verdict:
        source = self.sources[index]
        try:
            data = Path(source).read_bytes()
            image, least = decode(data, max_pixels=self.made.max_pixels), self.made.patches.patch_px
            if min(image.shape[:2]) < least:  # as the index, whatever the transform
                height, width = image.shape[:2]
                raise ImageError(f"{width}x{height} px: a side is shorter than a patch of {least} px")
            seen = prepared(image, self.made.prepare, min_side=least)
            seen = select(seen, self.made.patches) if self.transform.kind == "patches" else seen
        except OSError as error:
            return Verdict(source, refused=error.strerror or str(error))
        except (ImageError, ValueError) as error:
            return Verdict(source, refused=str(error))
        arrays = self.transform(seen, image_rng(image_id(data)), training=False)
        return _Item(source, arrays, self.reader(image) if self.reader else None)


def _stack(items: list[_Item]) -> Rows:
    """Return the items as rows that go by the name of their sources."""
    inputs = {name: torch.from_numpy(np.stack([item.arrays[name] for item in items])) for name in items[0].arrays}
    labels = torch.full((len(items),), float(REAL))  # unknown, and not looked at
    return Rows(0, np.arange(len(items)), [item.source for item in items], labels, [Stack(np.arange(len(items)), inputs)])


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
