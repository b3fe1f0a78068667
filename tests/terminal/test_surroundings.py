"""What surrounds a run: Keras's settings, the terminal, pipes, disks, fonts, spreadsheets."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from report_store import LADDER, right

import runner
from report import analysis
from report.presentation import output
from resnet import UserError
from resnet.host import BACKENDS, choose_backend
from resnet.records import artifacts, figures
from resnet.terminal.console import _Console

TINY = ("--ladder=1", "--set=model.identity_blocks=[0,0,0]", "--set=training.epochs=1")


def run(*arguments, cwd=ROOT, stdout=subprocess.PIPE, **environment):
    """The real command line, in an environment that is somebody else's."""
    return subprocess.run(
        [sys.executable, str(ROOT / "runner.py"), *map(str, arguments)],
        env={k: v for k, v in (os.environ | environment).items() if v is not None},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        timeout=600,
    )


def refused(process, *told):
    """Ended with code 2 and one line."""
    assert process.returncode == 2, process
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    for text in told:
        assert text in process.stderr


def curve(uri):
    client = MlflowClient(uri)
    ids = [found.experiment_id for found in client.search_experiments()]
    (ran,) = client.search_runs(ids, "tags.role = 'rung'")
    assert ran.info.status == "FINISHED"
    return {k: v for k, v in ran.data.metrics.items() if "second" not in k}


# --- Keras's settings --------------------------------------------------------------------------


def test_a_user_s_keras_json_changes_nothing(empty, image_folder, tmp_path):
    """Half precision came to 25 % where 100 % was right, under the same hash."""
    told = {}
    for name, text in {
        "none": None,
        "half": {"floatx": "float16", "epsilon": 0.01, "image_data_format": "channels_first"},
    }.items():
        home = tmp_path / name
        home.mkdir()
        if text:
            (home / "keras.json").write_text(json.dumps({"backend": "tensorflow"} | text))
        uri = f"sqlite:///{home / 'mlflow.db'}"
        (home / "mlflow.db").write_bytes(empty.read_bytes())
        own = {"MLFLOW_TRACKING_URI": uri, "KERAS_HOME": str(home), "KERAS_BACKEND": None}
        process = run(*TINY, f"--data={image_folder}", cwd=home, **own)
        assert process.returncode == 0, process
        told[name] = curve(uri)
    assert told["half"] == told["none"]


@pytest.mark.parametrize("backend", ["theano", "torch", "numpy", "TensorFlow"])
def test_a_backend_that_cannot_train_is_a_line(backend, tmp_path):
    refused(
        run("run", "1", f"--tracking-uri=sqlite:///{tmp_path}/x.db", KERAS_BACKEND=backend),
        f"KERAS_BACKEND is {backend!r}",
        "tensorflow or jax",
        "keras.json",
    )


def test_settings_that_keras_does_not_take_are_a_line(tmp_path):
    (tmp_path / "keras.json").write_text('{"floatx": "float9"}')
    refused(
        run("run", "1", f"--tracking-uri=sqlite:///{tmp_path}/x.db", KERAS_HOME=str(tmp_path)),
        f"{tmp_path}/keras.json",
        "float9",
    )
    refused(run("--ladder=1", "--dry-run", TF_NUM_INTRAOP_THREADS="abc"), "'abc'", "unset it")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["jax", "torch"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["backend", "floatx"]), inner),
    max_leaves=6,
)


@given(JSON)
@example({"backend": "jax"})
@example([1])
@settings(deadline=None)
def test_whatever_keras_json_says_the_backend_is_known_or_refused(tmp_path_factory, value):
    home = tmp_path_factory.getbasetemp() / "keras"
    home.mkdir(exist_ok=True)
    (home / "keras.json").write_text(json.dumps(value))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(home))
        patch.setenv("KERAS_BACKEND", "")
        patch.setenv("KERAS_NNX_ENABLED", "true")
        try:
            assert choose_backend() == str(home / "keras.json")
            told = value.get("backend") if isinstance(value, dict) else None
            assert os.environ["KERAS_BACKEND"] == ("jax" if told == "jax" else "")
            assert os.environ["KERAS_NNX_ENABLED"] == "false"
        except UserError as error:
            assert str(home / "keras.json") in str(error)
            assert value["backend"] not in BACKENDS


# --- the terminal ------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["0", "00", "", "40", "7", "x"])
def test_nothing_is_cut_whatever_the_terminal_says_it_is(columns):
    process = run("--ladder=3", "--profile=quick", "--dry-run", COLUMNS=columns)
    assert process.returncode == 0
    assert "3 + deeper + early stopping" in process.stdout
    refused(run("--ladder=9", COLUMNS=columns), "there is no rung 9")


def test_what_a_terminal_has_no_characters_for_is_replaced(store):
    store.add(LADDER[0], right(1000, 700), profile="quick")
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    process = run("report", "--summary", "--tracking-uri", store.uri, **ascii_only)
    assert (process.returncode, process.stderr) == (0, "")
    assert "1 Template" in process.stdout


def test_a_table_keeps_its_rungs_in_a_narrow_terminal(store):
    store.add(LADDER[0], right(1000, 700))
    process = run("report", "--summary", "--tracking-uri", store.uri, COLUMNS="40")
    assert (process.returncode, process.stderr) == (0, "")
    assert "1 Template  " in process.stdout
    assert "70.0 %" in process.stdout


def test_a_narrow_terminal_is_not_drawn_upon():
    console = _Console(force_terminal=True, width=60)
    assert (console.width, console.is_terminal) == (80, False)
    console.size = 100, 20
    assert (console.width, console.is_terminal) == (100, True)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], "ladder ablate"),
        (["--ladder=1"], "data profile seeds set ray checkpoints experiments tracking-uri"),
        (["plan", "1"], "data profile seeds set ray checkpoints experiments tracking-uri"),
        (["record"], "seeds experiments tracking-uri"),
        (["report"], "out dataset profile compare check readme experiments tracking-uri"),
    ],
)
def test_an_empty_value_is_none(words, options, capsys, monkeypatch):
    """``--data ''`` planned CIFAR-10."""
    for option in options.split():
        for empty in ("", "  "):
            monkeypatch.setattr(sys, "argv", ["x", *words, f"--{option}", empty])
            with pytest.raises(SystemExit) as ended:
                runner.entry()
            assert ended.value.code == 2
            assert f"--{option}: is empty" in capsys.readouterr().err


def test_without_a_home_there_is_a_line(monkeypatch, capsys):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(SystemExit) as ended:
        runner.entry()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: there is no home folder: set HOME to one of yours\n"


def test_a_full_disk_behind_the_output_is_a_line():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    for arguments in (("--help",), ("--ladder=1", "--dry-run")):
        with Path("/dev/full").open("w") as full:
            refused(run(*arguments, stdout=full), "No space left on device", "make room")


def test_a_closed_pipe_ends_a_training_as_ctrl_c_does(command, image_folder):
    arguments = (*TINY[:2], f"--data={image_folder}", "--set=training.epochs=3")
    process = command.start(*arguments)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=300) == 130
    assert process.stderr.read() == ""
    process.stderr.close()
    client = MlflowClient(command.uri)
    ids = [found.experiment_id for found in client.search_experiments()]
    assert "RUNNING" not in {found.info.status for found in client.search_runs(ids)}
    again = command(*arguments)
    assert again.returncode == 0, again
    assert curve(command.uri)["epochs_run"] == 3


@pytest.mark.parametrize("how", [signal.default_int_handler, signal.SIG_IGN])
def test_a_closed_pipe_ends_what_only_prints(how):
    """Also in the background, where a shell has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, how)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "runner.py"), "--ladder=all", "--dry-run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    signal.signal(signal.SIGINT, before)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 130


def test_colons_are_no_emoji(here, image_folder, tmp_path):
    """Of pets:100:50 the line said another folder, and so did the command to go on with."""
    folder = shutil.copytree(image_folder, tmp_path / "set:100:x:x:")
    process = here("plan", "1", "--data", folder, *TINY[1:])
    assert process.returncode == 0, process.err
    assert "set:100:x:x:: 200 training" in process.out
    assert shlex.quote(str(folder)) in process.out.partition("how long it takes here:")[2]
    refused_ = here("plan", "1", "--data", tmp_path / ":x:", "--set", "training.epochs=7:x:7")
    assert "'7:x:7'" in refused_.err
    assert ":x:'" in here("plan", "1", "--data", tmp_path / ":x:").err


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_end_nothing(tmp_path, closed):
    """As cron and others leave them."""
    all_three = closed.count("-") == 3
    words = [sys.executable, str(ROOT / "runner.py"), *TINY, "--data=digits"]
    words += [f"--tracking-uri=sqlite:///{tmp_path}/mlflow.db", *["--dry-run"] * (not all_three)]
    process = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *words], cwd=tmp_path)
    assert process.returncode == 0
    if all_three:
        assert curve(f"sqlite:///{tmp_path}/mlflow.db")["epochs_run"] == 1


@pytest.mark.parametrize("seconds", [0.2, 0.3, 0.5, 0.8, 1.2, 2.0])
def test_ctrl_c_while_it_starts_is_no_traceback(tmp_path, seconds):
    process = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "runner.py"),
            "run",
            "1",
            f"--tracking-uri=sqlite:///{tmp_path}/x",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (130, -signal.SIGINT)


def test_no_folder_for_temporary_files_is_a_line():
    forbidden = {"TMPDIR": "/proc", "TEMP": "/proc", "TMP": "/proc"}
    code = "import sys, tempfile, runner; tempfile._candidate_tempdir_list = lambda: ['/proc']\n"
    code += "sys.argv = ['x', 'plan', '1']; runner.entry()"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | forbidden,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    refused(process, "No usable temporary directory", "set TMPDIR")


def test_a_clock_before_1980_is_told_before_the_training(monkeypatch, capsys):
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((1970, 1, 1, 0, 0, 0, 3, 1, 0)))
    with pytest.raises(SystemExit):
        runner.entry()
    assert capsys.readouterr().err == "error: the clock says 1970: set it, and try again\n"


def test_a_user_without_a_name_is_warned_of_nothing(monkeypatch, capsys):
    import getpass

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "")  # so that it is put back afterwards
    monkeypatch.delenv("LOGNAME")
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    with pytest.raises(SystemExit):
        runner.entry()
    assert getpass.getuser() == str(os.getuid())


@pytest.mark.parametrize("option", ["--seed", "--seeds"])
@pytest.mark.parametrize("seed", ["9007199254740992", "99999999999999999999"])
def test_seeds_that_two_numbers_share_are_refused(here, option, seed):
    process = here("plan", "1", option, seed)
    assert process.returncode == 2
    assert "9007199254740991" in process.err


def test_mlflow_s_settings_of_other_work_count_for_nothing(command, image_folder, monkeypatch):
    """Every run failed at its first epoch, or after it, as its model was registered."""
    others = {
        "MLFLOW_ACTIVE_MODEL_ID": "m-0123456789abcdef0123456789abcdef",
        "MLFLOW_REGISTRY_URI": "databricks-uc",
        "MLFLOW_RUN_ID": "0" * 32,
        "MLFLOW_EXPERIMENT_NAME": "other",
    }
    uri = {"MLFLOW_TRACKING_URI": command.uri}
    process = run(*TINY, f"--data={image_folder}", cwd=command.folder, **uri, **others)
    assert process.returncode == 0, process.stderr
    assert curve(command.uri)["epochs_run"] == 1
    code = "import resnet, mlflow; print(mlflow.get_registry_uri() == mlflow.get_tracking_uri())"
    words, environment = [sys.executable, "-c", code], os.environ | uri | others
    assert subprocess.check_output(words, env=environment, cwd=ROOT) == b"True\n"


# --- fonts, spreadsheets, litter ---------------------------------------------------------------


def test_characters_that_no_font_has_are_told_and_warn_nobody(tmp_path, monkeypatch):
    table = pd.DataFrame([[3, 1], [0, 4]], index=["猫", "dog"], columns=["猫", "dog"])
    known = figures.font_manager.fontManager
    monkeypatch.setattr(known, "ttflist", [f for f in known.ttflist if f.name == "DejaVu Sans"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(figures.confusion(table), tmp_path / "x.png")
    assert figures.fonts("dog 猫犬") == (["DejaVu Sans"], "犬猫")
    assert "猫" in figures.boxes(table.index)
    assert "fonts-noto-cjk" in figures.boxes(table.index)
    assert figures.boxes(["dog", "żółć"]) == ""


def test_a_font_that_has_the_characters_is_used(tmp_path):
    families, lacking = figures.fonts("dog 猫")
    if lacking:
        pytest.skip("no font here has them")
    table = pd.DataFrame([[3]], index=["猫"], columns=["猫"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(figure := figures.confusion(table), tmp_path / "x.png")
    assert figure.axes[0].get_yticklabels()[0].get_fontfamily() == families
    assert len(families) > 1


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
    path = store.artifact(run_id, "confusion_matrix.csv")  # as a run leaves it
    made = pd.read_csv(path, index_col=0).rename(index=artifacts.guarded, columns=artifacts.guarded)
    made.to_csv(path)
    assert analysis.load(store.uri).runs[0].classes == names
    folder = output.write(analysis.load(store.uri), store.folder / "out")
    for path in (folder / "tables").glob("*.csv"):
        for cell in (cell for line in path.read_text().splitlines() for cell in line.split(",")):
            assert not cell.startswith(("=", "@")), path
    assert "'=1+1" in (folder / "tables" / "confusion_matrix.csv").read_text()
    assert "'=1+1" not in (folder / output.PAGE).read_text()


def test_what_the_system_leaves_in_a_report_stops_none(store):
    store.add(LADDER[0], right(1000, 700))
    content, out = analysis.load(store.uri), store.folder / "out"
    output.write(content, out)
    (out / ".DS_Store").touch()
    (out / "figures" / "._x.svg").touch()
    output.write(content, out)
    (out / "mine.txt").touch()
    with pytest.raises(UserError, match=r"mine\.txt"):
        output.write(content, out)
    nobody = store.folder / "hidden"
    nobody.mkdir()
    (nobody / ".mine").touch()  # but no report was there
    with pytest.raises(UserError, match=r"\.mine"):
        output.write(content, nobody)
