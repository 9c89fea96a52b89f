"""Which reals a subset of fakes is compared with. One rule, for the scores (`resampling`) and for the files (`file_bias`)."""

from __future__ import annotations

from collections.abc import Mapping


def reals_for(n_real: Mapping[str, int], n_fake: Mapping[str, int], named: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return for every subset the names of the subsets whose reals it is compared with.

    ``n_real``, ``n_fake``: the number of images of every subset of the test split, under the same names. ``named`` is the
    parameter `dataset.reals`: a subset and the one whose reals it uses. A subset that is not named uses its own reals. If it has
    none, it uses those of all subsets without fakes, as in UniversalFakeDetect, where reals lie in folders of their own.

    Raises `ValueError` if ``named`` gives reals to a subset without fakes, or takes them from a subset without reals.
    """
    for subset, other in named.items():
        _check("subset", subset, n_fake, "fakes")
        _check(f"subset that lends its reals to {subset!r}", other, n_real, "reals")
    shared = tuple(name for name in n_real if not n_fake[name])
    return {name: (named[name],) if name in named else (name,) if n_real[name] else shared for name in n_real}


def _check(role: str, name: str, count: Mapping[str, int], kind: str) -> None:
    if not count.get(name):
        known = ", ".join(other for other in count if count[other]) or "none"
        raise ValueError(
            f"dataset.reals: the {role} is {name!r}, which has no {kind} in the test split; subsets with {kind}: {known}"
        )
