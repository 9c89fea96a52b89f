"""Judge many pictures with a registered model, on one machine or on a cluster of Ray.

    python docs/examples/judge_with_ray.py MODEL PICTURES OUT

MODEL is an address of MLflow (models:/nullscope-world@champion), PICTURES a pattern of files that all machines see, OUT a folder
for Parquet files: a row per picture with `source` and what the model answers.
"""

from __future__ import annotations

import glob
import os
import sys

import mlflow
import pandas as pd
import ray

BATCH = 32  # pictures that a process holds at a time
PROCESSES = int(os.environ.get("PROCESSES", "2"))  # over all machines; each holds the model once


class Judge:
    """A process with the model: Ray makes it once and sends it batches of paths."""

    def __init__(self, model: str) -> None:
        self.model = mlflow.pyfunc.load_model(model)

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        bytes_ = [_read(path) for path in batch["source"]]
        found = self.model.predict(pd.DataFrame({"image": bytes_}))
        return pd.concat([batch[["source"]].reset_index(drop=True), found], axis=1).astype(
            {
                "logit": "float64",
                "score": "float64",
                "probability": "float64",
                "answer": "string",
                "fake": "boolean",
                "refused": "string",
            }
        )


def _read(path: str) -> bytes:
    """Return the bytes of a file; of one that cannot be read none, which the model refuses."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def main() -> None:
    model, pattern, out = sys.argv[1:]
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if not paths:
        sys.exit(f"{pattern}: no file matches")
    batches = -(-len(paths) // BATCH)
    pictures = ray.data.from_pandas(pd.DataFrame({"source": paths})).repartition(batches)
    judged = pictures.map_batches(
        Judge, fn_constructor_args=(model,), batch_size=BATCH, batch_format="pandas", concurrency=PROCESSES
    )
    judged.write_parquet(out)


if __name__ == "__main__":
    main()
