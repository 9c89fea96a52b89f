"""A look at a data set's folders before anything is decoded: a wrong pattern stops the index at once, not after an hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nullscope.contracts import LABEL_FOLDERS, SPLITS
from nullscope.data.folders import HIDDEN, LABEL_NAMES, OUTSIDE, DatasetError, DatasetParams, Found, Ignored, Refused, walk

UNMATCHED = "not_in_train_or_test"  # why files are ignored, beside folders.HIDDEN and folders.OUTSIDE
IGNORED = (HIDDEN, OUTSIDE, UNMATCHED)
SHOWN = 10  # names listed in an error


@dataclass
class Survey:
    """What lies below the root of a data set."""

    files: Counter[tuple[str, int]] = field(default_factory=Counter)  # (folder, label) -> files, in matched folders
    refused: int = 0
    ignored: Counter[tuple[str, str]] = field(default_factory=Counter)  # (why, folder) -> files

    @property
    def total(self) -> int:
        """Number of files that `wanted` yields."""
        return self.files.total() + self.refused

    def ignored_because(self, why: str) -> dict[str, int]:
        """Return folder -> files for one of the reasons in IGNORED."""
        return {folder: files for (reason, folder), files in sorted(self.ignored.items()) if reason == why}


def survey(params: DatasetParams) -> Survey:
    """Walk the data set and count its files. Raises `DatasetError` if a pattern or a split is left without files."""
    found = Survey()
    depth = max(len(pattern.split("/")) for pattern in params.train + params.test)
    for item in walk(Path(params.root)):
        if isinstance(item, Ignored):
            found.ignored[item.why, _shortened(item.folder, depth)] += item.files
        elif not _belongs(params, item):
            found.ignored[UNMATCHED, _shortened(item.folder or ".", depth)] += 1
        elif isinstance(item, Refused):
            found.refused += 1
        else:
            found.files[item.folder, item.label] += 1
    _check_patterns(params, found)
    check_classes(params, {split: _labels(params, found, split) for split in SPLITS}, "")
    _check_generators(params, found)
    return found


def wanted(params: DatasetParams) -> Iterator[Found | Refused]:
    """Yield the files of the data set, and what the walk refuses of it."""
    for item in walk(Path(params.root)):
        if not isinstance(item, Ignored) and _belongs(params, item):
            yield item


def _belongs(params: DatasetParams, item: Found | Refused) -> bool:
    """A file belongs to the data set if a pattern matches its folder; what is refused above the label folders, always."""
    return item.folder is None or bool(params.splits(item.folder))


def check_classes(params: DatasetParams, labels: dict[str, set[int]], after: str) -> None:
    """Raise `DatasetError` unless both splits hold both labels; ``after`` says what may have taken them away."""
    for split in SPLITS:
        missing = [name for name, label in LABEL_FOLDERS.items() if label not in labels[split]]
        if missing:
            held = ", ".join(LABEL_NAMES[label] for label in sorted(labels[split])) or "nothing"
            raise DatasetError(
                f"data set `{params.name}`: the split `{split}` holds {held} and nothing in {' or '.join(missing)}{after}; "
                f"dataset.{split} = {params.train if split == 'train' else params.test} must reach images of both kinds"
            )


def _labels(params: DatasetParams, found: Survey, split: str) -> set[int]:
    return {label for folder, label in found.files if split in params.splits(folder)}


def _check_patterns(params: DatasetParams, found: Survey) -> None:
    folders = {folder for folder, _ in found.files}
    unmatched = {folder for why, folder in found.ignored if why == UNMATCHED}
    if not folders | unmatched:
        raise DatasetError(
            f"data set `{params.name}`: below dataset.root = {params.root} no file lies in a folder named exactly "
            f"{' or '.join(LABEL_FOLDERS)}; found files in {_listed(folder for why, folder in found.ignored if why == OUTSIDE)}. "
            "Rename the folders (GenImage's `nature` is 0_real, its `ai` is 1_fake)"
        )
    for split, patterns in (("train", params.train), ("test", params.test)):
        for pattern in patterns:
            alone = params.model_copy(update={split: [pattern]})
            if not any(alone.subset(split, folder) for folder in folders):
                raise DatasetError(
                    f"data set `{params.name}`: the pattern {pattern!r} of dataset.{split} matches no folder below "
                    f"dataset.root = {params.root}; found {_listed(folders | unmatched)}. "
                    f"A pattern names the folder above {' and '.join(LABEL_FOLDERS)}"
                )


def _check_generators(params: DatasetParams, found: Survey) -> None:
    subsets = {params.subset(split, folder) for folder, _ in found.files for split in params.splits(folder)}
    unknown = sorted(set(params.generators) - subsets)
    if unknown:
        raise DatasetError(
            f"data set `{params.name}`: dataset.generators names {', '.join(unknown)}, which is no subset; "
            f"found {_listed(subset for subset in subsets if subset)}"
        )


def _shortened(folder: str, depth: int) -> str:
    """Return a folder's first components: class folders below a subset would fill the report."""
    return "/".join(folder.split("/")[:depth])


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return (", ".join(ordered[:SHOWN]) or "none") + more
