"""What the numbers say, in sentences: the head of the page and the alternative texts of the figures. Only what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from nullscope.contracts import FAKE
from nullscope.report.curves import Curves
from nullscope.report.inputs import Example, History, Metrics
from nullscope.report.layout import NO_NUMBER, Spread
from nullscope.report.tables import by_detector, spread, subsets_of

ONE_SIDED = 0.1  # a detector that is right on less of one kind says the same of nearly everything


def headline(summary: dict[str, Metrics]) -> list[str]:
    """Return the findings of the page's head, the most important first."""
    runs = by_detector(summary)
    sentences = [_best(runs), _gap(runs), _hardest(runs, subsets_of(summary)), *_one_sided(runs)]
    return [sentence for sentence in sentences if sentence]


def generators(summary: dict[str, Metrics]) -> str:
    """Return what the bars per generator show."""
    runs = by_detector(summary)
    means = {name: (_percent(spread(own, "r_acc")), _percent(spread(own, "f_acc"))) for name, own in runs.items()}
    each = "; ".join(f"{name}: reals {reals}, fakes {fakes}" for name, (reals, fakes) in means.items())
    return f"Bars of accuracy per generator and detector. Means: {each}. {_hardest(runs, subsets_of(summary))}"


def roc(curves: dict[str, Curves]) -> str:
    """Return what the ROC curves show."""
    ranked = sorted(curves, key=lambda name: -curves[name].auroc_S.mean())
    each = ", ".join(f"{name} {100 * curves[name].auroc_S.mean():.1f} %" for name in ranked)
    few = max(curves, key=lambda name: curves[name].tpr_1_S.mean())
    found = f"at 1 % false alarms {few} finds the most fakes, {100 * curves[few].tpr_1_S.mean():.1f} %"
    return f"ROC curves. Area under the curve: {each}; {found}."


def logits(curves: dict[str, Curves]) -> str:
    """Return what the histograms of logits show: which side of the threshold each kind lies on."""
    each = []
    for name, own in curves.items():
        above = {kind: 100 * share[own.histogram.edges[:-1] >= 0].sum() for kind, share in own.histogram.shares.items()}
        parts = [f"{above['real']:.0f} % of the reals"]
        parts += [f"{above[kind]:.0f} % of the {kind} fakes" for kind in ("seen", "unseen") if own.histogram.shares[kind].any()]
        each.append(f"{name}: {', '.join(parts)}")
    return f"Histograms of logits. Above the threshold lie, by detector, {'; '.join(each)}."


def calibration(errors: Mapping[str, float]) -> str:
    """Return what the calibration curves show."""
    each = ", ".join(f"{name} {100 * errors[name]:.1f} %" for name in sorted(errors, key=lambda name: errors[name]))
    return f"Share of fakes against predicted probability. Expected calibration error, the best first: {each}."


def training(histories: dict[str, list[History]]) -> str:
    """Return what the training curves show."""
    each = []
    for name, runs in histories.items():
        loss = runs[0].losses["loss"]
        window = max(1, len(loss) // 20)
        each.append(f"{name} from {np.nanmean(loss[:window]):.3g} to {np.nanmean(loss[-window:]):.3g} in {len(loss):,} steps")
    return f"Loss over the training of each detector: {'; '.join(each)}."


def examples(shown: list[Example], grid: int) -> str:
    """Return what the examples show."""
    kinds = " and ".join(f"a {'fake' if example.label == FAKE else 'real'} test image" for example in shown)
    return f"On the left {kinds}; on the right, for each, the mosaic of {grid * grid} of its patches."


def _best(runs: dict[str, list[Metrics]]) -> str:
    balanced = {name: spread(own, "mean_balanced") for name, own in runs.items()}
    ranked = sorted((name for name in balanced if balanced[name]), key=lambda name: -balanced[name].mean)
    if not ranked:
        return ""
    own, best = runs[ranked[0]], balanced[ranked[0]]
    unseen = spread(own, "f_acc_unseen")
    whose = "of generators it was not trained on" if unseen else "of the test set"
    found = unseen or spread(own, "f_acc")
    facts = f"calls {_mean(spread(own, 'r_acc'))} of the reals real and finds {_mean(found)} of the fakes"
    if len(ranked) == 1:
        return f"{ranked[0]} has a balanced accuracy of {_percent(best)}: it {facts} {whose}."
    second = balanced[ranked[1]]
    overlap = "; their seeds overlap" if best.seeds > 1 and second.high >= best.low else ""
    return (
        f"{ranked[0]} has the highest balanced accuracy, {_percent(best)}: it {facts} {whose}. "
        f"{ranked[1]} follows with {_percent(second)}{overlap}."
    )


def _gap(runs: dict[str, list[Metrics]]) -> str:
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


def _hardest(runs: dict[str, list[Metrics]], subsets: Iterable[str]) -> str:
    best = {}
    for subset in subsets:
        found = [spread([run["subsets"].get(subset, {}) for run in own], "f_acc") for own in runs.values()]
        best[subset] = max(value.mean for value in found if value)
    if len(best) < 2:
        return ""
    hardest = min(best, key=best.__getitem__)
    return f"The hardest generator is {hardest}: no detector finds more than {100 * best[hardest]:.1f} % of it."


def _one_sided(runs: dict[str, list[Metrics]]) -> list[str]:
    sentences = []
    for key, other in (("r_acc", "fake"), ("f_acc", "real")):
        low = {name: spread(own, key) for name, own in runs.items()}
        names = [name for name, value in low.items() if value and value.mean < ONE_SIDED]
        if names:
            sentences.append(f"Nearly everything is called {other} by {', '.join(names)}: its averages say little.")
    return sentences


def _mean(value: Spread | None) -> str:
    return f"{100 * value.mean:.1f} %" if value else NO_NUMBER


def _percent(value: Spread | None) -> str:
    """Return the mean, and over several seeds the lowest and the highest."""
    several = value is not None and value.seeds > 1
    return _mean(value) + (f" ({100 * value.low:.1f} to {100 * value.high:.1f})" if several else "")
