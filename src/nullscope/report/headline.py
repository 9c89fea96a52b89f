"""The sentences at the head of the page. Each says only what was measured, with its interval where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nullscope.evaluation.intervals import ALPHA
from nullscope.evaluation.paired import Tables
from nullscope.evaluation.pairs import rivals
from nullscope.evaluation.seeds import Spread, is_significant
from nullscope.evaluation.shortcut import Shortcut
from nullscope.evaluation.summary import BEST_BY, Metrics, by_detector, spread, subsets_of
from nullscope.report.project import is_official
from nullscope.report.sentences import listed, mean_text, percent, points
from nullscope.report.tables.comparison import differences_to

MANY = 3  # detectors without a clear difference: more than these are counted, not named
ONE_SIDED = 0.1  # a detector that is right on less of one kind calls nearly everything the other kind


def headline(summary: Mapping[str, Metrics], shortcut: Shortcut | None, tables: Tables, fixed: frozenset[str]) -> list[str]:
    """Return the findings of the page's head, the most important first. ``tables``, ``fixed``: as in `paired.compare`."""
    everything = by_detector(summary)
    official = {name: own for name, own in everything.items() if is_official(name)}
    runs = {name: own for name, own in everything.items() if name not in official}
    sentences = [
        _best(runs, tables, fixed),
        _official(official),
        differences(tables, fixed),
        _moved(shortcut) if shortcut else "",
    ]
    sentences += [_gap(runs), hardest_generator(everything, subsets_of(summary)), *_one_sided(everything), _left_out(summary)]
    return [sentence for sentence in sentences if sentence]


def differences(tables: Tables, fixed: frozenset[str]) -> str:
    """Return which detectors differ from the first in AUROC on unseen generators, by the test of the comparison; or nothing."""
    first = next(iter(tables))
    less = {name: own for name, own in differences_to(first, tables, "auroc_unseen", fixed).items() if name not in fixed}
    if not less or any(own.p is None for own in less.values()):
        return ""
    clear = [f"{name} ({points(own)})" for name, own in less.items() if is_significant(own)]
    unclear = [f"{name} ({points(own)})" for name, own in less.items() if not is_significant(own)]
    said = [f"{listed(clear)} {'differ' if len(clear) > 1 else 'differs'} from {first}"] if clear else []
    rest = f"the other {len(unclear)}" if clear and len(unclear) > MANY else listed(unclear) if unclear else ""
    said += [f"{rest} {'are' if len(unclear) > 1 else 'is'} not separable from {'it' if clear else first}"] if rest else []
    return f"AUROC on unseen generators: {'; '.join(said)} (p adjusted for all, below 0.05)."


def hardest_generator(runs: Mapping[str, Sequence[Metrics]], subsets: Iterable[str]) -> str:
    """Return which generator's fakes the best detector finds least of; nothing with fewer than two generators."""
    best = {}
    for subset in subsets:
        found = [spread([run["subsets"].get(subset, {}) for run in own], "f_acc") for own in runs.values()]
        best[subset] = max(value.mean for value in found if value)
    if len(best) < 2:
        return ""
    hardest = min(best, key=best.__getitem__)
    return f"The hardest generator is {hardest}: no detector finds more than {100 * best[hardest]:.1f} % of it."


def _best(runs: Mapping[str, Sequence[Metrics]], tables: Tables, fixed: frozenset[str]) -> str:
    balanced = {name: spread(own, BEST_BY) for name, own in runs.items()}
    ranked = sorted((name for name in balanced if balanced[name]), key=lambda name: -balanced[name].mean)
    if not ranked:
        return ""
    first, *others = ranked
    unseen = spread(runs[first], "f_acc_unseen") if any(run.get("f_acc_seen") for run in runs[first]) else None
    whose = "of generators it was not trained on" if unseen else "of the test set"
    found = unseen or spread(runs[first], "f_acc")
    facts = f"calls {mean_text(spread(runs[first], 'r_acc'))} of the reals real and finds {mean_text(found)} of the fakes"
    if not others:
        return f"{first} has a balanced accuracy of {percent(balanced[first])}: it {facts} {whose}."
    said = f"{first} has the highest balanced accuracy, {percent(balanced[first])}: it {facts} {whose}."
    return f"{said} {_rivals(first, others, tables, fixed)}"


def _rivals(first: str, others: Sequence[str], tables: Tables, fixed: frozenset[str]) -> str:
    """Return which of the others the test tells apart from the first."""
    p = rivals(first, others, tables, BEST_BY, fixed)
    if None in p.values():
        seeds = min(len(tables[name]) for name in [first, *others])
        words = "One seed" if seeds == 1 else f"{seeds} seeds"
        return f"{words}: another training could put another detector first, so none is called better here."
    alike = [name for name in others if p[name] >= ALPHA]
    if not alike:
        whom = "the other" if len(others) == 1 else f"all {len(others)} others"
        return f"It is better than {whom} (p adjusted for all pairs, below 0.05)."
    return f"Not separable from it: {listed(alike)}."


def _left_out(summary: Mapping[str, Metrics]) -> str:
    """Return which subsets the means of some numbers are without."""
    found: dict[tuple[str, ...], list[str]] = {}
    for key, names in next(iter(summary.values())).get("left_out", {}).items():
        found.setdefault(tuple(names), []).append(key)
    each = [f"{', '.join(keys)} without {listed(names)}" for names, keys in found.items()]
    return f"Means over fewer subsets, for want of reals: {'; '.join(each)}." if each else ""


def _official(runs: Mapping[str, Sequence[Metrics]]) -> str:
    """Return what released weights reach: they were trained on other data, and are not ranked among those trained here."""
    found = {name: spread(own, "mean_balanced") for name, own in runs.items()}
    each = [f"{name} {percent(value)}" for name, value in found.items() if value]
    return f"Weights that their authors released, on the same images, balanced accuracy: {listed(each)}." if each else ""


def _gap(runs: Mapping[str, Sequence[Metrics]]) -> str:
    gaps = {}
    for name, own in runs.items():
        seen, unseen = spread(own, "f_acc_seen"), spread(own, "f_acc_unseen")
        if seen and unseen:
            gaps[name] = 100 * (unseen.mean - seen.mean)
    if not gaps:
        return ""
    low, high = min(gaps, key=gaps.__getitem__), max(gaps, key=gaps.__getitem__)
    if low == high:
        return f"From seen to unseen generators fake accuracy changes by {gaps[low]:+.1f} points ({low})."
    return (
        f"From seen to unseen generators fake accuracy changes by {gaps[high]:+.1f} ({high}) to {gaps[low]:+.1f} points ({low})."
    )


def _one_sided(runs: Mapping[str, Sequence[Metrics]]) -> list[str]:
    sentences = []
    for key, other in (("r_acc", "fake"), ("f_acc", "real")):
        low = {name: spread(own, key) for name, own in runs.items()}
        names = [name for name, value in low.items() if value and value.mean < ONE_SIDED]
        if names:
            sentences.append(f"Nearly everything is called {other} by {', '.join(names)}: its averages say little.")
    return sentences


def _moved(found: Shortcut) -> str:
    moved = {name: spread(own, "colour_auroc") for name, own in by_detector(found.runs).items()}
    known = {name: value for name, value in moved.items() if value}
    if not found.share or not known:
        return ""
    most, least = max(known, key=lambda name: _off(known[name])), min(known, key=lambda name: _off(known[name]))
    nearest = f", the farthest off, and {percent(known[least])} for {least}, the nearest" if len(known) > 1 else ""
    return (
        f"The object's colour told the label in {100 * found.share:.4g} % of the training pictures. The colour AUROC, 50 ± "
        f"{100 * found.chance:.1f} % for a score that ignores it, is {percent(known[most])} for {most}{nearest}."
    )


def _off(value: Spread) -> float:
    return abs(value.mean - 0.5)
