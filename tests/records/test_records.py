"""Tests that MLflow runs are recorded and restored, and that shipped records are valid."""

import json
import math
import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from mlflow.tracking import MlflowClient
from report_store import LADDER, Store, curve, right
from typer.testing import CliRunner

import runner
from report import analysis
from report.presentation import mlflow_ladder, readme
from resnet import UserError, data, records
from resnet.host import command_lines
from resnet.records.json_format import Predictions, pack
from resnet.store import connect as connect_to
from resnet.study import SHIPPED, Job, Key, Study

STUDY = Study.open()

FAST = ["--set=model.identity_blocks=[0,0,0]", "--set=training.epochs=2"]
N = 1000


@pytest.fixture
def recorded(empty, tmp_path):
    """Makes a store, and opens its MLflow experiment for recorded runs."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    return records.connect_recorded(Store.copy(empty, folder).uri, STUDY)


def made_store(empty, folder):
    made = Store.copy(empty, folder)
    made.add(LADDER[0], right(N, 700), start=1_700_000_000_000)
    made.add(LADDER[1], right(N, 800), start=1_700_000_000_001, seed=3)
    return made


@pytest.fixture(scope="session")
def sample(empty, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    made_store(empty, tmp_path_factory.mktemp("sample")).recorded(folder)
    return folder


@pytest.fixture(scope="session")
def text(sample):
    return min(sample.iterdir()).read_text(encoding="utf-8")


@pytest.fixture
def refused(tmp_path, text):
    """``refused(changed, told)`` checks that loading ``changed`` fails with the text ``told``."""
    path = tmp_path / Key.read(json.loads(text)["tags"]).file

    def refused(changed, told):
        path.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(UserError) as error:
            records.load(path)
        line = str(error.value)
        assert line.startswith(f"{path}: ")
        assert told in line
        assert line.isprintable()

    return refused


# --- recording and restoring -------------------------------------------------------------------


def artifact(store, run, name):
    uri = f"runs:/{run.info.run_id}/{name}"
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=store.uri)).read_bytes()


def test_a_run_loses_nothing_when_it_is_recorded_and_restored(
    command, here, image_folder, tmp_path, request
):
    process = here("--ladder=2", f"--data={image_folder}", "--seed=7", *FAST)
    assert process.returncode == 0, process.err
    own = connect_to(command.uri)
    (run,) = own.search(role="rung")
    record = records.to_record(own, run)
    path = records.save(record, tmp_path / "results")
    assert record == records.load(path)
    text = path.read_text(encoding="utf-8")
    assert str(tmp_path) not in text.replace(str(tmp_path / "results"), "")

    recorded = request.getfixturevalue("recorded")  # requested late: it sets MLflow's current store
    assert records.restore(recorded, {path: record}) == 1
    (back,) = recorded.search()
    assert back.data.params == run.data.params
    assert back.data.metrics == {
        key: value for key, value in run.data.metrics.items() if not key.startswith("system/")
    }
    assert record.tags.items() <= back.data.tags.items()
    for key in records.CURVES:
        mine = own.client.get_metric_history(run.info.run_id, key)
        theirs = recorded.client.get_metric_history(back.info.run_id, key)
        assert [*map(dict, mine)] == [*map(dict, theirs)]
    for name in ("start_time", "end_time", "status", "run_name"):
        assert getattr(back.info, name) == getattr(run.info, name)
    kept = {
        "experiment.yaml", "test_predictions.csv", "confusion_matrix.csv", "curves.png",
        "confusion_matrix.png",
    }  # fmt: skip
    assert {file.path for file in recorded.client.list_artifacts(back.info.run_id)} == kept
    for name in kept:
        assert artifact(recorded, back, name) == artifact(own, run, name), name
    # commands that train must not find the imported run
    assert not connect_to(recorded.uri).search()


def test_a_run_whose_loss_became_nan_is_recorded_and_restored(recorded, text, tmp_path):
    tree = json.loads(text)
    tree["curves"]["loss"][-1] = tree["final"]["test_loss"] = math.nan
    record = records.Record.model_validate_json(json.dumps(tree))
    loaded = records.load(path := records.save(record, tmp_path))
    assert loaded.sha256 == record.sha256
    assert records.restore(recorded, {path: loaded}) == 1
    (run,) = recorded.search()
    assert math.isnan(run.data.metrics["loss"])
    frame = pd.DataFrame({"label": [1], "predicted": [0], "truth_probability": [math.nan]})
    assert Predictions.of(frame).frame()["truth_probability"].tolist() == [0]


@pytest.mark.parametrize("point", ["log_batch", "set_terminated"])
def test_restoring_again_after_a_kill_completes_the_import(recorded, sample, monkeypatch, point):
    class Killed(BaseException):
        pass

    def kill(*arguments, **options):
        raise Killed

    found = records.load_all(sample)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, point, kill)
        with pytest.raises(Killed):
            records.restore(recorded, found)
    assert mlflow_ladder.restore(recorded, found) == 2
    held = {run.info.run_id: run.to_dictionary() for run in recorded.search()}
    assert len(held) == 3  # two imported runs, and the run that has the ladder's table
    assert mlflow_ladder.restore(recorded, found) == 0
    assert {run.info.run_id: run.to_dictionary() for run in recorded.search()} == held


def test_the_import_of_a_changed_record_replaces_the_old_import(recorded, sample):
    found = records.load_all(sample)
    records.restore(recorded, found)
    path, record = next(iter(found.items()))
    found[path] = record.model_copy(update={"tags": record.tags | {"device": "another"}})
    assert records.restore(recorded, found) == 1
    runs = recorded.search()
    assert sorted(run.data.tags["device"] for run in runs) == ["A processor, 4 cores", "another"]
    del found[path]
    assert records.restore(recorded, found) == 0
    assert len(recorded.search()) == 1


# --- damaged and edited records ----------------------------------------------------------------


def test_a_record_whose_parts_disagree_is_refused(refused, text):
    tree = json.loads(text)

    def predictions(**packed):
        return tree | {"predictions": tree["predictions"] | packed}

    def numbers(value, count=N):
        return pack(np.full(count, value, "uint8"))

    final = tree["final"] | {"test_accuracy": 0.9}
    refused(tree | {"final": final}, "test_accuracy is 0.9, but the predictions give 0.7")
    refused(predictions(predicted=numbers(3)), "but the predictions give")
    refused(predictions(label=numbers(10)), "not one of the classes")
    refused(predictions(label=numbers(0, count=N + 1)), "does not hold 1000 numbers")
    refused(predictions(label="AAAA"), "cannot be unpacked")
    edited = [line.replace("epochs: 25", "epochs: 26") for line in tree["experiment"]]
    refused(tree | {"experiment": edited}, "config_hash does not match the experiment")
    refused(tree | {"experiment": ["!!python/object:os.system x"]}, "experiment")
    refused(tree | {"tags": tree["tags"] | {"seed": "-1"}}, "seed")
    refused(tree | {"tags": {}}, "the tag 'rung' is missing")
    refused(tree | {"classes": [*tree["classes"][:-1], tree["classes"][0]]}, "the same name")
    curves = tree["curves"]
    refused(tree | {"curves": curves | {"loss": curves["loss"][1:]}}, "one value per epoch")
    refused(tree | {"curves": {"loss": curves["loss"]}}, "the curves must be loss, accuracy")
    refused(tree | {"format": 1}, "format")


def test_a_misnamed_or_damaged_record_is_refused(sample, tmp_path):
    path = shutil.copy(min(sample.iterdir()), tmp_path / "other.json")
    with pytest.raises(UserError, match=r"other\.json: has the wrong name. Rename the file to 01_"):
        records.load_all(tmp_path)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(UserError, match=r"other\.json: Invalid JSON"):
        records.load_all(tmp_path)


# --- the command line --------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """``run(store, "record")`` runs a command in this process with a new results folder."""
    folder = shutil.copytree(SHIPPED, tmp_path / "experiments")

    def run(store, *arguments):
        own = ["--experiments", str(folder), "--tracking-uri", store.uri]
        return CliRunner().invoke(runner._app(), [*arguments, *own])

    run.folder, run.results = folder, tmp_path / "results"
    return run


def test_the_commands_record_and_restore_print_what_they_did(run, empty, recorded, tmp_path):
    (tmp_path / "own").mkdir()
    own = made_store(empty, tmp_path / "own")
    assert "has no finished run" in str(run(connect_to(recorded.uri), "record").exception)
    nothing = str(run(recorded, "restore").exception)
    assert re.search(r"no record in .*Start with: .*runner\.py run", nothing)
    assert f"--experiments {command_lines.typed(run.folder)}" in nothing
    assert str(run(recorded, "report", "--recorded").exception) == nothing
    assert run(own, "record").exit_code == 0
    (path,) = run.results.glob("02_augmentation-seed3-cifar10-tensorflow-*")
    assert (
        run(own, "record").output.count("already recorded") == len(list(run.results.iterdir())) == 2
    )

    assert "2 of 2 recorded runs restored" in run(recorded, "restore").output
    assert "0 of 2 recorded runs restored" in run(recorded, "restore").output
    assert run(recorded, "restore", "record").exit_code == 2
    about = run.folder / "study.yaml"
    before = about.read_text(encoding="utf-8")
    about.write_text(before.replace("../results", "/dev/null/results"), encoding="utf-8")
    told = run(own, "record").exception
    about.write_text(before, encoding="utf-8")
    assert isinstance(told, UserError)
    assert re.fullmatch(r"sqlite:.*/dev/null/results.*\. Nothing is lost; try again", str(told))

    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(": 0.8", ": 0.9", 1), encoding="utf-8")
    for command in (["restore"], ["report", "--recorded"]):
        assert path.name in str(run(recorded, *command).exception)


def test_a_later_run_does_not_replace_a_record(run, empty, tmp_path):
    own = made_store(empty, tmp_path)
    run(own, "record")
    before = {path: path.read_bytes() for path in run.results.iterdir()}
    assert len(before) == 2
    own.add(LADDER[0], right(N, 990))
    assert "kept" in run(own, "record").output
    assert {path: path.read_bytes() for path in run.results.iterdir()} == before


def test_only_finished_full_profile_runs_without_overrides_are_recorded(run, empty, tmp_path):
    own = Store.copy(empty, tmp_path)
    own.add(LADDER[0], right(N, 700), profile="quick")
    own.add(LADDER[0], right(N, 700), modified="training.epochs=25")
    own.add(LADDER[0], right(N, 700), status="KILLED")
    result = run(own, "record")
    assert isinstance(result.exception, UserError)


# --- the report --------------------------------------------------------------------------------


def test_a_report_does_not_mix_recorded_runs_with_own_runs(run, empty, sample, tmp_path):
    shutil.copytree(sample, run.results)
    study = Study.open(run.folder)
    none = f"sqlite:///{tmp_path / 'none.db'}"
    recorded = analysis.load(none, study, recorded=True)
    assert not (tmp_path / "none.db").exists()
    assert recorded.run_set.label.endswith("full profile, recorded runs")
    assert recorded.systems[0].accuracies == [0.7]
    assert recorded.mistakes is None  # records have no images
    assert not recorded.notes
    with pytest.raises(UserError, match="nothing has been run yet"):
        analysis.load(none, study)
    made = Store.copy(empty, tmp_path)
    made.add(LADDER[0], right(N, 600))
    own = analysis.load(made.uri, study, compare=["recorded"])
    assert own.systems[0].accuracies == [0.6]
    assert "recorded" not in own.run_set.label
    assert own.compared[0].systems[0].accuracies == [0.7]
    (compared,) = analysis.load(made.uri, study, recorded=True, compare=["own"]).compared
    assert compared.systems[0].accuracies == [0.6]


# --- what is shipped ---------------------------------------------------------------------------


SHIPPED_RECORDS = [*STUDY.results.glob("*.json"), *ROOT.glob("studies/*/results/*.json")]


@pytest.mark.parametrize("path", sorted(SHIPPED_RECORDS), ids=lambda path: path.stem)
def test_shipped_records_are_valid(path, tmp_path):
    assert path.stat().st_size <= 60_000
    record = records.load(path)
    named = data.NAMED[record.tags["dataset"]]
    assert record.tags["dataset_fingerprint"] == named.fingerprint
    assert record.tags["profile"] == "full"
    assert not record.tags["modified"]
    assert records.save(record, tmp_path).read_bytes() == path.read_bytes()


def test_verdicts_about_accuracies_are_undecided_with_one_recorded_seed_per_rung():
    every = records.load_all(STUDY.results).values()
    found = [record for record in every if record.tags["seed"] == "0"]
    content = analysis.of_records(STUDY, found)
    assert len(found) == 14
    assert {system.verdict for system in content.systems} == {"undecided"}
    of_accuracies = [j for j in content.claims if analysis.QUANTITIES[j.claim.quantity].weights]
    assert len(of_accuracies) == 6
    assert {j.verdict for j in of_accuracies} == {"undecided"}


def test_the_readme_shows_the_results_of_the_records(sample, tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    results, folder = tmp_path / "results", tmp_path / readme.FIGURES

    def updated(name):
        readme.update(STUDY, results)
        return (tmp_path / name).read_text("utf-8").partition("<!-- end of what is written")[0]

    not_run = r"\| not run \| [\d.]+ % \| - \| not run \|\n"
    with pytest.raises(UserError, match="holds no records"):
        readme.update(STUDY, results)
    shutil.copytree(sample, results)
    text = updated("README.md")
    why = "all rows together have too few seeds to estimate the deviation of accuracy"
    row = f"| 1 Template | 70.0 % | 72.3 % | -2.3 | undecided<br>{why} |"
    assert f"{row}\n" in text
    assert len(re.findall(not_run, text)) == 4
    assert "of the six published accuracies, two are undecided and four are not run." in text
    text = updated("docs/results.md")
    assert f"{row} - |\n" in text  # the dash means that there is no interval
    assert ".venv/bin/ladder run 2 --seeds 3 --cpus-per-run 4\n" in text
    assert "\n* tensorflow on A processor, 4 cores: rung 1 (seed 0), rung 2 (seed 3)\n" in text
    both = r"01\_template: 1 seed; 02\_augmentation: 1 seed"
    assert f"| 1 → 2 + augmentation | +10.6 | +10.0 | - | {both} |\n" in text
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["gains.svg", "progression.svg", "validation.svg"]
    assert "](figures/gains.svg)" in text and "](figures/validation.svg)" in text
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (folder / "another.svg").write_text("<svg/>", encoding="utf-8")
    readme.update(STUDY, results)  # writes the same bytes again; CI relies on this
    again = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert again == written
    (tmp_path / "README.md").write_text(text, encoding="utf-8")  # without the closing comment
    with pytest.raises(UserError, match="lacks the line"):
        readme.update(STUDY, results)


def test_files_that_macos_adds_are_not_loaded_as_records(sample, tmp_path):
    folder = shutil.copytree(sample, tmp_path / "results")
    for path in [*folder.iterdir()]:
        (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert len(records.load_all(folder)) == 2
    record = next(iter(records.load_all(folder).values()))
    job = Job(STUDY.experiment(record.key.rung), 0)
    (found,) = records.courses(folder, [job], record.key.dataset_fingerprint)
    assert found == job.experiment.hash()


def test_other_runs_are_recorded_if_a_run_lacks_a_tag_or_files(run, empty, tmp_path):
    made = Store.copy(empty, tmp_path)
    lost, gone, _ = (made.add(LADDER[0], right(N, 700), seed=seed) for seed in range(3))
    made.client.delete_tag(lost, "config_hash")
    shutil.rmtree(tmp_path / "mlartifacts" / gone)
    result = run(made, "record")
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert f"run {lost} (01_template · seed 0): somebody deleted the tag 'config_hash'" in text
    assert f"run {gone} (01_template · seed 1): cannot be recorded" in text
    assert text.count("not recorded: ") == 2
    assert len([*run.results.iterdir()]) == 1


def test_a_diverged_run_has_the_same_verdict_in_its_store_and_in_its_record(empty, tmp_path):
    made = Store.copy(empty, tmp_path)
    history = curve(3, 0.1, 0.1)
    history.loc[2:, ["loss", "val_loss"]] = math.nan
    run_id = made.add(LADDER[1], right(N, 100), history=history)
    path = made.artifact(run_id, "test_predictions.csv")
    frame = pd.read_csv(path)
    frame["truth_probability"] = math.nan  # older runs have NaN here
    frame.to_csv(path, index=False)
    for seed in range(6):
        made.add(LADDER[0], right(N, 720 + seed, seed), seed=seed)
    own = connect_to(made.uri)
    found = [records.to_record(own, run) for run in records.recordable(own)]
    contents = [analysis.load(own.uri), analysis.of_records(STUDY, found)]
    for content in contents:
        assert [s.verdict for s in content.systems] == [s.verdict for s in contents[0].systems]
        assert [s.interval for s in content.systems[:1]] == [contents[0].systems[0].interval]
        (note,) = [note for note in content.notes if "diverged" in note]
        assert note.startswith("02_augmentation, seed 0") and "its loss is not finite" in note
        assert not [run.lacks for run in content.runs if run.lacks]
    assert [run.floor for run in contents[0].runs] == [run.floor for run in contents[1].runs]
