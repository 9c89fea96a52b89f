"""score@<detector>-<seed>: model, test shards -> scores/<detector>-<seed>.parquet.   usage: score.py <detector>-<seed>"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from nullscope import ranks
from nullscope.contracts import SCORES
from nullscope.data.loading import read_whole
from nullscope.data.parts import in_parts, scratch
from nullscope.data.shards import MANIFEST, Shard, list_shards
from nullscope.data.tables import write_table
from nullscope.saved import WEIGHTS, load
from nullscope.scoring import LOGITS, join_index, logits

INDEX = Path("data/index.parquet")


def main() -> None:
    run = sys.argv[1]
    model, device = Path("models") / run, ranks.device()
    detector, _ = load(model, device)
    folder = Path("data/shards") / detector.view.kind / "test"
    shards = list_shards(folder)

    def compute(pending: Sequence[Shard]) -> Iterator[pa.Table]:
        with tqdm(total=sum(s.samples for s in pending), desc=f"score {run}", unit="image", disable=ranks.rank() > 0) as bar:
            for rows in read_whole(list(pending), detector.view, workers=ranks.workers()):
                yield pa.table([rows.image_ids, logits(detector, rows, device)], schema=LOGITS)
                bar.update(len(rows.image_ids))

    tables = in_parts(shards, compute, LOGITS, scratch("score", run, model / WEIGHTS, folder / MANIFEST))
    if tables is not None:
        out = Path("scores") / f"{run}.parquet"
        scores = join_index(pa.concat_tables(tables), INDEX)
        write_table(out, scores, SCORES)
        print(f"score: {run}, {len(scores)} test images -> {out}")


if __name__ == "__main__":
    ranks.launch(main)
