"""The contract between the stages: labels, tables and shard samples. Every boundary is checked against this module."""

from __future__ import annotations

import hashlib

import pyarrow as pa

REAL, FAKE = 0, 1
LABEL_FOLDERS = {"0_real": REAL, "1_fake": FAKE}
SPLITS = ("train", "val", "test")  # every choice (threshold, temperature, epoch) is made on val
MAY_BE_EMPTY = ("val",)  # splits that may hold no image; nothing can be chosen then
SHARD_KINDS = ("patches", "images")  # patch-selected mosaics, or the original bytes; a detector names the one it reads
REAL_GENERATOR = "real"  # what the column `generator` says of a photograph
CLEAN = "none"  # the degradation of an image as it is

CAPTIONS = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("caption", pa.string(), nullable=False)])
SCORES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # val or test
        pa.field("subset", pa.string(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("degradation", pa.string(), nullable=False),
        pa.field("logit", pa.float32(), nullable=False),  # above 0: fake
    ]
)


def image_id(data: bytes) -> str:
    """Return the identity of an image: the hexadecimal SHA-256 of its file's bytes."""
    return hashlib.sha256(data).hexdigest()


def text_schema(width: int) -> pa.Schema:
    """Return the schema of ``text/<split>.parquet``: the embedding of a caption, ``width`` float32 numbers."""
    return _vectors("text", width)


def feature_schema(width: int) -> pa.Schema:
    """Return the schema of ``data/features/<run>.parquet``: what a classifier sees of some test images."""
    return _vectors("feature", width)


def _vectors(column: str, width: int) -> pa.Schema:
    vector = pa.list_(pa.float32(), width)
    return pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field(column, vector, nullable=False)])


class ContractError(ValueError):
    """A file between two stages is not what the contract says."""


def check_schema(found: pa.Schema, expected: pa.Schema, where: object) -> None:
    """Raise `ContractError` unless ``found`` has exactly the columns and types of ``expected`` (metadata aside)."""
    if not found.equals(expected, check_metadata=False):
        raise ContractError(
            f"{where}: expected columns {_columns(expected)}, found {_columns(found)}; "
            "it was written by another version: rerun the stage that writes it"
        )


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}:{field.type}{' or null' if field.nullable else ''}" for field in schema)
