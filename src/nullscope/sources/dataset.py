"""A data set as parameters: where it lies, which folders are of which split, subset, label and generator.

The folder above the label folder decides the split and the subset. A pattern such as ``train/*`` is matched component by
component from the root; the last component it matches names the subset, or the one that is marked with ``@``: original GenImage's
``@*/*/val`` finds ``ADM/imagenet_ai_0508_adm/val`` and calls it ``ADM``. Deeper folders (classes, mostly) belong to the subset:
``progan/airplane/0_real/x.png`` is of subset ``progan`` under the pattern ``progan``. Where several patterns of a list match, the
first one counts. Label folders at the root itself are one subset, named as the data set.

Validation images come from one of two places: from folders that ``val`` matches, where the data set publishes some, or from the
training images, of which each is drawn with the probability ``val_fraction``. This draw and that of ``train_fraction`` are read
off the image's id, which is a hash of its bytes: an image stays in its split when others are added, and equal images are drawn
alike. A training image that is drawn for validation is not trained on.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator

from nullscope.core.config import Params
from nullscope.core.contracts import FAKE, LABEL_FOLDERS, REAL, REAL_GENERATOR, SPLITS
from nullscope.core.workspace import typed

LABELS = {"real": REAL, "fake": FAKE}  # as the parameters spell them
LABEL_WORDS = {label: word for word, label in LABELS.items()}
MARK = "@"  # of the component of a pattern that names the subset
TRAIN_DIGITS, VAL_DIGITS = slice(0, 16), slice(16, 32)  # of an image's id: the two draws share no digit, so they are independent

Published = Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]  # reals, fakes


def _day(value: object) -> object:
    """Return a day that YAML and Hydra hand on as text."""
    return date.fromisoformat(value) if isinstance(value, str) else value


Day = Annotated[date, BeforeValidator(_day)]


class DatasetError(ValueError):
    """What lies on the disk is not what the parameters say."""


class DatasetParams(Params):
    """Where a data set lies and which of its images are for training, validation and testing."""

    name: Annotated[str, Field(min_length=1)]
    root: Annotated[str, Field(min_length=1)]  # folder, absolute or relative to the project
    manifest: str | None = None  # a table of the images in place of what the folders say (`manifest`), relative to the root
    labels: dict[str, Literal["real", "fake"]] = Field(default_factory=lambda: _words(LABEL_FOLDERS))  # names of label folders
    train: Annotated[list[str], Field(min_length=1)]  # patterns on the folder above the label folder, relative to the root
    val: list[str] = Field(default_factory=list)  # patterns of the validation images that the data set publishes
    test: Annotated[list[str], Field(min_length=1)]
    train_fraction: Annotated[float, Field(gt=0, lt=1)]  # share of training images in folders that `train` and `test` both match
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the training images that validate instead, without `val`
    names: dict[str, str] = Field(default_factory=dict)  # folder -> subset, where a folder is spelt in more than one way
    generators: dict[str, str] = Field(default_factory=dict)  # subset -> generator of its fakes, where names differ
    reals: dict[str, str] = Field(default_factory=dict)  # test subset -> the one whose reals it is judged against
    sources_of_real: dict[str, str] = Field(default_factory=dict)  # subset, or a pattern, -> where its photographs are from
    released: dict[str, Day] = Field(default_factory=dict)  # generator -> the day from which it was there
    expected: dict[Literal["train", "val", "test"], dict[str, Published | None]] = Field(default_factory=dict)  # as published
    max_pixels: PositiveInt  # larger images are refused before they are decoded
    world: dict[str, Any] | None = None  # the embedded world's recipe; not read here

    @field_validator("train", "val", "test")
    @classmethod
    def _relative_patterns(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            parts = pattern.split("/")
            if any(part in ("", ".", "..", MARK) for part in parts):
                raise ValueError(f"{pattern!r} is no pattern: expected folder names below the root, such as `train/*`")
            if sum(part.startswith(MARK) for part in parts) > 1:
                raise ValueError(f"{pattern!r} marks several components with {MARK}; one names the subset")
        return patterns

    @field_validator("labels")
    @classmethod
    def _both_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        if set(labels.values()) != set(LABELS):
            raise ValueError(f"expected folder names for real and for fake, such as {{nature: real, ai: fake}}, found {labels}")
        return labels

    @field_validator("val_fraction")
    @classmethod
    def _one_source_of_validation(cls, val_fraction: float, info: ValidationInfo) -> float:
        if val_fraction and info.data.get("val"):
            raise ValueError(
                f"dataset.val = {info.data['val']} names folders of validation images, and this takes a share of the training "
                "images beside them; expected one of the two: set dataset.val to [], or dataset.val_fraction to 0"
            )
        return val_fraction

    @property
    def folder(self) -> Path:
        """Return the root as a folder that can be opened from here."""
        return typed(self.root)

    @property
    def label_folders(self) -> dict[str, int]:
        """Return the label of every label folder's name."""
        return {name: LABELS[word] for name, word in self.labels.items()}

    def patterns(self, split: str) -> list[str]:
        """Return the patterns of the folders whose images may be in ``split``."""
        return {"train": self.train, "val": self.train if self.val_fraction else self.val, "test": self.test}[split]

    def subset(self, split: str, folder: str) -> str | None:
        """Return the subset that ``folder`` belongs to in ``split``, None where no pattern of the split matches it."""
        found = _subset(tuple(self.patterns(split)), self.name if folder == "." else folder)
        return None if found is None else self.names.get(found, found)

    def splits(self, folder: str) -> list[str]:
        """Return the splits that images of ``folder`` may be in, in the order of `SPLITS`; none where no pattern matches it."""
        return [split for split in SPLITS if self.subset(split, folder) is not None]

    def split_of(self, folder: str, image_id: str) -> str:
        """Return the split of one image of a matched folder; where there are several, the image's id draws one of them."""
        splits = self.splits(folder)
        split = splits[0]
        if "train" in splits and "test" in splits and not _drawn(image_id, TRAIN_DIGITS, self.train_fraction):
            split = "test"
        if split == "train" and _drawn(image_id, VAL_DIGITS, self.val_fraction):
            split = "val"
        return split

    def generator(self, subset: str, label: int) -> str:
        """Return what the column ``generator`` says of an image."""
        return REAL_GENERATOR if label == REAL else self.generators.get(subset, subset)

    def source_of_real(self, subset: str) -> str:
        """Return where the photographs of a subset are from, as far as the parameters say: the subset's own name otherwise."""
        return next((source for name, source in self.sources_of_real.items() if fnmatchcase(subset, name)), subset)

    def asks_for(self, split: str, subset: str) -> bool:
        """Return whether a pattern of the split could find a folder of this subset."""
        spellings = [subset, *(folder for folder, name in self.names.items() if name == subset)]
        components = [pattern.split("/")[_naming(pattern)].removeprefix(MARK) for pattern in self.patterns(split)]
        return any(fnmatchcase(name, component) for component in components for name in spellings)

    def unexpected(self, found: Mapping[str, Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, dict[str, int]]]:
        """Return the published subsets that ``found`` (split -> subset -> kind -> images) lacks or has other counts of.

        Subsets that no pattern asks for are left out. An entry holds ``real`` and ``fake``, and ``real_published`` and
        ``fake_published`` where the counts are published. Training images drawn for validation count as training images here.
        """
        differing: dict[str, dict[str, dict[str, int]]] = {}
        for split, subsets in self.expected.items():
            for subset, counts in subsets.items():
                parts = ("train", "val") if split == "train" and self.val_fraction else (split,)
                counted = [found.get(part, {}).get(subset, {}) for part in parts]
                here = {kind: sum(part.get(kind, 0) for part in counted) for kind in ("real", "fake")}
                published = {} if counts is None else {"real_published": counts[0], "fake_published": counts[1]}
                missing, other = not any(here.values()), counts is not None and counts != [here["real"], here["fake"]]
                if (missing or other) and self.asks_for(split, subset):
                    differing.setdefault(split, {})[subset] = {**here, **published}
        return differing


def _drawn(image_id: str, digits: slice, share: float) -> bool:
    """Return whether an image is one of the ``share`` (0 to 1) of images that 16 digits of their ids draw."""
    return int(image_id[digits], 16) < share * 2**64


def _words(labels: Mapping[str, int]) -> dict[str, str]:
    return {name: LABEL_WORDS[label] for name, label in labels.items()}


def _naming(pattern: str) -> int:
    """Return which component of a pattern names the subset."""
    parts = pattern.split("/")
    return next((at for at, part in enumerate(parts) if part.startswith(MARK)), len(parts) - 1)


@functools.lru_cache(maxsize=65_536)
def _subset(patterns: tuple[str, ...], folder: str) -> str | None:
    names = folder.split("/")
    for pattern in patterns:
        parts = pattern.split("/")
        plain = [part.removeprefix(MARK) for part in parts]
        if len(parts) <= len(names) and all(fnmatchcase(name, part) for name, part in zip(names, plain, strict=False)):
            return names[_naming(pattern)]
    return None
