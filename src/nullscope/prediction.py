"""`Judge`: a trained detector that judges a person's own images. The command `nullscope predict` is a loop over it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nullscope.archives.members import refusal
from nullscope.archives.reading import is_archive, parts_of, read_source, why_not_opened
from nullscope.core import ranks
from nullscope.core.contracts import REAL, image_id
from nullscope.images.decoder import ImageError, check_pixels, decode, pixels_of
from nullscope.images.preparation import check_name, prepared
from nullscope.images.transforms import Transform, image_rng
from nullscope.model_facts import ModelFacts
from nullscope.model_folder import load, patches_of
from nullscope.ops.patches import PatchParams, select
from nullscope.provenance import claims
from nullscope.scoring import logits, one_thread
from nullscope.shards.loading import Rows, Stacks
from nullscope.sources.folders import ANYWHERE, UNNAMEABLE, Ignored, Listed, Packed, Refused, escaped, everything, is_utf8, unpack
from nullscope.tables.text import TextTable
from nullscope.verdicts import Verdict, decision_of

if TYPE_CHECKING:
    from nullscope.backbones.blip import PixelReader

CHUNK = 64  # images that are read, captioned and judged together; no score depends on it
FEW = 32  # images below which starting other processes costs more than it saves

Item = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]
ACCEPTED = "a path (str or Path), the bytes of an image file, a PIL image, or a numpy array (H, W, 3) of uint8, RGB"


class Judge:
    """A trained detector, loaded once. It judges images as the pipeline does: the same decoder, the same input, the same score.

    *What it takes.* A path or the bytes of a file: decoded by the table in `nullscope.images.decoder`. A PIL image: its pixels by
    the same table (transparency on white, the EXIF orientation that it still carries applied). A numpy array: the pixels
    themselves, (H, W, 3) uint8, RGB (OpenCV's are BGR: ``image[:, :, ::-1]``).

    *What a score depends on.* A detector on patches shuffles them, in an order that is drawn from the image's identity. Of a file
    that is the SHA-256 of its bytes: path, bytes, command and pipeline give the same logit, to the last digit on one machine.
    A PIL image or an array has no file, so its identity is the SHA-256 of its size and pixels: equal pixels give equal logits,
    whatever file they came from. **So a file and its decoded pixels are judged with two orders of the same patches, and their
    logits differ a little**; where the file is at hand, give its path. An unchanged PIL image cannot be told from an edited one,
    so it counts as pixels too.

    *Verdicts.* The threshold is set on the model's validation logits, for a rate of false alarms (`nullscope.decision`). A model
    without such logits has the threshold of training, a logit of 0, and no "not sure". A detector that was trained on the
    embedded world has seen rendered scenes alone. It gives scores and no verdicts (`Verdict.answer` is None), unless it is told
    to by ``anyway``.

    *Refusals.* A file that cannot be read, is no image, or is too large or too small gets a verdict that says so. Something that
    is none of the above raises `TypeError`.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        device: str | torch.device | None = None,
        *,
        workers: int = 0,
        verify: bool = False,
        anyway: bool = False,
        fpr: float | None = None,
        band: bool = True,
    ) -> None:
        """``folder``: of a trained detector, such as models/ns_net-0. ``device``: such as ``cpu`` or ``cuda``; None: CUDA where
        there is one, or what ``NULLSCOPE_DEVICE`` says. ``workers``: processes that read and decode, for many images; 0: this
        one. ``verify``: compare the hashes of large backbones too. ``anyway``: give verdicts whatever it was trained on. ``fpr``:
        the rate of false alarms that the threshold is to promise; None: `decision.RATE`, where the model can promise it.
        ``band``: whether "not sure" is an answer.

        Raises `ValueError` if the folder is no trained detector or is damaged, if there is no such device, or if the model
        cannot promise ``fpr``.
        """
        threads = torch.get_num_threads()
        self.device = ranks.device(None if device is None else str(device))
        torch.set_num_threads(threads)  # the caller's affair: `ranks.device` is meant for stages
        self.folder, self.workers = Path(folder), workers
        self.detector, self.facts = load(self.folder, self.device, verify=verify)
        for name in self.facts.prepare:
            check_name(name)  # here, or every image would be refused for it
        self.decision = decision_of(self.folder, fpr, band=band)
        self.patches = patches_of(self.facts)
        self.judges = anyway or not self.facts.rendered
        self.needs_captions = self.detector.captions_at_inference
        self._writer = None
        if self.needs_captions:
            from nullscope.caption_writer import CaptionWriter  # transformers takes seconds to import: only where it is needed

            self._writer = CaptionWriter(self.folder / "blip", self.folder / "clip", self.facts.caption, self.device)

    def predict(self, item: Item, caption: str | None = None) -> Verdict:
        """Return the verdict on one image. ``caption``: for a detector that needs one; None: it is written here.

        Raises `TypeError` if ``item`` is no image, and `ValueError` if a caption is given to a detector that needs none.
        """
        self._check_captions(caption is not None)
        return next(self._verdicts(iter([_Asked(_checked(item), caption)]), workers=0))

    def predict_many(self, items: Iterable[Item], captions: Mapping[str, str] | None = None) -> Iterator[Verdict]:
        """Yield a verdict for every item, in order; ``items`` may be endless. ``captions``: by path, as it is given.

        A detector that needs captions writes those that are missing. Raises as `predict`.
        """
        self._check_captions(bool(captions))
        given = captions or {}
        asked = (_Asked(_checked(item), given.get(_source(item))) for item in items)
        first = list(islice(asked, FEW)) if self.workers else []
        return self._verdicts(chain(first, asked), self.workers if len(first) == FEW else 0)

    def _verdicts(self, asked: Iterator[_Asked], workers: int) -> Iterator[Verdict]:
        reader = _Reader(self.detector.transform, self.facts, self.patches, self._writer and self._writer.reader)
        chunks = iter(lambda: list(islice(asked, CHUNK)), [])
        for read in DataLoader(reader, batch_size=None, sampler=chunks, num_workers=workers, collate_fn=_as_is):
            yield from self._judged(read)

    def _judged(self, read: list[_Input | Verdict]) -> list[Verdict]:
        """Return the verdicts on what was read, in order."""
        inputs = [item for item in read if isinstance(item, _Input)]
        captions = self._captions(inputs) if self.needs_captions and inputs else [None] * len(inputs)
        found = iter(zip(self._logits(inputs, captions) if inputs else (), captions, strict=True))
        decision = self.decision if self.judges else None

        def verdict(item: _Input) -> Verdict:
            logit, caption = next(found)
            return Verdict(item.source, logit, None, item.identity, item.claims, caption, decision)

        return [verdict(item) if isinstance(item, _Input) else item for item in read]

    def _logits(self, inputs: list[_Input], captions: Sequence[str | None]) -> list[float]:
        stacks = Stacks(len(inputs))
        for item in inputs:
            stacks.add(item.arrays)
        names = [str(number) for number in range(len(inputs))]  # one image may be there twice, with two captions
        labels = torch.full((len(inputs),), float(REAL))  # unknown, and not looked at
        rows = Rows(0, np.arange(len(inputs)), names, labels, stacks.stacks())
        text = None
        if self.needs_captions:
            with one_thread(self.device):
                text = TextTable(names, self._writer.features(list(captions)), "captions")
        return logits(self.detector, rows, self.device, text)

    def picture(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what the detector's transform gets of an image: prepared, and the mosaic of its patches where it reads that.

        Raises `ImageError` if the image is too small.
        """
        return picture_of(image_HWC, self.detector.transform, self.facts, self.patches)

    def logits_of(self, pictures: Sequence[NDArray[np.uint8]], identity: str) -> list[float]:
        """Return the logits of several versions of one image's `picture`: all are read in the order of its patches."""
        transform = self.detector.transform
        arrays = [transform(picture, image_rng(identity), training=False) for picture in pictures]
        return self._logits([_Input("bytes", identity, own, None, None) for own in arrays], [None] * len(arrays))

    def _captions(self, inputs: list[_Input]) -> list[str]:
        """Return the images' captions: those that were given, or else BLIP's."""
        with one_thread(self.device):
            left = [item.pixels for item in inputs if item.caption is None]
            written = iter(self._writer.captions(left) if left else ())
            return [item.caption if item.caption is not None else next(written) for item in inputs]

    def _check_captions(self, given: bool) -> None:
        """Raise `ValueError` where captions were given for nothing: the caller would think that they had been used."""
        if given and not self.needs_captions:
            raise ValueError(f"{self.facts.detector} needs no captions; leave them out")


def expand(sources: Iterable[str], ignored: Counter[str]) -> Iterator[str | Verdict]:
    """Yield the files that ``sources`` name: files, folders with all below them, archives, ``<archive>::<member>``.

    This is the walk of the index: the same files are found, refused, in the same words, and ignored. ``ignored`` counts the last
    by the reason. Files need not exist: that is found out when they are read.
    """
    for source in sources:
        if not is_utf8(source):
            yield Verdict(escaped(source), refused=UNNAMEABLE)
            continue
        try:
            yield from _within(source, ignored)
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL
            yield Verdict(source, refused=refusal(error))


def _within(source: str, ignored: Counter[str]) -> Iterator[str | Verdict]:
    """Yield the files of one source. Raises `OSError` if there is nothing that can be read."""
    path, name = Path(source), os.path.basename(source)
    if parts_of(path)[0] is not None:
        yield source
    elif path.is_dir():
        yield from _below(source, everything(path), ignored)
    elif reason := why_not_opened(name):
        yield Verdict(source, refused=reason)
    elif is_archive(name):
        yield from _below(os.path.dirname(source), [Packed(name, ANYWHERE)], ignored)
    else:
        yield source


def _below(folder: str, items: Iterable[Listed | Packed], ignored: Counter[str]) -> Iterator[str | Verdict]:
    """Yield what lies below a folder; a folder without files is refused."""
    found = False
    for outer in items:
        for item in unpack(Path(folder), outer) if isinstance(outer, Packed) else [outer]:
            if isinstance(item, Ignored):
                ignored[item.why] += item.files
                continue
            found = True
            place = os.path.join(folder, item.source)
            yield Verdict(place, refused=item.reason) if isinstance(item, Refused) else place
    if not found:
        yield Verdict(folder, refused="the folder holds no files")


def pixels_id(image_HWC: NDArray[np.uint8]) -> str:
    """Return the identity of an image that has no file: the hexadecimal SHA-256 of its height, its width and its RGB levels."""
    height, width = image_HWC.shape[:2]
    return hashlib.sha256(f"{height} {width} RGB\n".encode() + image_HWC.tobytes()).hexdigest()


class _Asked(NamedTuple):
    """An image to judge, and its caption where one was given."""

    item: Item
    caption: str | None


class _Input(NamedTuple):
    """An image that was read: the arrays of the transform, and its caption, or what BLIP sees of it."""

    source: str
    identity: str
    arrays: dict[str, NDArray]
    caption: str | None
    pixels: Tensor | None
    claims: tuple[str, ...] = ()


class _Reader(Dataset):
    """Images to inputs, or to refusals, chunk by chunk; it runs in the loader's processes."""

    def __init__(self, transform: Transform, facts: ModelFacts, patches: PatchParams, reader: PixelReader | None) -> None:
        """``reader``: what BLIP sees of an image; None for a detector that needs no captions."""
        self.transform, self.facts, self.patches, self.reader = transform, facts, patches, reader

    def __getitem__(self, chunk: list[_Asked]) -> list[_Input | Verdict]:
        return [self._read(asked) for asked in chunk]

    def _read(self, asked: _Asked) -> _Input | Verdict:
        source = _source(asked.item)
        try:
            identity, image, said = self._pixels(asked.item)
            arrays = self._arrays(image, identity)
        except (OSError, MemoryError, ValueError) as error:  # ValueError: an `ImageError`, or a path with a NUL
            return Verdict(source, refused=refusal(error))
        wanted = self.reader is not None and asked.caption is None
        return _Input(source, identity, arrays, asked.caption, self.reader(image) if wanted else None, said)

    def _pixels(self, item: Item) -> tuple[str, NDArray[np.uint8], tuple[str, ...]]:
        """Return identity and pixels of an image, and what its file claims. Raises `ImageError` or `OSError` if it is refused."""
        limit = self.facts.max_pixels
        if isinstance(item, Image.Image):
            image = pixels_of(item, max_pixels=limit)
            return pixels_id(image), image, ()
        if isinstance(item, np.ndarray):
            check_pixels(item.shape[1], item.shape[0], limit)
            return pixels_id(item), np.ascontiguousarray(item), ()
        data = read_source(Path(item), max_pixels=limit) if isinstance(item, (str, os.PathLike)) else bytes(item)
        return image_id(data), decode(data, max_pixels=limit), tuple(claims(data))

    def _arrays(self, image_HWC: NDArray[np.uint8], identity: str) -> dict[str, NDArray]:
        """Return the arrays of the transform, as the pipeline makes them. Raises `ImageError` if the image is too small."""
        seen = picture_of(image_HWC, self.transform, self.facts, self.patches)
        return self.transform(seen, image_rng(identity), training=False)


def picture_of(image_HWC: NDArray[np.uint8], transform: Transform, facts: ModelFacts, patches: PatchParams) -> NDArray[np.uint8]:
    """Return what a transform gets of an image. Raises `ImageError` if the image is too small."""
    (height, width), least = image_HWC.shape[:2], transform.min_side_px
    if min(height, width) < least:
        raise ImageError(f"{width}x{height} px: a side is shorter than {least} px, the least that this detector takes")
    seen = prepared(image_HWC, facts.prepare, min_side=patches.patch_px)
    return select(seen, patches) if transform.kind == "patches" else seen


def _checked(item: Item) -> Item:
    """Return ``item``. Raises `TypeError` unless it is something that can be judged."""
    if isinstance(item, np.ndarray) and (item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3):
        raise TypeError(f"expected {ACCEPTED}; found an array {item.shape} of {item.dtype}")
    if not isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)):
        raise TypeError(f"expected {ACCEPTED}; found {type(item).__name__}")
    return item


def _source(item: Item) -> str:
    if isinstance(item, (str, os.PathLike)):
        return os.fspath(item)
    if isinstance(item, Image.Image):
        return "image"
    return "array" if isinstance(item, np.ndarray) else "bytes"


def _as_is(read: list[_Input | Verdict]) -> list[_Input | Verdict]:
    return read
