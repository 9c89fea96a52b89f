"""How often the protocol's 95 % intervals hold the truth, over populations of scores: the table of docs/protocol.md.

usage: python bench/coverage.py [--worlds 2000] [--only PART] [--scores scores/RUN.parquet ...]

A world is a test set drawn from a known population; in 95 of 100 worlds an interval should hold the population's own number. Of
rankings both intervals of the same resamples are shown: on the scale of the logit, which the protocol takes for AUROC and
average precision, and percentiles, which it takes for the share of fakes found at 5 % false alarms. Two standard errors of a
share of 95 % over 2,000 worlds are 1 point. With `--scores` the populations are the clean test images of score files of the
pipeline, drawn with replacement.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import combinations
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.stats import norm
from tqdm import tqdm

from nullscope.core.contracts import FAKE
from nullscope.evaluation.generators import forecast
from nullscope.evaluation.intervals import ALPHA, newcombe, on_logit_scale, wilson
from nullscope.evaluation.metrics import auroc, average_precision, pooled, tpr_at_fpr
from nullscope.evaluation.paired import compare
from nullscope.evaluation.resampling import RESAMPLES, Strata, resample, resample_schema
from nullscope.evaluation.scores import read_test_scores

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
KEYS = {"auroc": auroc, "ap": average_precision, "tpr_5": lambda *pool: tpr_at_fpr(*pool, 0.05)}


def normal(shift: float) -> Draw:
    return lambda rng, n: (rng.normal(0, 1, n), rng.normal(shift, 1, n))


def two_kinds(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nine of ten fakes far above the reals, the others below: what saturated detectors do to an unseen generator."""
    return rng.normal(0, 1, n), np.where(rng.random(n) < 0.9, rng.normal(6, 1, n), rng.normal(-1, 1, n))


def heavy(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_t(2, n), rng.standard_t(2, n) + 3


def tied(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of six values, as of a detector that answers in words."""
    return np.round(rng.normal(0, 1, n)), np.round(rng.normal(1.4, 1, n))


def drawn_from(path: Path) -> Draw:
    """Draw from the logits of a file of scores: a population of as many reals and fakes as it has."""
    rows = read_test_scores(path, clean_only=True)
    logit_N, fake_N = rows["logit"].to_numpy(), rows["label"].to_numpy() == FAKE
    return lambda rng, n: (rng.choice(logit_N[~fake_N], n), rng.choice(logit_N[fake_N], n))


POPULATIONS: dict[str, Draw] = {
    "normal, AUROC 0.84": normal(1.41),
    "normal, AUROC 0.98": normal(2.9),
    "normal, AUROC 0.995": normal(3.64),
    "nine of ten fakes far off": two_kinds,
    "heavy tails": heavy,
    "rounded, many ties": tied,
}


def one_world(job: tuple[str, int, int]) -> dict[str, tuple[float, float, float, float] | None]:
    """Return of every number both ends on the scale of the logit and both ends by percentiles."""
    population, images, world = job
    real, fake = POPULATIONS[population](np.random.default_rng([images, world]), images)
    # The draws of a stratum come from its name: worlds are named apart, or all would be resampled alike.
    name = f"{population}/{images}/{world}"
    strata = Strata({name: real}, {name: fake}, {name: (name,)})
    resampled = resample(strata, [name], threshold=0.0, max_fpr={"tpr_5": 0.05})[name]
    found = {}
    for key, measure in KEYS.items():
        value = measure(*pooled(real, fake))
        if value is None:
            found[key] = None
            continue
        both = on_logit_scale(value, resampled[key].std(ddof=1)), np.quantile(resampled[key], [0.025, 0.975])
        found[key] = tuple(np.concatenate(both if 0 < value < 1 else [wilson(value, images), both[1]]))
    return found


def truth_of(population: str) -> dict[str, float]:
    draw, rng = POPULATIONS[population], np.random.default_rng(0)
    pool = pooled(*draw(rng, 400_000))
    return {key: measure(*pool) for key, measure in KEYS.items()}


def rankings(worlds: int, pool: Pool) -> Iterator[list[str]]:
    yield ["population", "images of a kind", *(f"{key}: logit (percentiles)" for key in KEYS)]
    for population in POPULATIONS:
        truth = truth_of(population)
        for images in (30, 100, 300, 1000):
            jobs = [(population, images, world) for world in range(worlds)]
            bar = tqdm(pool.imap(one_world, jobs, chunksize=20), total=worlds, desc=f"{population}, {images}", leave=False)
            held = {key: [own[key] for own in rows] for rows in [list(bar)] for key in KEYS}
            cells = []
            for key, ends in held.items():
                if None in ends:
                    cells.append("-")
                    continue
                low, high, low_q, high_q = np.transpose(ends)
                ours, theirs = ((a <= truth[key]) & (truth[key] <= b) for a, b in ((low, high), (low_q, high_q)))
                cells.append(f"{100 * ours.mean():.1f} ({100 * theirs.mean():.1f})")
            yield [population, str(images), *cells]


def rates(worlds: int) -> Iterator[list[str]]:
    """Accuracy of reals and fakes pooled: Newcombe's interval, and Wilson's, which takes all images for one binomial."""
    yield ["reals right, fakes right", "reals + fakes", "Newcombe", "Wilson of the pool"]
    for true, sizes in (((0.997, 0.02), (300, 120)), ((0.9, 0.9), (100, 100)), ((0.99, 0.6), (100, 400)), ((0.8, 0.3), (50, 50))):
        rng, shares = np.random.default_rng(1), np.array(sizes) / sum(sizes)
        truth, held = float(shares @ true), np.zeros(2)
        for _ in range(worlds):
            seen = [rng.binomial(n, p) / n for n, p in zip(sizes, true, strict=True)]
            both = newcombe(seen, sizes, shares), wilson(float(shares @ seen), sum(sizes))
            held += [low <= truth <= high for low, high in both]
        cells = [f"{100 * share:.1f}" for share in held / worlds]
        yield [f"{true[0]}, {true[1]}", f"{sizes[0]} + {sizes[1]}", *cells]


def one_sample(job: tuple[int, int, bool, int]) -> tuple[float, float]:
    """Return the interval over generators in one world: of the mean AUROC of generators that share their reals."""
    generators, images, skewed, world = job
    rng = np.random.default_rng([generators, images, world])
    shifts = some_generators(rng, generators, skewed)
    rows = {f"{world}/{at}": rng.normal(shift, 1, images) for at, shift in enumerate(shifts)}
    reals = {f"{world}/camera": rng.normal(0, 1, images)}
    strata = Strata(reals, rows, dict.fromkeys(rows, tuple(reals)))
    found = resample(strata, rows, threshold=0.0, max_fpr={})
    mean = float(np.mean([auroc(*pooled(*reals.values(), fake)) for fake in rows.values()]))
    return forecast(mean, {name: own["auroc"] for name, own in found.items()})


def some_generators(rng: np.random.Generator, count: int, skewed: bool) -> np.ndarray:
    """Return how far the fakes of some generators lie above the reals; skewed: a quarter of them are hard, the others easy."""
    if not skewed:
        return rng.normal(2, 0.8, count)
    return np.where(rng.random(count) < 0.25, rng.normal(0.3, 0.3, count), rng.normal(3.5, 0.5, count))


def generators(worlds: int, pool: Pool) -> Iterator[list[str]]:
    yield ["generators", "images of a kind", "differ as normal numbers", "a quarter is hard"]
    for count in (3, 4, 6, 8, 17):
        for images in (50, 300):
            cells = []
            for skewed in (False, True):
                truth = norm.cdf(some_generators(np.random.default_rng(0), 1_000_000, skewed) / np.sqrt(2)).mean()
                jobs = [(count, images, skewed, world) for world in range(worlds)]
                bar = tqdm(pool.imap(one_sample, jobs, chunksize=20), total=worlds, desc=f"{count} generators", leave=False)
                cells.append(f"{100 * np.mean([low <= truth <= high for low, high in bar]):.1f}")
            yield [str(count), str(images), *cells]


def one_report(job: tuple[int, float, bool, int]) -> tuple[bool, float]:
    """Return whether a pair that does not differ is called different, and the share of those found that do."""
    seeds, shift, unequal, world = job
    rng = np.random.default_rng([seeds, int(10 * shift), world])
    spreads, resamples = np.tile([1.0, 0.2, 3.0, 1.0] if unequal else [1.0], 8)[:8], {}
    for at, spread in enumerate(spreads):
        images, moved_R = rng.normal(0, 0.5), rng.normal(0, 0.5, RESAMPLES)
        values = rng.normal(shift * (at == 0), spread, seeds) + images
        schema = resample_schema(["mean"]).with_metadata({"strata": "one"})
        numbers = np.arange(RESAMPLES + 1, dtype=np.int32)
        resamples[str(at)] = [pa.table([numbers, np.r_[value, value + moved_R]], schema=schema) for value in values]
    questions = [(first, second, "mean") for first, second in combinations(resamples, 2)]
    clear = {
        pair[:2]: own.p < ALPHA for pair, own in zip(questions, compare(resamples, questions, fixed=frozenset()), strict=True)
    }
    wrong = any(found for pair, found in clear.items() if "0" not in pair or not shift)
    return wrong, float(np.mean([found for pair, found in clear.items() if "0" in pair]))


def families(worlds: int, pool: Pool) -> Iterator[list[str]]:
    yield ["seeds", "spread of the seeds", "apart by", "pairs found", "reports with a pair called different that is not"]
    for seeds in (3, 5):
        for unequal in (False, True):
            for shift in (0.0, 3.0, 6.0):
                jobs = [(seeds, shift, unequal, world) for world in range(worlds)]
                found = list(tqdm(pool.imap(one_report, jobs, chunksize=20), total=worlds, desc=f"{seeds} seeds", leave=False))
                wrong, right = np.mean(found, axis=0)
                spread = "0.2 to 3, by detector" if unequal else "1"
                yield [str(seeds), spread, f"{shift:g}", f"{100 * right:.0f} %" if shift else "-", f"{100 * wrong:.1f} %"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=2000, help="simulated test sets of every line (default: %(default)s)")
    parser.add_argument("--only", choices=["rankings", "rates", "generators", "families"], help="one of the tables; default: all")
    parser.add_argument("--scores", nargs="+", type=Path, metavar="FILE", help="draw from these in place of the populations")
    asked = parser.parse_args()
    if asked.scores:
        asked.only = "rankings"
        POPULATIONS.clear()
        POPULATIONS.update({path.stem: drawn_from(path) for path in asked.scores})
    with Pool() as pool:
        parts = {"rankings": lambda: rankings(asked.worlds, pool), "rates": lambda: rates(asked.worlds)}
        parts |= {"generators": lambda: generators(asked.worlds, pool), "families": lambda: families(asked.worlds, pool)}
        for name, rows in parts.items():
            if asked.only in (None, name):
                print(f"\n{name}" + (": in how many of 100 worlds the interval holds the truth" if name != "families" else ""))
                for row in rows():
                    print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
