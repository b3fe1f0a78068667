"""docs/own-ladder.md to the letter: another study, from an empty folder to its README's table."""

import re
import shlex
import shutil

import pandas as pd
import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "own-ladder.md").read_text("utf-8")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    .venv/bin/ladder")]


def written(folder):
    """The study as the page says it, but of an epoch on the digits: the page's takes hours."""
    for block in re.findall(r"```(?:yaml|markdown)\n(.*?)```", PAGE, re.DOTALL):
        first, text = block.split("\n", 1)
        path = folder / re.sub(r"[#<>!\s]|--", "", first)
        path.parent.mkdir(exist_ok=True)
        text = text.replace("dataset: cifar10", "dataset: digits").replace(
            "epochs: 40", "epochs: 1"
        )
        path.write_text(text, encoding="utf-8")


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
            words[words.index("0-4")] = "0"
        said[" ".join(words[:2])] = process = command(*words)
        assert process.returncode == 0, (line, process.out, process.err)
    return folder, said


def test_every_kind_of_command_is_there():
    assert {line.split()[1] for line in COMMANDS} == {"plan", "run", "report", "record", "restore"}


def test_it_is_planned_run_and_judged(ended):
    folder, said = ended
    assert "2 + dropout" in said["plan all"].out
    assert "model.dropout: 0 -> 0.5" in said["plan all"].out
    assert said["run all"].out.count("test accuracy") >= 2
    summary = said["report --summary"].out
    assert "84.4 %" in summary and "85.7 %" in summary  # published
    assert "dropout-gain" in summary
    assert "Interim, with 1 of 5 planned seeds a row" in summary
    assert "CIFAR-10" not in summary
    page = (folder / "reports" / "dropout" / "report.html").read_text("utf-8")
    assert "2 rungs on digits, published and run again" in page
    assert "dropout in the fully connected layers earns 1.3 points" in page
    assert "--experiments dropout" in page  # commands that make it again
    claims = pd.read_csv(folder / "reports" / "dropout" / "tables" / "claims.csv")
    assert list(claims["claim"]) == ["dropout-gain"]
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"}


def test_its_runs_are_an_experiment_of_their_own(ended):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{ended[0] / 'mlflow.db'}")
    names = {experiment.name for experiment in client.search_experiments()}
    assert "dropout" in names and "resnet-ladder" not in names
    assert [model.name for model in client.search_registered_models()] == ["dropout"]
    of = client.get_experiment_by_name("dropout")
    assert "Srivastava" in of.tags["mlflow.note.content"]
    runs = client.search_runs([of.experiment_id], "tags.role = 'rung'")
    assert sorted((run.data.tags["rung"], run.data.tags["seed"]) for run in runs) == [
        ("01_max_pooling", "0"),
        ("02_dropout", "0"),
    ]


def test_its_records_make_its_readme_and_come_back(ended, empty, tmp_path):
    import conftest

    folder, said = ended
    records = sorted(path.name for path in (folder / "dropout" / "results").iterdir())
    assert len(records) == 2 and records[0].startswith("01_max_pooling-seed0-digits")
    readme = (folder / "dropout" / "README.md").read_text("utf-8")
    assert "**Test accuracy on digits**" in readme
    assert re.search(r"\| 2 \+ dropout \| [0-9.]+ % \| \w+", readme)
    results = (folder / "dropout" / "docs" / "results.md").read_text("utf-8")
    assert ".venv/bin/ladder run 2 --seeds 0" in results and "--experiments" in results
    assert not (folder / "dropout" / "docs" / "benchmarks.md").exists()
    assert "2 of 2 recorded runs restored" in said["restore --experiments"].out

    clone = tmp_path / "clone"  # without the store
    shutil.copytree(folder / "dropout", clone / "dropout")
    command = conftest.on_a_store(empty, clone)
    assert "2 of 2" in command("restore", "--experiments", "dropout").out
    shown = command("report", "--summary", "--recorded", "--experiments", "dropout")
    assert "dropout-gain" in shown.out

    path = clone / "dropout" / "README.md"
    path.write_text(path.read_text("utf-8").replace("85.7 %", "99.9 %"), encoding="utf-8")
    stale = command("report", "--check", "dropout/results", "--experiments", "dropout")
    assert stale.returncode == 2
    assert "README.md does not follow from" in stale.err and "--readme" in stale.err


def test_a_folder_that_is_no_study_is_one_line(ended, empty, tmp_path):
    import conftest

    command = conftest.on_a_store(empty, tmp_path)
    (tmp_path / "nothing").mkdir()
    refused = command("run", "all", "--experiments", "nothing")
    assert refused.returncode == 2
    assert refused.err.count("\n") == 1 and "study.yaml" in refused.err
