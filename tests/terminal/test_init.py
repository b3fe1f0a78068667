"""``ladder init`` writes a study that can be run and that explains every key."""

import re
import shlex
import tomllib

import pytest
import yaml
from conftest import ROOT, refused
from ladders import printed

from resnet.study import TEMPLATE, Study

FILES = ["01_baseline.yaml", "02_convolution.yaml", "claims.yaml", "study.yaml"]


def words(told, command):
    """Returns the arguments of a printed command."""
    return shlex.split(printed(told, f"^{command}:").partition("runner.py")[2])


def test_the_printed_commands_plan_run_and_judge_the_study(command, here):
    made = here("init", "my study!")
    assert (made.returncode, made.err) == (0, "")
    folder = command.folder / "my study!"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    plan = here(*words(made.out, "plan"))
    assert plan.returncode == 0, plan.err
    assert re.findall(r"^  (.+ -> .+)", plan.out, re.MULTILINE) == ["model.convolutions: 1 -> 2"]
    run = words(made.out, "run")
    assert run[run.index("--seeds") + 1] == "0-4"
    run[run.index("--seeds") + 1] = "0"
    ran = here(*run)
    assert ran.returncode == 0, ran.err
    judged = here(*words(made.out, "report"))
    assert judged.returncode == 0, judged.err
    assert "The highest test accuracy is" in judged.out
    assert "convolution-gain" in judged.out


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("new/deep/mine", "mine"),
        ("my study!", "my-study"),
        ("123", "123"),
        ("...", "study"),
        ("x" * 200, "x" * 61),
    ],
)
def test_the_study_has_the_name_of_its_folder(here, command, folder, name):
    (command.folder / "123").mkdir()  # init accepts an empty folder
    process = here("init", folder)
    assert (process.returncode, process.err) == (0, "")
    assert folder in process.out
    assert Study.open(command.folder / folder).name == name


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("taken", "init taken: the folder is not empty; name another one, or empty it"),
        ("file", "init file: cannot be written: File exists; name another folder"),
        ("file/x", "init file/x: cannot be written: Not a directory; name another folder"),
        ("x" * 300, "cannot be written: File name too long; name another folder"),
    ],
)
def test_a_folder_that_cannot_be_written_prints_one_line(here, command, folder, told):
    (command.folder / "taken").mkdir()
    (command.folder / "taken" / "notes.txt").touch()
    (command.folder / "file").touch()
    before = sorted(command.folder.rglob("*"))
    refused(here("init", folder), told)
    assert sorted(command.folder.rglob("*")) == before


def test_every_value_has_a_comment():
    """The comment is on the line of the value or on the line above."""
    for name in FILES:
        above = ""
        for line in (TEMPLATE / name).read_text("utf-8").splitlines():
            if re.search(r"^[^#]*\w: *[^ #]", line):
                assert "# " in line or above.lstrip().startswith("# "), f"{name}: {line}"
            above = line


def test_an_installed_copy_has_the_files():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    (pattern,) = settings["package-data"]["resnet.study"]
    assert sorted(path.name for path in TEMPLATE.parent.glob(pattern)) == FILES
    assert yaml.safe_load((TEMPLATE / "study.yaml").read_text("utf-8"))["dataset"] == "digits"
