"""Models as MLflow's own: logged once, registered, and a champion only where the test finds one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report.resampled import resampled
from servers import Mlflow
from tracking.synthetic import DETECTORS, Project

from nullscope import tracking
from nullscope.tables.parquet import write_table
from nullscope.tracking import registry, store, turn, view

NAME = "nullscope-world"
TRACK = Path(__file__).parents[2] / "stages/track.py"


def logged(project: Project) -> dict[str, str]:
    """The logged models of the project: identifier -> run."""
    opened = store.open_store(project.root)
    runs = {run.info.run_id: run.info.run_name for run in project.runs()}
    found = opened.client.search_logged_models([opened.experiment_id])
    return {model.model_id: runs[model.source_run_id] for model in found}


def champion(project: Project) -> str | None:
    """The run behind the alias, None where nobody has it."""
    from mlflow.exceptions import MlflowException

    client = store.open_store(project.root).client
    try:
        version = client.get_model_version_by_alias(NAME, "champion")
    except MlflowException:
        return None
    assert version.tags["nullscope.chosen_by"] == "mean_balanced"
    return client.get_run(version.run_id).info.run_name


def test_every_run_has_one_model_with_what_serves_it(project: Project) -> None:
    tracking.publish(project.root)
    first = registry.register(project.root)
    assert first.name == NAME and set(first.versions) == {f"{name}-0" for name in DETECTORS} and first.champion is None
    assert registry.register(project.root) == first, "again: nothing new"
    models = logged(project)
    assert sorted(models.values()) == ["clip_lora-0", "ns_net-0"]
    folder = next((project.root / "mlartifacts").rglob("MLmodel")).parent
    text = (folder / "MLmodel").read_text()
    assert "binary" in text and "served.py" in text and (folder / "input_example.json").is_file()
    assert "torch==" in (folder / "requirements.txt").read_text()
    assert next(folder.glob("artifacts/*/clip/model.safetensors")).read_bytes() == b"the frozen tower"
    code = {path.relative_to(folder / "code/nullscope").as_posix() for path in (folder / "code/nullscope").rglob("*.py")}
    assert {"prediction.py", "served.py", "detectors/base.py"} <= code and not any(name.startswith("report/") for name in code)


def test_a_model_that_is_links_into_a_cache_is_logged_with_its_bytes(project: Project, tmp_path: Path) -> None:
    """As with DVC's `cache.type symlink`: MLflow refuses links that lead out of a folder."""
    weights = project.root / "models/ns_net-0/weights.safetensors"
    weights.symlink_to(weights.rename(tmp_path / "an object of the cache"))
    tracking.publish(project.root)
    assert set(registry.register(project.root).versions) == {f"{name}-0" for name in DETECTORS}
    kept = {path.read_bytes() for path in (project.root / "mlartifacts").rglob("artifacts/*/weights.safetensors")}
    assert b"weightsns_net" in kept


def test_a_publication_that_was_killed_leaves_no_second_model(project: Project) -> None:
    tracking.publish(project.root)
    registry.register(project.root)
    client = store.open_store(project.root).client
    client.delete_tag(project.run("ns_net").info.run_id, registry.LOGGED)  # killed between the model and the tag
    registry.register(project.root)
    assert sorted(logged(project).values()) == ["clip_lora-0", "ns_net-0"]


def seeds_of(project: Project, means: dict[str, float]) -> None:
    """Give every detector three seeds, whose balanced accuracy lies around its mean."""
    detectors = ", ".join(means)
    text = f"dataset: {{name: world}}\nrun: {{detectors: [{detectors}], seeds: [0, 1, 2], official: []}}\n"
    (project.root / "params.yaml").write_text(text)
    for name, mean in means.items():
        for seed in range(3):
            project.train(name, seed=seed)
            table = resampled({"mean_balanced": mean + 0.001 * seed}, seed)
            write_table(project.root / f"data/evaluated/{name}-{seed}.parquet", table, table.schema)


def test_the_champion_is_told_apart_or_there_is_none(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its seeds the one with the best validation, here the first of equals; the alias goes when the difference does."""
    monkeypatch.setattr(registry, "LIMIT", 0)  # so that the champion alone is logged, whatever its size
    seeds_of(project, {"clip_lora": 0.8, "ns_net": 0.9})
    tracking.publish(project.root)
    found = registry.register(project.root)
    assert (found.champion, list(found.versions), champion(project)) == ("ns_net-0", ["ns_net-0"], "ns_net-0")
    assert len(found.too_large) == 5
    seeds_of(project, {"clip_lora": 0.95, "ns_net": 0.9})
    assert registry.register(project.root).champion == "clip_lora-0" == champion(project)
    seeds_of(project, {"clip_lora": 0.9, "ns_net": 0.9})
    assert registry.register(project.root).champion is None is champion(project)
    (project.root / "data/evaluated/ns_net-1.parquet").unlink()
    assert registry.register(project.root).champion is None, "not evaluated: nothing is claimed"


def test_a_model_of_another_project_is_not_taken_for_this_one(project: Project) -> None:
    """Two clones publish to one server: under the name of a run there may be the other one's model, and not the one here."""
    tracking.publish(project.root)
    project.train("ns_net", b"other weights")
    found = registry.register(project.root)
    assert list(found.versions) == ["clip_lora-0"] and sorted(logged(project).values()) == ["clip_lora-0"]


def test_two_clones_and_one_server_have_every_model_once(project: Project, server, tmp_path: Path) -> None:
    """Over HTTP, with artefacts that the server keeps: one model is the same in both clones, the other is not."""
    other = Path(shutil.copytree(project.root, tmp_path / "the other clone"))
    (other / "models/ns_net-0/weights.safetensors").write_bytes(b"trained there")
    for root in (project.root, other, project.root):
        tracking.publish(root)
        registry.register(root)
    opened = store.open_store(project.root)
    runs = opened.client.search_runs([opened.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["clip_lora-0", "ns_net-0", "ns_net-0"]
    assert len(opened.client.search_logged_models([opened.experiment_id])) == 3
    versions = opened.client.search_model_versions(f"name = '{NAME}'")
    assert {version.run_id for version in versions} == {run.info.run_id for run in runs} and len(versions) == 3
    assert not (project.root / "mlartifacts").exists()


@pytest.mark.slow
def test_two_machines_that_publish_at_once_take_turns(project: Project, server: Mlflow, tmp_path: Path) -> None:
    """Two clones of one project, so that every model is the same: each is there once, with one model and one version."""
    roots = [project.root, Path(shutil.copytree(project.root, tmp_path / "the other clone"))]
    both = [
        subprocess.Popen([sys.executable, str(TRACK)], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for root in roots
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    everything_once(project.root)


@pytest.mark.slow
def test_a_server_that_dies_while_it_takes_models_has_them_once_afterwards(
    project: Project, server: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # or a server that is gone is asked for a minute
    monkeypatch.setattr(turn, "STALE_S", 1.0)  # the claim of this machine is still there when the server is back
    tracking.publish(project.root)
    log = registry.log_model

    def dies(*arguments) -> str:
        done = log(*arguments)
        server.kill()
        return done

    monkeypatch.setattr(registry, "log_model", dies)
    with pytest.raises(tracking.TrackingError, match="expected an MLflow store that answers"):
        registry.register(project.root)
    monkeypatch.setattr(registry, "log_model", log)
    server.start()
    registry.register(project.root)
    everything_once(project.root)


def everything_once(root: Path) -> None:
    """Two runs, each with one model and one version, and nobody's claim."""
    opened = store.open_store(root)
    runs = opened.client.search_runs([opened.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["clip_lora-0", "ns_net-0"]
    assert {run.data.tags["nullscope.metrics"] for run in runs}.isdisjoint({"in progress"})
    models = opened.client.search_logged_models([opened.experiment_id])
    assert sorted(model.source_run_id for model in models) == sorted(run.info.run_id for run in runs)
    versions = opened.client.search_model_versions(f"name = '{NAME}'")
    assert sorted(version.run_id for version in versions) == sorted(run.info.run_id for run in runs)
    assert [model.name for model in opened.client.search_registered_models()] == [NAME]


def test_nothing_is_registered_where_nothing_is_tracked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NULLSCOPE_TRACKING", "off")
    assert registry.register(project.root) is None


def test_every_run_names_its_data_set(project: Project) -> None:
    tracking.publish(project.root)
    tracking.publish(project.root)
    for run in project.runs():
        (used,) = run.inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("world", "01234567")
        assert [tag.value for tag in used.tags] == ["training, evaluation"] and "data/index.parquet" in used.dataset.source


def test_the_list_of_runs_opens_with_what_people_compare(project: Project) -> None:
    tracking.publish(project.root)
    opened = store.open_store(project.root)
    state = opened.client.get_experiment(opened.experiment_id).tags[view.TAG]
    assert "metrics.`auroc_unseen`" in state and "tags.`nullscope.weights`" in state
    assert f"viewStateShareKey={view.KEY}" in tracking.viewer(project.root)


def test_a_folder_is_as_large_as_its_files(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "clip/b").write_bytes(b"1234")
    assert registry.size_of(tmp_path) == 9
