"""Runs out of a store into text and back, on real MLflow stores."""

import dataclasses
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from report_store import LADDER, Store, curve, right
from typer.testing import CliRunner

import runner
from report import analysis
from report.presentation import readme, tables
from report.presentation.tables import commands
from resnet import UserError, data, records
from resnet.host import shell
from resnet.records import exchange
from resnet.records.record import Predictions, pack, unpack
from resnet.store import connect as connect_to
from resnet.study import SHIPPED, Job, Key, Study, short

STUDY = Study.open()

FAST = ["--set=model.identity_blocks=[0,0,0]", "--set=training.epochs=2"]
N = 1000


@pytest.fixture
def connected(empty, tmp_path):
    """``connected("name")`` is a store of its own."""

    def connect(name):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copyfile(empty, folder / "mlflow.db")
        return connect_to(f"sqlite:///{folder / 'mlflow.db'}")

    return connect


def made_store(empty, folder):
    """Two rungs of known runs, and the store as the library sees it."""
    made = Store.copy(empty, folder)
    made.add(LADDER[0], right(N, 700), start=1_700_000_000_000)
    made.add(LADDER[1], right(N, 800), start=1_700_000_000_001, seed=3)
    return connect_to(made.uri)


@pytest.fixture(scope="session")
def sample(empty, tmp_path_factory):
    """Two records in a folder."""
    store = made_store(empty, tmp_path_factory.mktemp("sample"))
    folder = tmp_path_factory.mktemp("results")
    for run in records.recordable(store):
        records.save(records.to_record(store, run), folder)
    return folder


@pytest.fixture(scope="session")
def text(sample):
    return min(sample.iterdir()).read_text(encoding="utf-8")


@pytest.fixture
def refused(tmp_path, text):
    """``refused(changed)``: such a record, a file's text or a tree, is refused in one line."""
    path = tmp_path / Key.read(json.loads(text)["tags"]).file

    def refused(changed, told=""):
        changed = changed if isinstance(changed, str) else json.dumps(changed)
        path.write_text(changed, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(UserError) as error:
            records.load(path)
        line = str(error.value)
        assert line.startswith(f"{path}: ")
        assert told in line
        assert line.isprintable()

    return refused


def everything(store):
    """What a store holds and a second restoring must not change."""
    client, held = store.client, {}
    for run in client.search_runs([store.experiment_id]):
        files = client.list_artifacts(run.info.run_id)
        held[run.info.run_id] = (
            run.to_dictionary(),
            {key: len(client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics},
            sorted((file.path, file.file_size) for file in files),
        )
    return held


# --- out and back in ---------------------------------------------------------------------------


def test_a_real_run_out_and_back_in_loses_nothing(command, here, connected, image_folder, tmp_path):
    process = here("--ladder=2", f"--data={image_folder}", "--seed=7", *FAST)
    assert process.returncode == 0, process.err
    own = connect_to(command.uri)
    (run,) = own.search(role="rung")
    record = records.to_record(own, run)
    path = records.save(record, tmp_path / "results")
    text = path.read_text(encoding="utf-8")
    assert str(tmp_path) not in text.replace(str(tmp_path / "results"), "")

    other = connected("other")
    assert records.restore(other, {path: records.load(path)}) == 1
    (back,) = other.search(role="recorded")
    assert records.to_record(other, back) == record == records.load(path)

    assert back.data.params == run.data.params
    assert back.data.metrics == {
        key: value for key, value in run.data.metrics.items() if not key.startswith("system/")
    }
    assert back.data.tags["recorded_run_id"] == run.info.run_id
    for name in ("start_time", "end_time", "status", "run_name"):
        assert getattr(back.info, name) == getattr(run.info, name)
    kept = {
        "experiment.yaml", "test_predictions.csv", "confusion_matrix.csv", "curves.png",
        "confusion_matrix.png",
    }  # fmt: skip
    assert {file.path for file in other.client.list_artifacts(back.info.run_id)} == kept
    for name in kept:
        assert artifact(other, back, name) == artifact(own, run, name), name
    # neither is this store's own: its runner would train that job
    assert not records.recordable(other)
    assert not other.search(role="rung")


def artifact(store, run, name):
    uri = f"runs:/{run.info.run_id}/{name}"
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=store.uri)).read_bytes()


def test_a_run_whose_loss_became_nan_is_recorded_and_restored(connected, text, tmp_path):
    tree = json.loads(text)
    tree["curves"]["loss"][-1] = tree["final"]["test_loss"] = math.nan
    record = records.Record.model_validate_json(json.dumps(tree))
    loaded = records.load(path := records.save(record, tmp_path))
    assert loaded.sha256 == record.sha256
    store = connected("store")
    assert records.restore(store, {path: loaded}) == 1
    (run,) = store.search(role="recorded")
    assert math.isnan(run.data.metrics["loss"])
    frame = pd.DataFrame({"label": [1], "predicted": [0], "truth_probability": [math.nan]})
    assert Predictions.of(frame).frame()["truth_probability"].tolist() == [0]
    whole = analysis.load(store.uri).runs[0]
    frame = whole.predictions.assign(truth_probability=0.0)
    assert whole.floor > 0
    assert dataclasses.replace(whole, predictions=frame).floor == 0


def test_restoring_twice_changes_nothing(connected, sample):
    store, found = connected("store"), records.load_all(sample)
    assert records.restore(store, found) == 2
    before = everything(store)
    assert records.restore(store, found) == 0
    assert everything(store) == before


@pytest.mark.parametrize("point", ["log_batch", "log_inputs", "log_artifacts", "set_tag"])
def test_killed_while_restoring_and_repeated(connected, sample, monkeypatch, point):
    class Killed(BaseException):
        pass

    def kill(*arguments, **options):
        raise Killed

    store, found = connected("store"), records.load_all(sample)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, point, kill)
        with pytest.raises(Killed):
            records.restore(store, found)
    with pytest.raises(UserError, match="has no runs"):
        analysis.load(store.uri)  # what is half there is not reported
    assert records.restore(store, found) == 2
    again = {run.data.tags["rung"]: run for run in store.search(role="recorded")}
    assert {path.name for path in found} == {Key.read(r.data.tags).file for r in again.values()}
    for record in found.values():
        run = again[record.tags["rung"]]
        assert records.to_record(store, run) == record
    assert len(store.client.search_runs([store.experiment_id])) == 3  # two and their parent


def test_a_changed_record_takes_the_place_of_its_old_version(connected, sample):
    store, found = connected("store"), records.load_all(sample)
    records.restore(store, found)
    path, record = next(iter(found.items()))
    found[path] = record.model_copy(update={"tags": record.tags | {"device": "another"}})
    assert records.restore(store, found) == 1
    runs = store.search(role="recorded")
    assert sorted(run.data.tags["device"] for run in runs) == ["A processor, 4 cores", "another"]
    found[path] = record.model_copy(update={"run_id": "f" * 32})  # recorded in its place
    assert records.restore(store, found) == 1
    assert len(runs) == len(store.search(role="recorded"))
    assert len(store.search(recorded_run_id="f" * 32)) == 1


def test_restoring_puts_back_what_is_gone(connected, sample):
    store, found = connected("store"), records.load_all(sample)
    records.restore(store, found)
    run = store.search(role="recorded")[0]
    shutil.rmtree(store.checkpoints.parent / "mlartifacts" / run.info.run_id)
    assert records.restore(store, found) == 1
    for run in store.search(role="recorded"):
        assert artifact(store, run, "test_predictions.csv")


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=99))
@settings(deadline=None)
def test_arrays_come_back(numbers):
    array = np.array(numbers, "<u2")
    np.testing.assert_array_equal(unpack(pack(array), "<u2", len(numbers)), array, strict=True)


# --- broken, edited, hostile -------------------------------------------------------------------


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_refused(refused, text, data):
    refused(text[: data.draw(st.integers(0, len(text) - 3))])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@given(st.data(), JSON)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_values_give_a_record_or_one_line(tmp_path, text, data, value):
    tree = json.loads(text)
    place = tree
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = value
    path = tmp_path / Key.read(json.loads(text)["tags"]).file
    path.write_text(json.dumps(tree), encoding="utf-8")
    try:
        assert records.load(path).predictions.frame().shape == (N, 3)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        assert str(error).isprintable()


def test_what_disagrees_is_refused(refused, text):
    tree = json.loads(text)

    def predictions(**packed):
        return tree | {"predictions": tree["predictions"] | packed}

    def numbers(value, dtype="uint8", count=N):
        return pack(np.full(count, value, dtype))

    refused(
        tree | {"final": tree["final"] | {"test_accuracy": 0.9}},
        "an accuracy of 0.7, but it says 0.9",
    )
    refused(tree | {"final": {}}, "but it says None")
    refused(predictions(predicted=numbers(3)), "predictions have an accuracy")
    refused(predictions(label=numbers(10)), "none of its classes")
    refused(predictions(truth_probability=numbers(10_001, "<u2")), "above 1")
    refused(predictions(label=numbers(0, count=N + 1)), "does not hold 1000 numbers")
    refused(predictions(label=numbers(0, count=50_000_000)), "does not hold 1000 numbers")
    refused(predictions(label="AAAA"), "cannot be unpacked")
    edited = [line.replace("epochs: 25", "epochs: 26") for line in tree["experiment"]]
    refused(tree | {"experiment": edited}, "config_hash")
    refused(tree | {"experiment": ["!!python/object:os.system x"]}, "experiment")
    refused(tree | {"tags": tree["tags"] | {"seed": "-1"}}, "seed")
    refused(tree | {"tags": {}}, "lacks the tag rung")
    refused(tree | {"classes": [*tree["classes"][:-1], tree["classes"][0]]}, "a class name twice")
    curves = tree["curves"]
    refused(tree | {"curves": curves | {"loss": curves["loss"][1:]}}, "one value an epoch")
    refused(tree | {"curves": {"loss": curves["loss"]}}, "its curves are not loss, accuracy")
    refused(tree | {"format": 1}, "format")


def test_hidden_files_are_no_records(sample, tmp_path):
    shutil.copytree(sample, tmp_path, dirs_exist_ok=True)
    (tmp_path / f"._{min(tmp_path.iterdir()).name}").write_bytes(b"\0\5\x16\7")  # as macOS does
    assert list(records.load_all(tmp_path).values()) == list(records.load_all(sample).values())


def test_a_file_under_another_name_is_refused(sample, tmp_path):
    path = shutil.copy(min(sample.iterdir()), tmp_path / "other.json")
    with pytest.raises(UserError, match=r"other\.json: holds a run whose record is called 01_"):
        records.load_all(tmp_path)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(UserError, match=r"other\.json: Invalid JSON"):
        records.load_all(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"other\.json: cannot be read"):
        records.load_all(tmp_path)


# --- the command line --------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """``run(store, "record")``: the command line in this process, with ``results/`` elsewhere."""
    folder = shutil.copytree(SHIPPED, tmp_path / "experiments")

    def run(store, *arguments):
        own = ["--experiments", str(folder), "--tracking-uri", store.uri]
        return CliRunner().invoke(runner._app(), [*arguments, *own])

    run.folder, run.results = folder, tmp_path / "results"
    return run


def test_record_and_restore(run, empty, connected, tmp_path):
    (tmp_path / "own").mkdir()
    own = made_store(empty, tmp_path / "own")
    assert "holds no such run" in str(run(connected("bare"), "record").exception)
    nothing = str(run(connected("none"), "restore").exception)
    assert re.search(r"no record in .*start with .*runner\.py run", nothing)
    assert f"--experiments {shell.typed(run.folder)}" in nothing
    result = run(own, "record", "2", "--seeds", "3")
    assert result.exit_code == 0, result
    (path,) = run.results.iterdir()
    assert path.name.startswith("02_augmentation-seed3-cifar10-tensorflow-")
    result = run(own, "record")
    assert "there already" in result.output
    assert len(list(run.results.iterdir())) == 2

    store = connected("clone")
    assert "2 of 2 recorded runs restored" in run(store, "restore").output
    assert "0 of 2 recorded runs restored" in run(store, "restore").output
    assert run(store, "restore", "record").exit_code == 2
    about = run.folder / "study.yaml"
    before = about.read_text(encoding="utf-8")
    about.write_text(before.replace("../results", "/dev/null/results"), encoding="utf-8")
    told = run(own, "record").exception
    about.write_text(before, encoding="utf-8")
    assert isinstance(told, UserError)
    assert re.fullmatch(r"sqlite:.*/dev/null/results.*; nothing is lost, try again", str(told))

    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(": 0.8", ": 0.9", 1), encoding="utf-8")
    broken = connected("broken")
    assert path.name in str(run(broken, "restore").exception)
    assert not broken.search(role="recorded")


def test_a_recorded_run_is_not_replaced_by_a_later_one(run, empty, tmp_path):
    own = made_store(empty, tmp_path)
    run(own, "record")
    before = {path: path.read_bytes() for path in run.results.iterdir()}
    assert len(before) == 2
    Store(tmp_path).add(LADDER[0], right(N, 990))
    assert "kept" in run(own, "record").output
    assert {path: path.read_bytes() for path in run.results.iterdir()} == before


def test_only_full_unmodified_finished_runs_are_recorded(run, empty, tmp_path):
    own = Store.copy(empty, tmp_path)
    own.add(LADDER[0], right(N, 700), profile="quick")
    own.add(LADDER[0], right(N, 700), modified="training.epochs=25")
    own.add(LADDER[0], right(N, 700), status="KILLED")
    result = run(connect_to(own.uri), "record")
    assert isinstance(result.exception, UserError)


# --- the report --------------------------------------------------------------------------------


def test_recorded_and_own_runs_stay_apart(empty, sample, tmp_path):
    made = Store.copy(empty, tmp_path)
    made.add(LADDER[0], right(N, 600))
    store = connect_to(made.uri)
    records.restore(store, records.load_all(sample))
    recorded = analysis.load(store.uri)  # two rungs against one
    assert recorded.run_set.label.endswith("full profile, recorded runs")
    assert recorded.systems[0].accuracies == [0.7]
    own = analysis.load(store.uri, recorded=False)
    assert own.systems[0].accuracies == [0.6]
    assert "recorded" not in own.run_set.label
    assert [other.recorded for other in own.selection.others] == [True]
    made.add(LADDER[1], right(N, 900))
    assert not analysis.load(store.uri).run_set.recorded  # as many: own ones first
    # a record holds no images: nothing is gone
    assert "mistakes.png" not in " ".join(analysis.load(store.uri, recorded=True).notes)


# --- what is shipped ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(STUDY.results.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_records_are_sound(path):
    """The loader computes each test accuracy anew from the predictions."""
    assert path.stat().st_size <= 60_000
    record = records.load(path)
    assert record.tags["dataset_fingerprint"] == data.NAMED["cifar10"].fingerprint
    assert record.tags["profile"] == "full"
    assert not record.tags["modified"]


FIRST = {"1": (0, 1), "2": (0, 1, 2), "3": (0, 1), "4": (0,), "5": (0,), "vgg": (0, 1, 2, 3, 4)}
"""Seeds of the first recorded runs, by row."""


def judged(connected, name, chosen):
    """The report's content of some of the recorded runs."""
    found = {path: record for path, record in records.load_all(ROOT / "results").items()
             if chosen(record.tags)}  # fmt: skip
    store = connected(name)
    records.restore(store, found)
    content = analysis.load(store.uri)
    return len(found), content, {system.short: system for system in content.systems}


def test_what_the_first_recorded_runs_can_bear(connected):
    def first(tags):
        row, whole = short(tags["rung"]), "~" not in tags["rung"]
        return int(tags["seed"]) in FIRST.get(row, ()) if whole else tags["seed"] == "0"

    count, content, rows = judged(connected, "all", first)
    assert count == 22
    assert content.interim
    assert {name: row.verdict for name, row in rows.items()} == {
        "1": "fails (under our assumptions)",
        "2": "undecided",
        "3": "undecided",
        "4": "holds",
        "5": "holds",
        "vgg": "fails (under our assumptions)",
    }
    assert "filters" in rows["vgg"].assumed
    assert "epochs" in rows["1"].assumed
    table = tables.backends(content).frame
    assert [*table["rung"].map(short).unique()] == ["1", "2", "3", "vgg"]
    assert set(table["expected"]) == {"as expected"}
    other = table[table["rung"].map(short) == "vgg"].iloc[0]
    assert (other["engine"], other["seeds"]) == ("tensorflow on AMD EPYC, 2 cores", "0")
    of_jax = [run for run in rows["vgg"].runs if run.tags["backend"] == "jax"]
    assert not any(map(commands.repeatable, of_jax))
    assert commands.rerun_command(STUDY, of_jax[0]) == (
        "XLA_FLAGS=--xla_gpu_deterministic_ops=false KERAS_BACKEND=jax .venv-gpu/bin/ladder "
        "run vgg --seed 1 --fresh"
    )
    assert commands.repeatable(rows["1"].runs[1])
    assert commands.rerun_command(STUDY, rows["1"].runs[1]).startswith(
        "KERAS_BACKEND=jax .venv-gpu/"
    )


def test_one_recorded_seed_a_row_decides_nothing_about_accuracies(connected):
    count, content, rows = judged(connected, "one", lambda tags: tags["seed"] == "0")
    assert count == 14
    assert {row.verdict for row in rows.values()} == {"undecided"}
    of_accuracies = [j for j in content.claims if analysis.QUANTITIES[j.claim.quantity].weights]
    assert len(of_accuracies) == 6
    assert {j.verdict for j in of_accuracies} == {"undecided"}


def test_the_readme_follows_the_records(sample, tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    results = tmp_path / "results"
    readme.update(STUDY, results)
    not_run = r"\| not run \| [\d.]+ % \| - \| not run \|\n"
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    own = text.partition("<!-- end of what is written")[0]
    assert len(re.findall(not_run, own)) == 6
    shutil.copytree(sample, results)
    readme.update(STUDY, results)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    why = "too few seeds in all to know how much seeds vary"
    row = f"| 1 Template | 70.0 % | 72.3 % | -2.3 | undecided<br>{why} |"
    assert f"{row}\n" in text
    own = text.partition("<!-- end of what is written")[0]
    assert len(re.findall(not_run, own)) == 4
    assert "of six published accuracies, two are undecided and four are not run." in text
    text = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"{row} - |\n" in text  # no interval
    assert "| 1 Template | - | 25 | 25 min 25 s |\n" in text
    assert ".venv/bin/ladder run 2 --seeds 3 --cpus-per-run 4\n" in text
    assert "\n* tensorflow on A processor, 4 cores: 1 seed 0, 2 seed 3\n" in text
    assert "| 1 → 2 + augmentation | +10.6 | +10.0 | - | 1 seed; 1 seed |\n" in text
    assert "· rung 1 | undecided | " in text
    folder = tmp_path / readme.FIGURES
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["gains.svg", "progression.svg", "validation.svg"]
    assert "](figures/gains.svg)" in text and "](figures/validation.svg)" in text
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (folder / "another.svg").write_text("<svg/>", encoding="utf-8")
    readme.update(STUDY, results)  # to the same bytes, which is what CI asks of git
    again = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert again == written
    shutil.rmtree(results)
    readme.update(STUDY, results)
    assert not [*folder.iterdir()]
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(text.replace(readme.END, ""), encoding="utf-8")
    with pytest.raises(UserError, match="lacks the line"):
        readme.update(STUDY, results)


def test_what_macos_leaves_beside_records_is_no_record(sample, tmp_path, dataset):
    folder = shutil.copytree(sample, tmp_path / "results")
    for path in [*folder.iterdir()]:
        (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert len(records.load_all(folder)) == 2
    record = next(iter(records.load_all(folder).values()))
    job = Job(STUDY.experiment(record.key.rung), 0)
    (found,) = records.courses(folder, [job], record.key.dataset_fingerprint)
    assert found == job.experiment.hash()


@pytest.mark.parametrize("tag", ["seed", "rung", "config_hash", "profile", "backend"])
def test_a_tag_deleted_in_the_ui_costs_that_run_alone(connected, here, tmp_path, sample, tag):
    where = connected("store")
    records.restore(where, records.load_all(sample))
    first, _ = where.search(role="recorded")
    where.client.delete_tag(first.info.run_id, tag)
    assert records.restore(where, records.load_all(sample)) == 1  # put back whole
    assert len(where.search(role="recorded")) == 2
    for run in where.search(role="recorded"):
        where.client.set_tag(run.info.run_id, "role", "rung")
    lost = where.search(role="rung")[0]
    where.client.delete_tag(lost.info.run_id, tag)
    process = here("record", "--tracking-uri", where.uri, "--experiments", study_in(tmp_path))
    assert process.returncode == 1
    assert f"run {lost.info.run_id} ({lost.info.run_name}): somebody deleted its tag '{tag}'" in (
        process.out
    )
    assert process.out.count("recorded ") == 1


def test_a_run_without_its_files_keeps_no_other_from_being_recorded(
    connected, here, tmp_path, sample
):
    where = connected("store")
    records.restore(where, records.load_all(sample))
    for run in where.search(role="recorded"):
        where.client.set_tag(run.info.run_id, "role", "rung")
    shutil.rmtree(tmp_path / "store" / "mlartifacts" / where.search()[0].info.run_id)
    process = here("record", "--tracking-uri", where.uri, "--experiments", study_in(tmp_path))
    assert process.returncode == 1
    assert process.out.count("not recorded: ") == process.out.count("\nrecorded ") == 1


def study_in(folder):
    """The shipped study, its records elsewhere."""
    shutil.copytree(SHIPPED, folder / "study")
    return folder / "study"


def test_two_that_restore_at_once_leave_each_record_once(connected, sample, monkeypatch):
    """One removed what the other had under way, as of a killed process."""
    where, found = connected("store"), records.load_all(sample)
    with monkeypatch.context() as patch:
        patch.setattr(exchange, "_place", lambda store: "elsewhere")
        under_way = exchange._put_back(where, next(iter(found.values())))
    assert records.restore(where, found) == 2
    assert where.client.get_run(under_way).info.lifecycle_stage == "active"
    where.client.set_tag(under_way, "role", "recorded")  # the other has come to its end
    records.restore(where, found)
    kept = where.search(role="recorded")
    assert len(kept) == 2
    assert len({Key.read(run.data.tags).file for run in kept}) == 2


def test_a_diverged_run_is_a_result_and_the_same_everywhere(connected, empty, tmp_path):
    """In its own store it lacked its predictions; restored, it let another row hold."""
    made = Store.copy(empty, tmp_path)
    history = curve(3, 0.1, 0.1)
    history.loc[2:, ["loss", "val_loss"]] = math.nan
    run_id = made.add(LADDER[1], right(N, 100), history=history)
    path = made.artifact(run_id, "test_predictions.csv")
    frame = pd.read_csv(path)
    frame["truth_probability"] = math.nan  # as runs left it
    frame.to_csv(path, index=False)
    for seed in range(6):
        made.add(LADDER[0], right(N, 720 + seed, seed), seed=seed)
    own = connect_to(made.uri)
    found = {}
    for run in records.recordable(own):
        record = records.to_record(own, run)
        found[records.save(record, tmp_path / "results")] = record
    other = connected("other")
    records.restore(other, found)
    contents = [analysis.load(own.uri), analysis.load(other.uri, recorded=True)]
    contents.append(analysis.of_records(STUDY, found.values()))
    for content in contents:
        assert [s.verdict for s in content.systems] == [s.verdict for s in contents[0].systems]
        assert [s.interval for s in content.systems[:1]] == [contents[0].systems[0].interval]
        (note,) = [note for note in content.notes if "diverged" in note]
        assert note.startswith("02_augmentation, seed 0") and "its loss is not finite" in note
        assert not [run.lacks for run in content.runs if run.lacks]
