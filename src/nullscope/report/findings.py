"""What the numbers say, in sentences: the head of the page and the alternative texts of the figures. Only what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nullscope.core.contracts import FAKE
from nullscope.report.curves import Curves
from nullscope.report.examples import Example
from nullscope.report.inputs import History, Metrics
from nullscope.report.layout import NO_NUMBER, Column, Spread, is_clear, spread_text, text
from nullscope.report.seeds import by_detector, difference, mean_of, spread
from nullscope.report.semantics import KINDS, Semantics
from nullscope.report.separation import CaptionsAlone
from nullscope.report.shortcut import Shortcut
from nullscope.report.tables import subsets_of
from nullscope.world.scenes import FAKE_COLOURS, REAL_COLOURS

MANY = 3  # of what is not remarkable are not all named in a sentence
ONE_SIDED = 0.1  # a detector that is right on less of one kind says the same of nearly everything


def headline(summary: dict[str, Metrics], shortcut: Shortcut | None) -> list[str]:
    """Return the findings of the page's head, the most important first."""
    runs = by_detector(summary)
    sentences = [_best(runs), differences(summary), _moved(shortcut) if shortcut else ""]
    sentences += [_gap(runs), _hardest(runs, subsets_of(summary)), *_one_sided(runs)]
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


def comparison(summary: dict[str, Metrics]) -> str:
    """Return what the dots per detector show: the means on unseen generators."""
    runs = by_detector(summary)
    each = [
        f"{name}: AUROC {_percent(mean_of(own, 'auroc_unseen'))}, fakes found {_percent(mean_of(own, 'f_acc_unseen'))}"
        for name, own in runs.items()
    ]
    return f"A dot per seed, the mean and its 95 % interval. On unseen generators, {'; '.join(each)}. {differences(summary)}"


def differences(summary: dict[str, Metrics]) -> str:
    """Return which detectors differ from the first in AUROC on unseen generators, by intervals paired by seed; or nothing."""
    runs = by_detector(summary)
    first = next(iter(runs))
    less = {name: difference(own, runs[first], "auroc_unseen") for name, own in runs.items() if name != first}
    if not less or any(value is None or value.span != "interval" for value in less.values()):
        return ""
    clear = [f"{name} ({points(value)})" for name, value in less.items() if is_clear(value, (0, 0))]
    unclear = [f"{name} ({points(value)})" for name, value in less.items() if not is_clear(value, (0, 0))]
    said = [f"it excludes zero for {_listed(clear)}"] if clear else []
    rest = f"the other {len(unclear)}" if clear and len(unclear) > MANY else _listed(unclear) if unclear else ""
    said += [f"it includes zero for {rest}"] if rest else []
    return f"AUROC on unseen generators less that of {first} at the same seed has a 95 % interval: {'; '.join(said)}."


def colours(shortcut: Shortcut) -> str:
    """Return how the shortcut was laid, in a sentence or two."""
    if not shortcut.share:
        return (
            "This is the control: the object's colour told nothing in training. What is found here is chance in these few test "
            "pictures, or what colours do to a score by themselves."
        )
    return (
        f"In {100 * shortcut.share:.4g} % of the training pictures the colour of the object told the label: there it was "
        f"{_listed(REAL_COLOURS)} for reals and {_listed(FAKE_COLOURS)} for fakes, each at random; in the others, and in "
        "testing, any of the six for both."
    )


def shortcut(found: Shortcut) -> str:
    """Return how far the colour moves the score of each detector."""
    runs = by_detector(found.runs)
    each = ", ".join(f"{name} {_percent(spread(own, 'colour_auroc'))}" for name, own in runs.items())
    conflict = {name: (spread(own, "auroc_agree"), spread(own, "auroc_conflict")) for name, own in runs.items()}
    areas = ", ".join(f"{name} {_mean(agree)} and {_mean(other)}" for name, (agree, other) in conflict.items())
    return (
        f"The chance that a picture with a colour of the fakes scores above one with a colour of the reals: {each}; of a score "
        f"that knows no colour, 50 ± {100 * found.chance:.1f} %. AUROC where the colour agrees with its label in training and "
        f"where it conflicts: {areas}."
    )


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


def features(separable: Mapping[str, Spread | None]) -> str:
    """Return what the maps of the features go with: how well a linear classifier tells real from fake on them."""
    known = {name: value for name, value in separable.items() if value}
    each = ", ".join(f"{name} {percent(known[name])}" for name in sorted(known, key=lambda name: -known[name].mean))
    return f"Maps of each detector's features. Cross-validated AUROC of a linear classifier on them, the best first: {each}."


def semantics(found: Semantics) -> str:
    """Return what came out of NS-Net's figure 1: what mismatched captions add to the separation, before and after."""
    area = found.auroc
    both = {kind: f"{percent(area[kind, 'matched'])} and {percent(area[kind, 'mismatched'])}" for kind in KINDS}
    added = {kind: f"{100 * (area[kind, 'mismatched'].mean - area[kind, 'matched'].mean):+.1f} points" for kind in KINDS}
    return (
        f"AUROC of real against fake in the matched and in the mismatched set: captions alone {both['captions']}; frozen "
        f"features {both['before']}, {added['before']}; without {found.removed} directions {both['after']}, {added['after']}."
    )


def captions_alone(found: CaptionsAlone) -> str:
    """Return what a classifier of captions finds."""
    return (
        f"A linear classifier that sees only the frozen text features of {found.n_train:,} training captions is right on "
        f"{100 * found.accuracy:.1f} % of {found.n_test:,} test captions ({100 * found.n_fake / found.n_test:.0f} % of them of "
        f"fakes); its balanced accuracy is {100 * found.balanced_accuracy:.1f} %, its AUROC {100 * found.auroc:.1f} %. "
        "DGS-Net reports an accuracy of about 60 % on its data."
    )


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
    spans = {"range": "seeds", "interval": "95 % intervals"}.get(best.span)
    overlap = f"; their {spans} overlap" if spans and second.high >= best.low else ""
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


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _mean(value: Spread | None) -> str:
    return f"{100 * value.mean:.1f} %" if value else NO_NUMBER


def _percent(value: Spread | None) -> str:
    """Return the mean with what it spans: ``81.2 ± 2.0 %`` or ``81.2 % (76.0 to 88.0)``."""
    return percent(value) if value else NO_NUMBER


def percent(value: Spread) -> str:
    """Return a rate with what it spans: ``81.2 ± 2.0 %`` or ``81.2 % (76.0 to 88.0)``."""
    return _with_span(value, Column("", ""), "%")


def points(value: Spread) -> str:
    """Return a difference of rates with what it spans: ``+3.1 ± 2.0 points``."""
    return _with_span(value, Column("", "", "points"), "points")


def _with_span(value: Spread, column: Column, unit: str) -> str:
    shown, spanned = text(value, column), spread_text(value, column)
    if value.span == "range":
        return f"{shown} {unit} ({spanned})"
    return f"{shown}{spanned and ' '}{spanned} {unit}"
