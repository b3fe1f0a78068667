"""docs/own-ladder.md to the letter: another study, from an empty folder to its README's table."""

import re
import shlex
import shutil

import ladders
import pandas as pd
import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "own-ladder.md").read_text("utf-8")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    .venv/bin/ladder")]


SHORT = {"dataset: mnist": "dataset: digits", "epochs: 60": "epochs: 1"}
# two poolings without padding leave nothing of 8x8 pixels
SHORT |= {"activation: sigmoid": "activation: sigmoid, padding: same"}


def written(folder):
    """The study as the page says it, but of an epoch on the digits: the page's takes hours."""
    ladders.written(PAGE, folder, SHORT)
    (copied,) = re.findall(r"^    cp (\S+) (\S+)$", PAGE, re.MULTILINE)
    shutil.copy(ROOT / copied[0], folder / copied[1])


@pytest.fixture(scope="module")
def ended(tmp_path_factory, empty):
    """Every command of the page, one after the other, with what it said."""
    import conftest

    folder = tmp_path_factory.mktemp("own")
    command = conftest.on_a_store(empty, folder)
    written(folder)
    said = {}
    for line in COMMANDS:
        words = shlex.split(line)[1:]
        if words[0] == "run":
            words[words.index("0-2")] = "0"
        said[" ".join(words[:2])] = process = command(*words)
        assert process.returncode == 0, (line, process.out, process.err)
    return folder, said


def test_every_kind_of_command_is_there():
    assert {line.split()[1] for line in COMMANDS} == {"plan", "run", "report", "record", "restore"}


def test_it_is_planned_run_and_judged(ended):
    folder, said = ended
    assert "2 + convolution" in said["plan all"].out
    assert "model.filters: [] -> [20]" in said["plan all"].out
    assert said["run all"].out.count("test accuracy") >= 2
    summary = said["report --summary"].out
    assert "97.80 %" in summary and "98.78 %" in summary  # published
    assert "convolution-third" in summary
    assert "Seeds per rung: 1, of 3 planned." in summary
    assert "CIFAR-10" not in summary
    page = (folder / "reports" / "nielsen" / "report.html").read_text("utf-8")
    asked = re.search(r"^about: (.+)$", PAGE, re.MULTILINE)[1]
    assert f'<h1>nielsen</h1>\n<p class="question">{asked}</p>' in page
    assert "of two published accuracies" in page
    assert "the error falls by better than a third" in page
    assert "--experiments nielsen" in page  # commands that make it again
    claims = pd.read_csv(folder / "reports" / "nielsen" / "tables" / "claims.csv")
    assert list(claims["claim"]) == ["convolution-third"]
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"}


def test_its_runs_are_an_experiment_of_their_own(ended):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{ended[0] / 'mlflow.db'}")
    names = {experiment.name for experiment in client.search_experiments()}
    assert "nielsen" in names and "resnet-ladder" not in names
    assert [model.name for model in client.search_registered_models()] == ["nielsen"]
    of = client.get_experiment_by_name("nielsen")
    assert "Nielsen" in of.tags["mlflow.note.content"]
    runs = client.search_runs([of.experiment_id], "tags.role = 'rung'")
    assert sorted((run.data.tags["rung"], run.data.tags["seed"]) for run in runs) == [
        ("01_shallow", "0"),
        ("02_convolution", "0"),
    ]


def test_its_records_make_its_readme_and_come_back(ended, empty, tmp_path):
    import conftest

    folder, said = ended
    records = sorted(path.name for path in (folder / "nielsen" / "results").iterdir())
    assert len(records) == 2 and records[0].startswith("01_shallow-seed0-digits")
    readme = (folder / "nielsen" / "README.md").read_text("utf-8")
    assert "**Test accuracy on digits**" in readme
    assert re.search(r"\| 2 \+ convolution \| [0-9.]+ % \| 98\.78 % \| [+-][0-9.]+ \| \w+", readme)
    results = (folder / "nielsen" / "docs" / "results.md").read_text("utf-8")
    assert ".venv/bin/ladder run 2 --seeds 0" in results and "--experiments" in results
    assert not (folder / "nielsen" / "docs" / "benchmarks.md").exists()
    assert "2 of 2 recorded runs restored" in said["restore --experiments"].out

    clone = tmp_path / "clone"  # without the store
    shutil.copytree(folder / "nielsen", clone / "nielsen")
    command = conftest.on_a_store(empty, clone)
    assert "2 of 2" in command("restore", "--experiments", "nielsen").out
    shown = command("report", "--summary", "--recorded", "--experiments", "nielsen")
    assert "convolution-third" in shown.out

    path = clone / "nielsen" / "README.md"
    path.write_text(path.read_text("utf-8").replace("98.78 %", "99.99 %"), encoding="utf-8")
    stale = command("report", "--check", "nielsen/results", "--experiments", "nielsen")
    assert stale.returncode == 2
    assert "README.md does not follow from" in stale.err and "--readme" in stale.err


def test_a_folder_that_is_no_study_is_one_line(ended, empty, tmp_path):
    import conftest

    command = conftest.on_a_store(empty, tmp_path)
    (tmp_path / "nothing").mkdir()
    refused = command("run", "all", "--experiments", "nothing")
    assert refused.returncode == 2
    assert refused.err.count("\n") == 1 and "study.yaml" in refused.err
