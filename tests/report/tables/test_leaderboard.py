"""Ranks, sizes, and parts of a method added to others."""

import numpy as np
import pytest
from report.resampled import tables_of
from safetensors.numpy import save_file

from nullscope.core.contracts import ContractError
from nullscope.evaluation.paired import compare
from nullscope.report.project import Project
from nullscope.report.tables.leaderboard import MANY, Size, leaderboard_table, plug_and_play_tables, read_sizes

NOBODY: frozenset[str] = frozenset()
SIZE = Size(10, 1000)


def run(auroc: float, f_acc: float = 0.5) -> dict:
    subsets = {"vae": {"n_fake": 5, "seen": True, "f_acc": 0.9}, "vq": {"n_fake": 5, "seen": False, "f_acc": f_acc}}
    subsets |= {"gan": {"n_fake": 5, "seen": False, "f_acc": f_acc + 0.1}}
    numbers = {"auroc_unseen": auroc, "auroc_seen": 0.9, "r_acc": 0.8, "f_acc_unseen": f_acc + 0.05, "f_acc_seen": 0.9}
    return {**numbers, "mean_balanced": 0.7, "subsets": subsets}


def many(seeds: int = 3) -> dict:
    return {f"d{at}-{seed}": run(0.5 + 0.04 * at + 0.001 * seed) for at in range(MANY) for seed in range(seeds)}


def test_the_best_stands_first_and_the_others_less_than_it():
    table = leaderboard_table(many(), dict.fromkeys([f"d{at}" for at in range(MANY)], SIZE), tables_of(many()), NOBODY)
    assert [row[0] for row in table.rows] == [f"d{at}" for at in reversed(range(MANY))]
    keys = [column.key for column in table.columns]
    less = [row[keys.index("less")] for row in table.rows]
    assert less[0] == "" and [value.mean for value in less[1:]] == pytest.approx([-0.04 * at for at in range(1, MANY)])
    assert table.columns[keys.index("less")].group == f"Difference to d{MANY - 1}"
    assert {tuple(row[-2:]) for row in table.rows} == {(10, 1000)}


def test_few_detectors_are_not_ranked():
    few = {name: own for name, own in many().items() if not name.startswith("d0")}
    assert leaderboard_table(few, {}, tables_of(few), NOBODY) is None
    blind = {name: {key: value for key, value in own.items() if key != "auroc_unseen"} for name, own in many().items()}
    assert leaderboard_table(blind, {}, tables_of(blind), NOBODY) is None


def test_sizes_are_the_numbers_of_the_files(tmp_path):
    """Of a frozen CLIP its image half alone."""
    folder = tmp_path / "models/npr-0"
    (folder / "clip").mkdir(parents=True)
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.zeros((), np.int64)}, folder / "weights.safetensors")
    tower = {"visual.proj": np.zeros((5, 2), np.float32), "text": np.zeros(100, np.float32)}
    save_file(tower, folder / "clip/open_clip_model.safetensors")
    project = Project(tmp_path, {}, {"npr": ["npr-0"]})
    assert read_sizes(project) == {"npr": Size(13, 10)}
    (folder / "weights.safetensors").write_bytes(b"cut off")
    with pytest.raises(ContractError, match="delete it and run `dvc repro`"):
        read_sizes(project)


def test_a_part_stands_below_the_detector_without_it_and_its_gain_is_tested():
    summary = {f"univfd-{seed}": run(0.6, 0.4 + 0.1 * seed) for seed in range(3)}
    summary |= {f"univfd_null_space-{seed}": run(0.7, 0.5 + 0.1 * seed) for seed in range(3)}
    summary |= {f"ns_net-{seed}": run(0.8, 0.6) for seed in range(3)}
    summary |= {f"ns_net_no_null_space-{seed}": run(0.75, 0.7) for seed in range(3)}
    tables = tables_of(summary)
    (table,) = plug_and_play_tables(summary, tables)
    assert table.name == "plug_and_play_null_space"
    assert [row[0] for row in table.rows] == ["univfd", "univfd_null_space", "ns_net_no_null_space", "ns_net"]
    assert [column.key for column in table.columns[1:4]] == ["gan", "vq", "f_acc_unseen"]
    gains = [row[-3] for row in table.rows]
    assert gains[0] == gains[2] == ""
    assert (gains[1].mean, gains[3].mean) == pytest.approx((0.1, -0.1))
    questions = [("univfd_null_space", "univfd", "f_acc_unseen"), ("ns_net", "ns_net_no_null_space", "f_acc_unseen")]
    assert [gains[1].p, gains[3].p] == [own.p for own in compare(tables, questions, fixed=NOBODY)]
    assert table.rows[1][-2].mean == pytest.approx(0.1)
    printed = [row[-1] for row in table.rows]
    assert printed == ["", pytest.approx((80.7 - 66.8) / 100), "", pytest.approx((94.7 - 89.6) / 100)]


def test_without_a_pair_there_is_no_table():
    assert plug_and_play_tables({"univfd-0": run(0.6), "npr_patches-0": run(0.6)}, {}) == []
