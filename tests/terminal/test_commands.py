"""Tests the commands of ``ladder`` and their errors. No run is trained."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT, refused
from ladders import TINY, printed

import runner
from report import analysis
from resnet.study import SHIPPED, Study

LADDER = Path(sys.executable).parent / "ladder"
COMMANDS = ["run", "ablate", "plan", "keys", "init", "record", "restore", "report", "ui"]


def test_the_installed_program_lists_its_commands_and_its_own_path(command):
    process = command("--help", script=LADDER)
    assert process.returncode == 0, process.err
    assert re.findall(r"^│ ([a-z]+)  ", process.out, re.MULTILINE) == COMMANDS
    assert re.search(r"Examples to type after +.*bin/ladder", process.out)
    assert "--ladder all " in process.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(here, name):
    process = here(name, "-h")
    assert process.returncode == 0, process.err
    told = " ".join(process.out.split())
    assert re.search(rf"Usage: .* {name} \[OPTIONS\]", told)
    assert re.search(rf"Examples to type after .*python .*runner\.py {name} ", told)
    assert "--experiments" in told
    assert ("--tracking-uri" in told) == (name not in ("keys", "init"))
    trains = name in ("run", "ablate", "plan")
    assert ("Keys of --set" in told) == ("05_deeper_dropout" in told) == trains
    assert ("[default: full]" in told) == trains


def test_keys_are_listed_with_type_default_and_meaning(here):
    told = here("keys").out
    for key in Study.open().experiment("05_deeper_dropout").flat():
        assert f"\n{key}" in f"\n{told}"
    batch = here("keys", "training.batch_size").out.splitlines()
    assert batch == [
        "training.batch_size: a whole number, at least 1 and at most 100000",
        "    Images per training step.",
    ]
    sgd = here("keys", "training.optimizer").out
    assert "training.optimizer.momentum (sgd): a number = 0.0\n    Float hyperparameter >= 0" in sgd
    assert "training.optimizer.weight_decay (adamw): a number" in sgd
    refused(here("keys", "trainning"), "keys 'trainning': no key begins with this")
    claims = here("keys", "claims").out
    assert "error_ratio: ratio (needs the key 'against')\n    Test errors divided by" in claims
    assert all(f"\n{quantity}: " in f"\n{claims}" for quantity in analysis.QUANTITIES)


@pytest.mark.parametrize(
    ("words", "rewritten"),
    [
        ("--ladder all", "run all"),
        ("--ladder=1-2,vgg --dry-run", "run 1-2,vgg --dry-run"),
        ("--seeds 0-4 --ladder all --jobs 2", "run --seeds 0-4 all --jobs 2"),
        ("--ablate=assumed --fresh", "ablate assumed --fresh"),
        ("plan 4 --ablate", "plan 4 --ablate"),
        ("--help", "--help"),
        ("restore --tracking-uri x", "restore --tracking-uri x"),
    ],
)
def test_the_short_form_is_rewritten_as_a_command(words, rewritten):
    assert runner._as_command(words.split()) == rewritten.split()


@pytest.mark.parametrize(
    ("options", "command_"),
    [
        (["--ladder=1-2,vgg", "--dry-run", TINY], ["plan", "1-2,vgg", TINY]),
        (["ablate", "4", "--dry-run"], ["plan", "4", "--ablate"]),
    ],
)
def test_a_plan_is_a_dry_run(here, options, command_):
    further = ["--profile=quick", "--seeds=0-1"]
    dry, plan = here(*options, *further), here(*command_, *further)
    assert dry.returncode == plan.returncode == 0, dry.err + plan.err
    assert "seeds: 2" in dry.out
    assert "nothing was trained" in dry.out
    assert dry.out.rpartition("machine:")[0] == plan.out.rpartition("machine:")[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ladder=9"], "there is no rung 9"),
        (["ablate", "1"], "no rung precedes 01_template"),
        (["--ladder=1", "--set=training.epoch=3"], "did you mean 'epochs'"),
        (["--ladder=1", "--set=alternatives={}"], "a key that starts with model, data or training"),
        (["--ladder=1", "--data=/nonexistent"], "/nonexistent"),
        (["--ladder=1", "--profile=slow"], "quick"),
        (["--ladder=1", "--seeds=4-1"], "--seeds"),
        (["plan", "1", "--seed=9007199254740992"], "9007199254740991"),
        (["--ladder=2", "--data=digits", "--set=training.batch_size=5000"], "too large"),
        (["--ladder=1", "--data=digits", "--checkpoints=/dev/null/x"], "cannot be written"),
        (["--ladder=1", "--data=digits", "--ray=auto"], "--tracking-uri"),
        (["--ladder=1", "--seeds=0-1", "--jobs=2", "--lanes=2"], "--lanes: cannot be combined"),
        (["--ladder=1", "--gpus-per-run=1.5"], "a whole number of GPUs"),
        (["--ladder=1", "--data=digits", "--lanes=2"], "TensorFlow trains one run at a time"),
        (["restore", "--tracking-uri=sqlite:////dev/null/x.db"], "there is no folder"),
        (["--ladder=1", "--data=digits", "--tracking-uri=ftp://x"], "sqlite:///"),
        (["--ladder=1", "--tracking-uri=http://me:s3cret@127.0.0.1:1"], "//me:***@127"),
        (["--ladder=1", "--tracking-uri=mysql+x://me:s3cret@127.0.0.1:1/x"], "//me:***@127"),
        (["--ladder=1", "--tracking-uri=mysql://me:pa[ss@host/x"], "//me:***@host"),
        (["--ladder=1", "--data=digits", "--checkpoints=ftp://me:s3cret@127.0.0.1:1/x"], "***@127"),
    ],
)
def test_a_user_s_mistake_prints_one_line_and_exits_with_code_2(here, arguments, words):
    process = here(*arguments)
    refused(process, words)
    assert "s3cret" not in process.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--ladder all"),  # prints the help
        (["--record"], "No such option"),  # record is a command, not an option
        (["--ladder"], "Missing argument"),
        (["--ladder=1", "--dry-run", "1"], "unexpected extra argument"),
        (["--ladder=1", "--ablate=2"], "does not take a value"),
        (
            ["--tracking-uri", "sqlite:////tmp/x.db", "restore"],
            "No such option",
        ),  # the command must come before its options
        (["train", "1"], "No such command"),
    ],
)
def test_unknown_commands_and_options_are_refused(command, here, arguments, words):
    before = [*command.folder.rglob("*")]
    process = here(*arguments)
    assert process.returncode == 2
    assert words in process.out + process.err
    assert "Traceback" not in process.err
    assert [*command.folder.rglob("*")] == before


@pytest.mark.parametrize("words", [["--ladder=1"], ["record"], ["report"]])
def test_a_folder_that_is_not_a_study_is_refused(command, here, words):
    folder = command.folder / "mine"
    folder.mkdir()
    (folder / "01_a.yaml").write_text("title: A\n")
    process = here(*words, f"--experiments={folder}")
    refused(process, f"--experiments {folder}: holds no study.yaml", "docs/own-ladder.md")
    (folder / "study.yaml").write_text("name: x y\nabout: x\ndataset: x\n")
    refused(here(*words, f"--experiments={folder}"), f"{folder}: holds no claims.yaml")
    (folder / "claims.yaml").touch()
    refused(here(*words, f"--experiments={folder}"), f"{folder}/study.yaml: name: 'x y' is not")


def test_printed_commands_name_the_folder_of_another_study(command, here):
    """Without the folder's name, a printed command would use the shipped study."""
    folder = shutil.copytree(SHIPPED, command.folder / "its experiments")
    shutil.rmtree(folder / "profiles")
    process = here("restore", f"--experiments={folder}")
    refused(process, f"there is no record in {command.folder / 'results'}")
    start = shlex.split(printed(process.err, "Start with:"))
    assert "--profile" not in start  # this study has no profiles
    process = here("plan", *start[start.index("run") + 1 :])
    assert process.returncode == 0, process.err
    (folder / "02_augmentation.yaml").unlink()
    refused(here("plan", "all", f"--experiments={folder}"), "extends: there is no")


def test_a_malformed_rung_stops_only_commands_that_use_it(command, here):
    folder = shutil.copytree(SHIPPED, command.folder / "experiments")
    (folder / "06_broken.yaml").write_text("extends: 05_deeper_dropout\nx: 1\n")
    process = here("plan", "1,2", f"--experiments={folder}")
    assert process.returncode == 0, process.err
    refused(here("plan", "6", f"--experiments={folder}"), "06_broken")


def test_documents_are_written_beside_records(command, here):
    folder, results = command.folder, command.folder / "results"
    shutil.copy(ROOT / "README.md", folder)
    refused(here("report", "--readme", results), f"{results}: holds no records")
    results.mkdir()
    shutil.copy(next((ROOT / "results").glob("01_*-seed0-*.json")), results)
    process = here("report", "--readme", "results/")
    assert process.returncode == 0, process.err
    assert "README.md and docs/ were written from results" in process.out
    own = (folder / "README.md").read_text("utf-8").partition("<!-- end of what is written")[0]
    assert len(re.findall(r"\| not run \| [\d.]+ % \| - \| not run \|", own)) == 5


def test_a_plan_does_not_load_a_dataset_known_by_name(here, monkeypatch):
    monkeypatch.setattr("runner.load_images", lambda data: pytest.fail(f"loads {data}"))
    process = here("plan", "1", "--data", "cifar10")
    assert process.returncode == 0, process.err
    assert "Plan for 50,000 training images of 32x32" in " ".join(process.out.split())
    assert "multiply-adds" in process.out  # the plan takes their number from a record


def test_the_dry_run_imports_neither_keras_nor_a_backend(command, tmp_path):
    script = tmp_path / "dry.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import runner\n"
        "try: runner.entry()\n"
        "finally: print('engines:', {'keras', 'tensorflow', 'jax', 'mlflow'} & set(sys.modules))\n"
    )
    process = command(ROOT, "--ladder=1", "--dry-run", script=script)
    assert process.returncode == 0, process.err
    assert "engines: {'mlflow'}" in process.out  # the plan reads stored runs with MLflow


def test_timing_shows_sizes_and_times_and_creates_no_database(command, here):
    database = Path(command.uri.removeprefix("sqlite:///"))
    database.unlink()
    process = here("plan", "1", TINY, "--timing")
    assert process.returncode == 0, process.err
    assert "10,378" in process.out
    assert re.search(r"about (\d+ h )?\d+ min( \d+ s)? on this machine", process.out)
    assert here("record").returncode == 2
    assert not database.exists()
