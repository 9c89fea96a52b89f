"""What degraded images do to the detectors: DGS-Net's tables 5 and 6, with reals and fakes apart.

The papers print balanced accuracy alone. A detector of pixel statistics calls everything real once images have been compressed,
and keeps half of its balanced accuracy that way. So reals and fakes stand apart here, with AUROC beside them, which needs no
threshold. The threshold is that of clean images throughout.
"""

from __future__ import annotations

from collections.abc import Mapping

from nullscope.core.contracts import CLEAN
from nullscope.evaluation.robustness import degradations_of, metrics_under
from nullscope.evaluation.summary import Metrics, by_detector, difference, spread
from nullscope.report.layout import Cell, Column, Table, detector_column

KEYS = {
    "r_acc": "Reals called real",
    "f_acc": "Fakes called fake",
    "mean_balanced": "Balanced accuracy",
    "ap": "AP",
    "auroc": "AUROC",
}
FAMILIES = {
    "jpeg": "JPEG quality",
    "webp": "WebP quality",
    "blur": "Gaussian blur, sigma (px)",
    "resize": "Resized by",
    "crop": "Cut to (px)",
}


def robustness_tables(summary: Mapping[str, Metrics]) -> list[Table]:
    """Return the papers' table and the one with reals and fakes apart; no table if no degraded image was scored."""
    names = degradations_of(summary)
    return [balanced_table(summary, names), detail_table(summary, names)] if names else []


def balanced_table(summary: Mapping[str, Metrics], names: list[str]) -> Table:
    """Return one row per detector with its balanced accuracy under every degradation, as DGS-Net's tables 5 and 6."""
    columns = [detector_column(), Column(CLEAN, "as they are", best="max")]
    columns += [Column(name, _amount(name), group=_family(name), best="max") for name in names]
    rows: list[list[Cell]] = []
    for detector, runs in by_detector(summary).items():
        rows.append([detector, *(spread(metrics_under(runs, name), "mean_balanced") for name in (CLEAN, *names))])
    note = (
        "Balanced accuracy in percent, mean over subsets, at the threshold of logit 0. 50 is what saying the same of all gives."
    )
    return Table("robustness", "Robustness", note, columns, rows)


def detail_table(summary: Mapping[str, Metrics], names: list[str]) -> Table:
    """Return one row per detector and degradation: reals and fakes apart, and what the degradation takes off."""
    columns = [detector_column(), Column("degradation", "Images", "text")]
    columns += [Column(key, title) for key, title in KEYS.items()]
    columns.append(Column("auroc_difference", "AUROC, difference to clean", "points"))
    rows: list[list[Cell]] = []
    for detector, runs in by_detector(summary).items():
        clean = metrics_under(runs, CLEAN)
        for name in (CLEAN, *names):
            own = metrics_under(runs, name)
            less = "" if name == CLEAN else difference(own, clean, "auroc")
            rows.append([detector, words(name), *(spread(own, key) for key in KEYS), less])
    note = "Percent, means over subsets. AUROC needs no threshold: what it keeps, a threshold chosen for such images could keep."
    return Table("robustness_detail", "Robustness, reals and fakes apart", note, columns, rows)


def words(name: str) -> str:
    """Return a degradation as people say it."""
    kind, _, amount = name.partition("_")
    said = {
        CLEAN: "as they are",
        "jpeg": f"JPEG {amount}",
        "webp": f"WebP {amount}",
        "blur": f"blur {amount}",
        "resize": f"size x {amount}",
        "crop": f"cut to {amount} px",
    }
    return said.get(kind, name.replace("_", " "))


def _family(name: str) -> str:
    return FAMILIES.get(name.partition("_")[0], "Other")


def _amount(name: str) -> str:
    kind, _, amount = name.partition("_")
    return amount if kind in FAMILIES else name.replace("_", " ")
