"""Mutations: what happens to files on their way, drawn from a generator. The same draws give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"007", b"", b"null", b'"x"', b"[]")
NUMBER = re.compile(rb"\d+")

Rng = np.random.Generator
Mutation = Callable[[bytearray, Rng, Sequence[bytes]], bytes]


def _span(data: bytearray, rng: Rng, longest: int) -> slice:
    """A part of the data, most often a short one."""
    start = int(rng.integers(0, len(data)))
    return slice(start, start + 1 + int(rng.integers(0, longest) ** rng.random()))


def flip_bits(data: bytearray, rng: Rng, _: Sequence[bytes]) -> bytes:
    """One to eight bits, anywhere."""
    for at in rng.integers(0, len(data), int(rng.integers(1, 9))):
        data[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


def random_bytes(data: bytearray, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Written over a part."""
    span = _span(data, rng, 64)
    data[span] = rng.bytes(len(data[span]))
    return bytes(data)


def extreme_integer(data: bytearray, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Of 1, 2 or 4 bytes, in either order, over what stood there."""
    size, order = int(rng.choice([1, 2, 4])), ("big", "little")[rng.integers(0, 2)]
    value = int(rng.choice(EXTREMES)) % 256**size
    at = int(rng.integers(0, len(data)))
    data[at : at + size] = value.to_bytes(size, order)
    return bytes(data)


def extreme_number(data: bytearray, rng: Rng, _: Sequence[bytes]) -> bytes:
    """In place of one that is written in digits."""
    places = list(NUMBER.finditer(data))
    if not places:
        return flip_bits(data, rng, _)
    place = places[rng.integers(0, len(places))]
    data[place.start() : place.end()] = NUMBERS[rng.integers(0, len(NUMBERS))]
    return bytes(data)


def cut_off(data: bytearray, rng: Rng, _: Sequence[bytes]) -> bytes:
    """The end is missing."""
    return bytes(data[: int(rng.integers(0, len(data)))])


def cut_out(data: bytearray, rng: Rng, _: Sequence[bytes]) -> bytes:
    """A part in the middle is missing."""
    del data[_span(data, rng, len(data))]
    return bytes(data)


def repeat(data: bytearray, rng: Rng, _: Sequence[bytes]) -> bytes:
    """A part stands there several times."""
    span = _span(data, rng, 512)
    data[span.start : span.start] = data[span] * int(rng.integers(1, 40))
    return bytes(data)


def zeros(data: bytearray, rng: Rng, _: Sequence[bytes]) -> bytes:
    """A part was never written, as after a crash."""
    span = _span(data, rng, len(data))
    data[span] = bytes(len(data[span]))
    return bytes(data)


def exchange(data: bytearray, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Two parts of one length change places."""
    size = 1 + int(rng.integers(0, max(1, len(data) // 4)))
    one, other = sorted(int(at) for at in rng.integers(0, max(1, len(data) - size), 2))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
    return bytes(data)


def graft(data: bytearray, rng: Rng, corpus: Sequence[bytes]) -> bytes:
    """The beginning of one file and the end of another."""
    other = corpus[rng.integers(0, len(corpus))]
    return bytes(data[: int(rng.integers(0, len(data)))]) + other[int(rng.integers(0, max(1, len(other)))) :]


def append(data: bytearray, rng: Rng, corpus: Sequence[bytes]) -> bytes:
    """Another file behind it."""
    return bytes(data) + corpus[rng.integers(0, len(corpus))]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, random_bytes, extreme_integer, extreme_number, cut_off, cut_out, repeat, zeros, exchange, graft, append,
)  # fmt: skip


def mutant(corpus: Sequence[bytes], rng: Rng) -> bytes:
    """Return one of the files with one to three mutations."""
    data = corpus[rng.integers(0, len(corpus))]
    for _ in range(int(rng.integers(1, 4))):
        if data:
            data = MUTATIONS[rng.integers(0, len(MUTATIONS))](bytearray(data), rng, corpus)
    return data
