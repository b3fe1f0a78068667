"""Tests how runs and reports handle unusual settings, terminals, pipes, fonts and spreadsheets."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pandas as pd
import pytest
from conftest import ROOT, refused
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ladders import TINY, runs_of
from report_store import LADDER, right

from report import analysis
from report.presentation import output
from resnet import UserError
from resnet.host import BACKENDS, choose_backend
from resnet.records import artifacts, figures

# --- Keras's settings --------------------------------------------------------------------------


def test_a_user_s_keras_json_changes_nothing(tmp_path):
    """Half precision once gave 25 % accuracy instead of 100 %, with the run's hash unchanged."""
    foreign = {"floatx": "float16", "epsilon": 0.01, "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(foreign))
    code = "import resnet.network, keras; c = keras.config; "
    code += "print(c.floatx(), c.epsilon(), c.image_data_format())"
    words, environment = [sys.executable, "-c", code], os.environ | {"KERAS_HOME": str(tmp_path)}
    told = subprocess.check_output(words, env=environment, cwd=ROOT, text=True)
    assert told == "float32 1e-07 channels_last\n"


@pytest.mark.parametrize("backend", ["torch", "TensorFlow"])
def test_a_backend_that_cannot_train_is_refused(here, monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    told = f"Keras's backend is {backend!r}", "tensorflow or jax", "keras.json"
    refused(here("run", "1"), *told)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["jax", "torch"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["backend", "floatx"]), inner),
    max_leaves=6,
)


@given(JSON)
@example({"backend": "jax"})
@example([1])
@settings(deadline=None)
def test_any_keras_json_gives_a_known_backend_or_an_error(tmp_path_factory, value):
    home = tmp_path_factory.getbasetemp() / "keras"
    home.mkdir(exist_ok=True)
    (home / "keras.json").write_text(json.dumps(value))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(home))
        patch.setenv("KERAS_BACKEND", "")
        patch.setenv("KERAS_NNX_ENABLED", "true")
        try:
            choose_backend()
            told = value.get("backend") if isinstance(value, dict) else None
            assert os.environ["KERAS_BACKEND"] == ("jax" if told == "jax" else "")
            assert os.environ["KERAS_NNX_ENABLED"] == "false"
        except UserError as error:
            assert "keras.json" in str(error)
            assert value["backend"] not in BACKENDS


# --- the terminal ------------------------------------------------------------------------------


def test_a_closed_pipe_ends_a_training_as_ctrl_c_does(command, image_folder):
    arguments = ("--ladder=1", TINY, f"--data={image_folder}", "--set=training.epochs=3")
    process = command.start(*arguments)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=300) == 130
    assert process.stderr.read() == ""
    process.stderr.close()
    assert "RUNNING" not in {ran.info.status for ran in runs_of(command.uri)}
    again = command(*arguments)
    assert again.returncode == 0, again
    (ran,) = runs_of(command.uri)
    assert (ran.info.status, ran.data.metrics["epochs_run"]) == ("FINISHED", 3)


def test_colons_do_not_become_emoji(here, image_folder, tmp_path):
    """Rich would turn the ``:100:`` in a folder's name into an emoji, even in printed commands."""
    folder = shutil.copytree(image_folder, tmp_path / "set:100:x:x:")
    process = here("plan", "1", "--data", folder, TINY)
    assert process.returncode == 0, process.err
    assert "set:100:x:x:: 200 training" in process.out
    assert shlex.quote(str(folder)) in process.out.partition("on this machine:")[2]


def test_ctrl_c_during_the_start_prints_no_traceback(command):
    # background jobs of a shell ignore SIGINT, and their children inherit this setting
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = command.start("run", "1")
    signal.signal(signal.SIGINT, before)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in err
    assert process.returncode in (130, -signal.SIGINT)


def test_mlflow_variables_of_other_projects_are_ignored():
    """These variables once made runs fail at the first epoch or when a model was registered."""
    others = {
        "MLFLOW_ACTIVE_MODEL_ID": "m-0123456789abcdef0123456789abcdef",
        "MLFLOW_REGISTRY_URI": "databricks-uc",
        "MLFLOW_RUN_ID": "0" * 32,
        "MLFLOW_EXPERIMENT_NAME": "other",
    }
    code = f"import resnet, mlflow, os; print({set(others)} & os.environ.keys(), "
    code += "mlflow.get_registry_uri() == mlflow.get_tracking_uri())"
    words = [sys.executable, "-c", code]
    told = subprocess.check_output(words, env=os.environ | others, cwd=ROOT)
    assert told == b"set() True\n"


# --- fonts, spreadsheets, system files ---------------------------------------------------------


def test_characters_missing_from_the_font_cause_no_warning(tmp_path):
    table = pd.DataFrame([[3, 1], [0, 4]], index=["猫", "dog"], columns=["猫", "dog"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(figures.confusion(table), tmp_path / "x.png")


@given(
    st.text() | st.sampled_from(["=1+1", "'=1", "'", "+x", "-x", "@x", "\tx", "\rx"]) | st.floats()
)
def test_no_cell_begins_like_a_formula(value):
    cell = artifacts.guarded(value)
    if isinstance(value, str):
        assert not cell.startswith(artifacts.FORMULA)
        assert artifacts.unguarded(cell) == value
    else:
        assert cell is value


def test_a_class_called_like_a_formula_is_text_in_every_table(store):
    names = ("=1+1", "@x", *"cdefghij")
    run_id = store.add(LADDER[0], right(1000, 700), classes=names)
    path = store.artifact(run_id, "confusion_matrix.csv")
    made = pd.read_csv(path, index_col=0).rename(index=artifacts.guarded, columns=artifacts.guarded)
    made.to_csv(path)  # a run writes this file with guarded names
    assert analysis.load(store.uri).runs[0].classes == names
    folder = output.write(analysis.load(store.uri), store.folder / "out")
    for path in (folder / "tables").glob("*.csv"):
        for cell in (cell for line in path.read_text().splitlines() for cell in line.split(",")):
            assert not cell.startswith(("=", "@")), path
    assert "'=1+1" in (folder / "tables" / "confusion_matrix.csv").read_text()
    assert "'=1+1" not in (folder / output.PAGE).read_text()


def test_system_files_in_a_report_folder_are_accepted(store):
    store.add(LADDER[0], right(1000, 700))
    content, out = analysis.load(store.uri), store.folder / "out"
    output.write(content, out)
    (out / ".DS_Store").touch()
    (out / "figures" / "._x.svg").touch()
    output.write(content, out)
    (out / "mine.txt").touch()
    with pytest.raises(UserError, match=r"mine\.txt"):
        output.write(content, out)
