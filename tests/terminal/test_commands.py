"""The commands of ``ladder``, which is ``runner.py`` installed, where nothing need be trained."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from ladders import TINY, in_a_fresh_shell, printed

from resnet.study import SHIPPED, Study

LADDER = Path(sys.executable).parent / "ladder"
COMMANDS = ["run", "ablate", "plan", "keys", "init", "record", "restore", "report", "ui"]


def one_line(process, *told):
    """Ended with code 2 and one line."""
    assert process.returncode == 2, process.err
    assert process.err.startswith("error: ")
    assert process.err.count("\n") == 1
    for text in told:
        assert text in process.err


def test_the_installed_program_lists_its_commands_and_prints_itself(command):
    process = command("--help", script=LADDER)
    assert process.returncode == 0, process.err
    assert re.findall(r"^│ ([a-z]+)  ", process.out, re.MULTILINE) == COMMANDS
    assert re.search(r"Examples, after +.*bin/ladder ", process.out)
    process = command(script=LADDER)
    one_line(process, "--ladder is missing")
    start = printed(process.err, "try")
    assert start.endswith("bin/ladder run all")
    process = in_a_fresh_shell(start.replace(" run ", " plan "), command.folder)
    assert process.returncode == 0, process.stderr
    assert "nothing was trained" in process.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_what_it_does_with_examples(here, name):
    process = here(name, "-h")
    assert process.returncode == 0, process.err
    told = " ".join(process.out.split())
    assert re.search(rf"Usage: .* {name} \[OPTIONS\]", told)
    assert re.search(rf"Examples, after .*python .*runner\.py {name} ", told)
    assert "--experiments" in told
    assert ("--tracking-uri" in told) == (name not in ("keys", "init"))
    assert ("Keys of --set" in told) == (name in ("run", "ablate", "plan"))
    assert "training.batch_size" not in told  # the list is not part of it


def test_keys_are_listed_with_type_default_and_meaning(here):
    told = here("keys").out
    for key in Study.open().experiment("05_deeper_dropout").flat():
        assert f"\n{key}" in f"\n{told}"
    batch = here("keys", "training.batch_size").out.splitlines()
    assert batch == [
        "training.batch_size: a whole number, at least 1 and at most 100000",
        "    Images of a training step.",
    ]
    sgd = here("keys", "training.optimizer").out
    assert "training.optimizer.momentum (sgd): a number = 0.0\n    Float hyperparameter >= 0" in sgd
    assert "training.optimizer.weight_decay (adamw): a number" in sgd
    one_line(here("keys", "trainning"), "keys 'trainning': no key begins like this")


@pytest.mark.parametrize(
    ("options", "command_"),
    [
        (["--ladder=1-2,vgg", "--dry-run"], ["plan", "1-2,vgg"]),
        (["--ablate=4", "--dry-run"], ["plan", "4", "--ablate"]),
        (["--ablate=assumed", "--dry-run"], ["plan", "assumed", "--ablate"]),
        (["ablate", "4", "--dry-run"], ["plan", "4", "--ablate"]),
        (["run", "1-2", "--dry-run"], ["plan", "1-2"]),
    ],
)
def test_a_plan_is_a_dry_run(here, options, command_):
    further = [TINY, "--seeds=0-1"] if "assumed" not in command_ else ["--profile=quick"]
    dry, plan = here(*options, *further), here(*command_, *further)
    assert dry.returncode == plan.returncode == 0, dry.err + plan.err
    assert "nothing was trained" in dry.out
    assert dry.out.rpartition("here:")[0] == plan.out.rpartition("here:")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_stands_alone(here, name):
    words = [name, "1"] if name in ("run", "ablate", "plan") else [name]
    for option in ("--ladder", "--ablate"):
        one_line(here(f"{option}=1", *words), f"{name}: stands alone, without {option}")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "options",
    [
        ["--tracking-uri", "sqlite:////tmp/x.db"],
        ["--seeds", "0-4", "--experiments", "/nonexistent"],
        ["--dry-run"],
        ["--fresh"],
    ],
)
def test_options_before_a_command_are_not_dropped(here, command, name, options):
    """``--tracking-uri X restore`` wrote to the default store."""
    words = [name, "1"] if name in ("run", "ablate", "plan") else [name]
    before = [*command.folder.rglob("*")]
    one_line(here(*options, *words), f"{options[0]}: options come after a command, as in")
    assert [*command.folder.rglob("*")] == before


@pytest.mark.parametrize(
    "words",
    [["--ladder=1"], ["run", "1"], ["plan", "1"], ["record"], ["restore"], ["report"], ["ui"]],
)
def test_a_folder_that_is_no_study_is_a_line(command, here, words):
    folder = command.folder / "mine"
    folder.mkdir()
    (folder / "01_a.yaml").write_text("title: A\n")
    process = here(*words, f"--experiments={folder}")
    one_line(process, f"--experiments {folder}: holds no study.yaml", "docs/own-ladder.md")
    (folder / "study.yaml").write_text("name: x y\nabout: x\ndataset: x\n")
    one_line(here(*words, f"--experiments={folder}"), f"{folder}/study.yaml: name: 'x y' is not")


def test_a_study_elsewhere_is_named_in_every_command_that_is_printed(command, here):
    """Or the line that was to help would be about another study."""
    folder = shutil.copytree(SHIPPED, command.folder / "its experiments")
    shutil.rmtree(folder / "profiles")
    process = here("restore", f"--experiments={folder}")
    one_line(process, f"there is no record in {command.folder / 'results'}")
    start = printed(process.err, "start with").replace(" run ", " plan ", 1)
    assert "--profile" not in start  # it has none
    process = in_a_fresh_shell(start, command.folder)
    assert process.returncode == 0, process.stderr
    (folder / "02_augmentation.yaml").unlink()
    process = in_a_fresh_shell(start, command.folder)
    assert process.returncode == 2, process.stdout
    assert "extends: there is no" in process.stderr


def test_what_does_not_follow_from_the_records_is_told_with_the_way_out(command, here):
    folder, results = command.folder, command.folder / "results"
    shutil.copy(ROOT / "README.md", folder)
    one_line(here("report", "--check", results), f"{results}: there is no such folder of records")
    results.mkdir()
    process = here("report", "--check", "results/")
    one_line(process, "README.md does not follow from results")
    assert (folder / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()
    made = in_a_fresh_shell(printed(process.err, "make it with"), folder)
    assert made.returncode == 0, made.stderr
    assert "README.md and docs/ were written from results" in made.stdout
    process = here("report", "--check", "results/")
    assert process.returncode == 0, process.err
    assert "README.md and docs/ follow from results" in process.out
    own = (folder / "README.md").read_text("utf-8").partition("<!-- end of what is written")[0]
    assert len(re.findall(r"\| not run \| [\d.]+ % \| - \| not run \|", own)) == 6
    (folder / "docs" / "results.md").unlink()
    one_line(here("report", "--check", "results/"), "docs/results.md does not follow from results")
    (folder / "README.md").write_text("# Mine\n")
    one_line(here("report", "--check", "results/"), "README.md: lacks the line")


def test_documents_are_checked_or_written(here):
    process = here("report", "--check", "results", "--readme", "results")
    assert process.returncode == 2
    assert "--check and --readme: give one of them" in process.err
