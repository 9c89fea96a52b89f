"""The sentences at the head of the page. Each says only what was measured, with its interval where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nullscope.evaluation.seeds import Spread, is_outside
from nullscope.evaluation.shortcut import Shortcut
from nullscope.evaluation.summary import Metrics, by_detector, difference, spread, subsets_of
from nullscope.report.project import is_official
from nullscope.report.sentences import listed, mean_text, percent, points

MANY = 3  # detectors without a clear difference: more than these are counted, not named
ONE_SIDED = 0.1  # a detector that is right on less of one kind calls nearly everything the other kind


def headline(summary: Mapping[str, Metrics], shortcut: Shortcut | None) -> list[str]:
    """Return the findings of the page's head, the most important first."""
    everything = by_detector(summary)
    official = {name: own for name, own in everything.items() if is_official(name)}
    runs = {name: own for name, own in everything.items() if name not in official}
    sentences = [_best(runs), _official(official), differences(summary), _moved(shortcut) if shortcut else ""]
    sentences += [_gap(runs), hardest_generator(everything, subsets_of(summary)), *_one_sided(everything)]
    return [sentence for sentence in sentences if sentence]


def differences(summary: Mapping[str, Metrics]) -> str:
    """Return which detectors differ from the first in AUROC on unseen generators, by intervals paired by seed; or nothing."""
    runs = by_detector(summary)
    first = next(iter(runs))
    trained = {name: own for name, own in runs.items() if name != first and not is_official(name)}
    less = {name: difference(own, runs[first], "auroc_unseen") for name, own in trained.items()}
    if not less or any(value is None or value.span != "interval" for value in less.values()):
        return ""
    clear = [f"{name} ({points(value)})" for name, value in less.items() if is_outside(value, (0, 0))]
    unclear = [f"{name} ({points(value)})" for name, value in less.items() if not is_outside(value, (0, 0))]
    said = [f"it excludes zero for {listed(clear)}"] if clear else []
    rest = f"the other {len(unclear)}" if clear and len(unclear) > MANY else listed(unclear) if unclear else ""
    said += [f"it includes zero for {rest}"] if rest else []
    return f"AUROC on unseen generators less that of {first} at the same seed has a 95 % interval: {'; '.join(said)}."


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


def _best(runs: Mapping[str, Sequence[Metrics]]) -> str:
    balanced = {name: spread(own, "mean_balanced") for name, own in runs.items()}
    ranked = sorted((name for name in balanced if balanced[name]), key=lambda name: -balanced[name].mean)
    if not ranked:
        return ""
    own, best = runs[ranked[0]], balanced[ranked[0]]
    unseen = spread(own, "f_acc_unseen")
    whose = "of generators it was not trained on" if unseen else "of the test set"
    found = unseen or spread(own, "f_acc")
    facts = f"calls {mean_text(spread(own, 'r_acc'))} of the reals real and finds {mean_text(found)} of the fakes"
    if len(ranked) == 1:
        return f"{ranked[0]} has a balanced accuracy of {percent(best)}: it {facts} {whose}."
    second = balanced[ranked[1]]
    spans = {"range": "seeds", "interval": "95 % intervals"}.get(best.span)
    overlap = f"; their {spans} overlap" if spans and second.high >= best.low else ""
    return (
        f"{ranked[0]} has the highest balanced accuracy, {percent(best)}: it {facts} {whose}. "
        f"{ranked[1]} follows with {percent(second)}{overlap}."
    )


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
