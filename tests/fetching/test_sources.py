"""What is known of every data set, held against the data sets that can be configured; the table, and what is got by hand."""

import itertools
import re

import pytest
from click.testing import CliRunner
from conftest import ROOT
from fetching.conftest import sentence
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nullscope.cli import main
from nullscope.core.config import validate
from nullscope.core.contracts import SPLITS
from nullscope.fetching.sources import sources
from nullscope.sources.dataset import DatasetParams

SOURCES = sources()
CONFIGURED = sorted(path.stem for path in (ROOT / "conf/dataset").glob("*.yaml"))
BENCHMARKS = [name for name, source in SOURCES.items() if source.kind != "none"]


def run(*arguments):
    return CliRunner().invoke(main, ["fetch", *arguments])


def test_every_configured_data_set_has_a_source_and_every_source_is_configured():
    assert sorted(SOURCES) == CONFIGURED and BENCHMARKS


def dataset(name):
    overrides = [f"dataset={name}", "dataset.root=somewhere"]
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return validate("dataset", OmegaConf.to_container(compose("config", overrides=overrides).dataset), DatasetParams)


def paths(line):
    """Yield the paths of a line of an expected tree: ``a/{b,c}/*  # comment``."""
    pieces = re.split(r"\{([^}]*)\}", line.split("  #")[0])
    choices = [piece.split(",") if at % 2 else [piece] for at, piece in enumerate(pieces)]
    yield from ("".join(path) for path in itertools.product(*choices))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_expected_tree_is_what_the_configuration_reads(name):
    """Every image of it belongs to a split, and every published subset is in it."""
    params, found = dataset(name), {split: set() for split in SPLITS}
    for path in itertools.chain.from_iterable(paths(line) for line in SOURCES[name].expected):
        folders = path.removesuffix("/*").split("/")
        at = next((at for at, folder in enumerate(folders) if folder in params.label_folders), None)
        assert at is not None, f"{path} has no label folder"
        folder = "/".join(folders[:at]) or "."
        splits = params.splits(folder)
        assert splits or name == "genimage", f"no pattern of conf/dataset/{name}.yaml matches {folder}"
        for split in splits:
            found[split].add(params.subset(split, folder))
    for split, expected in params.expected.items():
        wanted = set(expected) - ({"sdv1.4"} if name == "aigibench_setting_1" else set())
        assert found[split] >= wanted, (split, sorted(wanted - found[split]))
    assert found["val"], "no validation images: nothing could be chosen"


@pytest.mark.parametrize("name", SOURCES)
def test_what_can_be_fetched_names_where_from(name):
    source = SOURCES[name]
    assert (source.repository is None) == (source.kind == "none")
    assert bool(source.files) == (source.kind == "huggingface")
    if source.kind == "huggingface":
        assert source.repository.count("/") == 1 and (source.revision is None or re.fullmatch("[0-9a-f]{40}", source.revision))
    if source.kind == "kaggle":
        assert source.revision.isdigit()
    assert not (source.then and "{to}" not in "".join(source.then))


@pytest.mark.parametrize("arguments", [[], ["--list"], ["--list", "aigibench"]])
def test_the_table_lists_all(arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    head, *lines = result.stdout.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(SOURCES)
    column = head.index("licence")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)  # aligned


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.kind == "manual"])
def test_what_is_got_by_hand_is_explained(name):
    result = run(name, "--to", "/data/here")
    source = SOURCES[name]
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Nothing was fetched: {name} has no address that a program can rely on; get it by hand.\n")
    for line in (
        source.repository,
        source.licence,
        *source.expected,
        *source.notes,
        f"-S dataset={name} -S dataset.root=/data/here",
    ):
        assert line in result.stdout
    assert "{to}" not in result.stdout


@pytest.mark.parametrize("name", ["folder", "manifest", "world"])
def test_for_your_own_images_there_is_nothing_to_fetch(name):
    result = run(name)
    assert result.exit_code == 0 and result.stdout.startswith(f"Nothing was fetched: for {name} there is nothing to fetch.\n")


def test_an_unknown_name_is_answered_with_those_that_are_known():
    complaint = sentence(run("aigibnch"))
    assert "aigibnch" in complaint and "universal_fake_detect" in complaint and "did you mean `aigibench`?" in complaint


@pytest.mark.parametrize("arguments", [["genimage", "--only", "x"], ["dalle_recognition", "--revision", "6"]])
def test_options_of_the_hub_are_refused_elsewhere(arguments):
    assert "--only and --revision are for data sets of the hub" in sentence(run(*arguments))


def test_help_has_examples():
    shown = run("--help")
    assert shown.exit_code == 0 and "nullscope fetch aigibench --dry-run" in shown.stdout and "HF_TOKEN" in shown.stdout
