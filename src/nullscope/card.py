"""The card of a model: what it is, what it was trained on, what it promises, and what it cannot do, from its own facts.

Markdown with Hugging Face's metadata block. Nothing is written by hand, so nothing can be nicer than what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nullscope.decision import RATES, TooFewError, promise, temperature
from nullscope.model_facts import ModelFacts, Validation, read_facts, read_validation, trained_on
from nullscope.records.licences import licences

NUMBERS = {
    "r_acc": "Reals called real, at a logit of 0",
    "f_acc": "Fakes called fake, at a logit of 0",
    "auroc": "AUROC",
    "auroc_unseen": "AUROC, unseen generators",
    "tpr_5_unseen": "Unseen fakes found at 5 % false alarms",
}
LIMITS = (
    "It gives a score, no proof: how much an image is like the generated images of its training, not how it was made.",
    "It knows the generators of its training and what is like them. What a generator makes that came later may look real to it.",
    "Its false alarms were counted on the reals of its validation. On other cameras, editors and sites they may be many times as "
    "frequent: set the threshold on photographs of your own (`nullscope calibrate`).",
    "Compression, scaling and screenshots take traces away, and add others.",
    "It was not tested on images that were made to deceive it, nor on images that were edited in part.",
)


def card(folder: Path, metrics: Mapping[str, Any] | None = None) -> str:
    """Return the card of the model in ``folder``; ``metrics``: its ``metrics/<run>.json``, None where it was not evaluated.

    Raises `ValueError` if the folder is no trained detector.
    """
    facts, validation = read_facts(folder), read_validation(folder)
    name = Path(folder).resolve().name
    parts = [_metadata(name, facts, metrics), f"# {name}\n", _what(facts)]
    parts += [_numbers(metrics) if metrics else "## Numbers\n\nIt was not evaluated.\n"]
    parts += [_decisions(validation)] if validation else []
    parts += [_achieved(metrics)] if metrics and metrics.get("frozen") else []
    parts += [_degraded(metrics)] if metrics and metrics.get("degradations") else []
    parts += ["## What it cannot do\n\n" + "\n".join(f"- {line}" for line in _limits(facts)) + "\n", _use(name)]
    return "\n".join(parts)


def read_metrics(model: Path) -> dict[str, Any] | None:
    """Return ``metrics/<name>.json`` of a model that lies in the ``models`` of a project; None where there is none."""
    path = Path(model).resolve().parent.parent / "metrics" / f"{Path(model).resolve().name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _metadata(name: str, facts: ModelFacts, metrics: Mapping[str, Any] | None) -> str:
    """Return the block that Hugging Face reads."""
    block: dict[str, Any] = {
        "library_name": "nullscope",
        "pipeline_tag": "image-classification",
        "tags": ["ai-generated-image-detection", facts.detector],
        "license": "other",
        "license_name": "see-below",
    }
    if facts.dataset:
        block["datasets"] = [facts.dataset]
    if metrics:
        found = [{"type": key, "name": NUMBERS[key], "value": metrics[key]} for key in NUMBERS if key in metrics]
        task = {"type": "image-classification"}
        dataset = {"name": facts.dataset or "unknown", "type": facts.dataset or "unknown", "split": "test"}
        block["model-index"] = [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": found}]}]
    return f"---\n{yaml.safe_dump(block, sort_keys=False, allow_unicode=True)}---\n"


def _what(facts: ModelFacts) -> str:
    method = facts.params.get("method", facts.detector)
    rows = [["Detector", f"`{facts.detector}` (method `{method}`)"], ["Weights", facts.weights], ["Data", trained_on(facts)]]
    rows += [["Seed", str(facts.seed)]] if facts.weights == "retrained" else [["Checkpoint (SHA-256)", f"`{facts.checkpoint}`"]]
    rows += [["Images are prepared by", ", ".join(facts.prepare) or "nothing: as they are"]]
    rows += [
        [f"Frozen network `{name}`", f"{len(files)} files, hashes in `detector.json`"] for name, files in facts.backbones.items()
    ]
    names = {facts.detector, str(method), facts.dataset, facts.checkpoint}
    known = [row for row in licences() if row.name in names or row.kind == "encoder"]
    terms = [[row.name, row.part, row.licence, row.commercial] for row in known]
    return (
        f"{_table(['', ''], rows)}\n## Licences\n\nOf its code, its data and the encoders; no legal advice.\n\n"
        f"{_table(['Of', 'Part', 'Licence', 'Commercial use'], terms)}"
    )


def _numbers(metrics: Mapping[str, Any]) -> str:
    rows = [[NUMBERS[key], _rate(metrics, key)] for key in NUMBERS if key in metrics]
    generators = [
        [name, "yes" if row.get("seen") else "no", *(_rate(row, key) for key in ("f_acc", "auroc"))]
        for name, row in metrics["subsets"].items()
        if row["n_fake"]
    ]
    return (
        f"## Numbers\n\nOn test images, by version {metrics['protocol']} of nullscope's protocol. Percent, with 95 % intervals "
        f"over images.\n\n{_table(['Number', 'Percent'], rows)}\n"
        f"{_table(['Generator', 'Seen in training', 'Fakes called fake', 'AUROC'], generators)}"
    )


def _decisions(validation: Validation) -> str:
    rows = []
    for rate in RATES:
        try:
            own = promise(validation.real, rate)
            rows.append([f"{100 * rate:g} %", f"{own.threshold:+.4f}", f"{100 * own.low:.1f} to {100 * own.high:.1f} %"])
        except TooFewError as error:
            rows.append([f"{100 * rate:g} %", "none", str(error)])
    found = temperature(validation.real, validation.fake)
    said = ""
    if found:
        (before, after), helps = found.log_loss, "helps" if found.helps else "does not help"
        said = (
            f"\nA temperature of {found.value:.2f} {helps}: log loss {before:.3f} without it and {after:.3f} with it, "
            f"Brier score {found.brier[0]:.3f} and {found.brier[1]:.3f}, on validation images that it was not fitted on.\n"
        )
    reals = f"{len(validation.real)} reals ({validation.reals}) and {len(validation.fake)} fakes ({validation.fakes})"
    head = ["False alarms promised", "Threshold (logit)", "To expect on other reals like these"]
    return f"## Thresholds\n\nSet on {reals}.\n\n{_table(head, rows)}{said}"


def _achieved(metrics: Mapping[str, Any]) -> str:
    rows = [
        [f"{100 * own['promised']:g} %", source, _rate(share, "rate")]
        for own in metrics["frozen"].values()
        for source, share in own["alarms"].items()
    ]
    return f"### Achieved on test images\n\n{_table(['Promised', 'Reals of', 'Called fake, percent'], rows)}"


def _degraded(metrics: Mapping[str, Any]) -> str:
    under = {"as they are": metrics, **metrics["degradations"]}
    keys = ("r_acc", "f_acc", "auroc")
    rows = [[name, *(f"{100 * row[key]:.1f}" if key in row else "" for key in keys)] for name, row in under.items()]
    return f"## Degraded images\n\n{_table(['Images', 'Reals called real', 'Fakes called fake', 'AUROC'], rows)}"


def _limits(facts: ModelFacts) -> Sequence[str]:
    scenes = "It has seen nothing but rendered scenes of the embedded world: it says nothing about photographs."
    return [scenes, *LIMITS] if facts.rendered else LIMITS


def _use(name: str) -> str:
    return f"## Use\n\n```\nnullscope predict photo.jpg --model {name}\n```\n"


def _rate(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return ""
    ends = f" ({100 * row[f'{key}_low']:.1f} to {100 * row[f'{key}_high']:.1f})" if f"{key}_low" in row else ""
    return f"{100 * row[key]:.1f}{ends}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
