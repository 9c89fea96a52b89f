"""Write the embedded world: folders of real and generated pictures, as a downloaded data set would have them.

``root/{train,val,test}/<subset>/{0_real,1_fake}/<number>.{jpg,png}``: the reals' subset is ``camera``, a fake's subset is its
generator. ``root/captions.csv`` holds every picture's true caption, for the checks of the world's validity only: the
pipeline captions pictures itself.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator
from tqdm import tqdm

from nullscope.core import ranks
from nullscope.core.config import Params
from nullscope.core.files import replacing_directory
from nullscope.world import camera, generators, scenes

REALS = "camera"
CAPTIONS = "captions.csv"


class WorldParams(Params):
    """Section ``dataset.world``: how many pictures of which makers, from which seed."""

    seed: NonNegativeInt
    train_reals: PositiveInt
    train_fakes_per_generator: PositiveInt
    train_generators: list[str]
    val_reals: PositiveInt
    val_fakes_per_generator: PositiveInt  # of the generators of training
    test_reals: PositiveInt
    test_fakes_per_generator: PositiveInt
    test_generators: list[str]
    # Share of the training and validation pictures whose object's colour tells real from fake: the shortcut experiment. In
    # testing colours never tell. Validation pictures are drawn as training pictures are, as in data sets that people collect.
    shortcut: Annotated[float, Field(ge=0, le=1)]

    @field_validator("train_generators", "test_generators")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        unknown = sorted(set(names) - set(generators.GENERATORS))
        if unknown or not names or len(set(names)) < len(names):
            known = ", ".join(generators.GENERATORS)
            raise ValueError(f"expected one or more different generators out of {known}; found {names}")
        return names


class Job(NamedTuple):
    """One picture: the ``number``-th of ``maker`` (a generator, or `REALS`) in ``split``."""

    seed: int
    split: str
    maker: str
    number: int
    shortcut: float


class Picture(NamedTuple):
    """A finished picture: its place below the root, its file's bytes, its true caption."""

    path: str
    data: bytes
    caption: str


def write_world(params: WorldParams, root: Path, *, workers: int) -> dict[str, int]:
    """Write the world to ``root``, whole or not at all; return the number of pictures per ``split/subset``.

    The bytes depend on ``params`` alone: every picture has its own seed, whichever process renders it.
    """
    jobs = list_jobs(params)
    counts: dict[str, int] = {}
    with replacing_directory(root) as partial, open(partial / CAPTIONS, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "caption"])
        for picture in tqdm(_rendered(jobs, workers), total=len(jobs), desc="world", unit="picture"):
            path = partial / picture.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.data)
            table.writerow([picture.path, picture.caption])
            subset = path.parent.parent.relative_to(partial).as_posix()
            counts[subset] = counts.get(subset, 0) + 1
    return counts


def list_jobs(params: WorldParams) -> list[Job]:
    """Return every picture of the world, in the order of writing."""
    makers = [("train", REALS, params.train_reals), ("val", REALS, params.val_reals), ("test", REALS, params.test_reals)]
    makers += [("train", name, params.train_fakes_per_generator) for name in params.train_generators]
    makers += [("val", name, params.val_fakes_per_generator) for name in params.train_generators]
    makers += [("test", name, params.test_fakes_per_generator) for name in params.test_generators]
    return [
        Job(params.seed, split, maker, number, 0.0 if split == "test" else params.shortcut)
        for split, maker, count in sorted(makers)
        for number in range(count)
    ]


def render(job: Job) -> Picture:
    """Return the picture of ``job``: the same bytes whenever and wherever it is called.

    The seed is made of the world's seed, the split, the maker and the number, so another split or more pictures of one maker
    change no other picture.
    """
    rng = np.random.default_rng([job.seed, zlib.crc32(f"{job.split}/{job.maker}".encode()), job.number])
    scene = scenes.draw(rng, _colours(job, rng))
    painted = scenes.paint(scene, rng)
    if job.maker == REALS:
        image, label = camera.photograph(painted, rng), "0_real"
    else:
        image, label = generators.generate(job.maker, painted, rng), "1_fake"
    encoding = camera.draw_encoding(rng)
    path = f"{job.split}/{job.maker}/{label}/{job.number:06d}.{encoding.suffix}"
    return Picture(path, camera.encode(camera.to_uint8(image), encoding), scene.caption)


def _colours(job: Job, rng: np.random.Generator) -> tuple[str, ...]:
    if rng.random() >= job.shortcut:
        return scenes.COLOURS
    return scenes.REAL_COLOURS if job.maker == REALS else scenes.FAKE_COLOURS


def _rendered(jobs: list[Job], workers: int) -> Iterator[Picture]:
    if workers == 1:
        yield from map(render, jobs)
    else:
        with ProcessPoolExecutor(workers, initializer=ranks.end_with_parent) as pool:
            yield from pool.map(render, jobs, chunksize=16)
