"""A look at a data set's folders before anything is decoded: a wrong pattern stops the index at once, not after an hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nullscope.core.contracts import MAY_BE_EMPTY, SPLITS
from nullscope.sources.dataset import LABEL_WORDS, DatasetError, DatasetParams
from nullscope.sources.folders import HIDDEN, OUTSIDE, UNPACKED, Found, Ignored, Packed, Refused, unpack, walk
from nullscope.sources.manifest import read_manifest

UNMATCHED = "in_no_split"  # why files are ignored, beside folders.HIDDEN and folders.OUTSIDE
IGNORED = (HIDDEN, OUTSIDE, UNPACKED, UNMATCHED)
SHOWN = 10  # names listed in an error
SHARE = ". `-S 'dataset.val=[]' -S dataset.val_fraction=0.1` takes a share of the training images instead"


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
    depth = max(len(pattern.split("/")) for pattern in params.train + params.val + params.test)
    for item in contents(params):
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
    _check_names(params, found)
    return found


def unopened(params: DatasetParams) -> Iterator[Found | Refused | Ignored | Packed]:
    """Yield what the manifest of the data set lists or, without one, what its folders hold. No archive is opened."""
    root = params.folder
    yield from read_manifest(root / params.manifest) if params.manifest else walk(root, params.label_folders)


def contents(params: DatasetParams) -> Iterator[Found | Refused | Ignored]:
    """Yield what `unopened` yields, with the members of every archive in place of the archive."""
    for item in unopened(params):
        if isinstance(item, Packed):
            yield from unpack(params.folder, item)
        else:
            yield item


def wanted(params: DatasetParams) -> Iterator[Found | Refused]:
    """Yield the files that belong to a split, and those that are refused."""
    for item in contents(params):
        if not isinstance(item, Ignored) and _belongs(params, item):
            yield item


def _belongs(params: DatasetParams, item: Found | Refused) -> bool:
    """Return whether a pattern matches the folder of a file. What is refused above the label folders has none, and belongs."""
    return item.folder is None or bool(params.splits(item.folder))


def check_classes(params: DatasetParams, labels: dict[str, set[int]], after: str) -> None:
    """Raise `DatasetError` unless every split holds both labels, or none where it may be empty.

    ``labels`` are those found, by split; ``after`` says in the error what may have taken some away.
    """
    for split in SPLITS:
        if split in MAY_BE_EMPTY and not labels[split]:
            continue
        missing = [f"{word}s" for label, word in LABEL_WORDS.items() if label not in labels[split]]
        if missing:
            held = ", ".join(f"{LABEL_WORDS[label]}s" for label in sorted(labels[split])) or "nothing"
            raise DatasetError(
                f"data set `{params.name}`: the split `{split}` holds {held} and no {' or '.join(missing)}{after}; "
                f"{_asked_for(params, split)} must reach images of both kinds (label folders: {_spelt(params)})"
            )


def _labels(params: DatasetParams, found: Survey, split: str) -> set[int]:
    return {label for folder, label in found.files if split in params.splits(folder)}


def _check_patterns(params: DatasetParams, found: Survey) -> None:
    folders = {folder for folder, _ in found.files}
    unmatched = {folder for why, folder in found.ignored if why == UNMATCHED}
    if not folders | unmatched:
        raise DatasetError(
            f"data set `{params.name}`: below dataset.root = {params.root} no file lies in a folder named exactly "
            f"{' or '.join(params.labels)}; found files in {_listed(folder for why, folder in found.ignored if why == OUTSIDE)}. "
            "Say what your label folders are called, such as `-S 'dataset.labels={nature: real, ai: fake}'`"
        )
    _check_validation(params, folders, unmatched)
    if params.manifest:
        return  # without a column `split` nothing lies in train/ or test/, with it nothing in all/
    for split in SPLITS:
        for pattern in getattr(params, split):
            alone = params.model_copy(update={split: [pattern]})
            published = any(alone.asks_for(split, subset) for subset in params.expected.get(split, {}))  # reported if missing
            if not published and not any(alone.subset(split, folder) for folder in folders):
                raise DatasetError(
                    f"data set `{params.name}`: the pattern {pattern!r} of dataset.{split} matches no folder below "
                    f"dataset.root = {params.root}; found {_listed(folders | unmatched)}. "
                    f"A pattern names the folder above {' and '.join(params.labels)}{SHARE if split == 'val' else ''}"
                )


def _check_validation(params: DatasetParams, folders: set[str], unmatched: set[str]) -> None:
    """Raise `DatasetError` if images of ``val`` are those of another split too, or a manifest's are left out."""
    for folder in sorted(folders) if params.val else []:
        splits = params.splits(folder)
        if "val" in splits and len(splits) > 1:
            other = next(split for split in splits if split != "val")
            raise DatasetError(
                f"data set `{params.name}`: dataset.val = {params.val} and dataset.{other} = {getattr(params, other)} both match "
                f"the folder {folder}; expected other images for validation{SHARE}"
            )
    left_out = sorted(folder for folder in unmatched if folder.startswith("val/"))
    if params.manifest and left_out:
        raise DatasetError(
            f"data set `{params.name}`: rows of the manifest say `val` (subset {left_out[0].removeprefix('val/')} for one), and "
            f"dataset.val = {params.val} does not match them; give `-S 'dataset.val=[val/*]' -S dataset.val_fraction=0`"
        )


def _check_names(params: DatasetParams, found: Survey) -> None:
    subsets = {params.subset(split, folder) for folder, _ in found.files for split in params.splits(folder)}
    published = {subset for names in params.expected.values() for subset in names}
    for key, named in (("generators", set(params.generators)), ("reals", {*params.reals, *params.reals.values()})):
        unknown = sorted(named - subsets - published)
        if unknown:
            raise DatasetError(
                f"data set `{params.name}`: dataset.{key} names {', '.join(unknown)}, which is no subset; "
                f"found {_listed(subset for subset in subsets if subset)}"
            )


def _asked_for(params: DatasetParams, split: str) -> str:
    """Return the parameter that decides which images a split holds."""
    if split == "val" and params.val_fraction:
        return f"dataset.val_fraction = {params.val_fraction} (0 for no validation images)"
    return f"dataset.{split} = {getattr(params, split)}"


def _spelt(params: DatasetParams) -> str:
    return ", ".join(f"{name} is {word}" for name, word in params.labels.items())


def _shortened(folder: str, depth: int) -> str:
    """Return a folder's first components: class folders below a subset would fill the report."""
    return "/".join(folder.split("/")[:depth])


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return (", ".join(ordered[:SHOWN]) or "none") + more
