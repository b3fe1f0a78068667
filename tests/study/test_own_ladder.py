"""Tests that the study and the commands of docs/own-ladder.md work as the page says."""

import re
import shlex
import shutil

import pandas as pd
from conftest import ROOT
from ladders import all_printed, runs_of, written
from mlflow.tracking import MlflowClient

PAGE = (ROOT / "docs" / "own-ladder.md").read_text("utf-8")
COMMANDS = [
    shlex.split(line.replace("0-2", "0"))[1:]
    for line in PAGE.splitlines()
    if line.startswith("    .venv/bin/ladder")
]


def test_the_page_s_commands_train_report_and_record_the_study(here, command, empty, image_folder):
    assert {words[0] for words in COMMANDS} == {"plan", "run", "report", "record", "restore"}
    folder = command.folder
    data = f"dataset: squares\ndata: {image_folder}"
    written(PAGE, folder, {"epochs: 60": "epochs: 1", "dataset: mnist": data})
    (copied,) = re.findall(r"^    cp (\S+) (\S+)$", PAGE, re.MULTILINE)
    shutil.copy(ROOT / copied[0], folder / copied[1])
    printed = all_printed(here, COMMANDS)
    assert "2 + convolution" in printed["plan all"].out
    assert "model.filters: [] -> [20]" in printed["plan all"].out
    assert printed["run all"].out.count("test accuracy") >= 2
    summary = printed["report --summary"].out
    assert "97.80 %" in summary and "98.78 %" in summary  # published accuracies
    assert "convolution-third" in summary
    assert "Seeds per rung: 1 (3 are planned)." in summary
    assert "CIFAR-10" not in summary
    page = (folder / "reports" / "nielsen" / "report.html").read_text("utf-8")
    asked = re.search(r"^about: (.+)$", PAGE, re.MULTILINE)[1]
    assert f'<h1>nielsen</h1>\n<p class="question">{asked}</p>' in page
    assert re.search("(Both|two) published accurac", page)
    assert "the error falls by better than a third" in page
    assert "--experiments nielsen" in page  # in the report's commands
    claims = pd.read_csv(folder / "reports" / "nielsen" / "tables" / "claims.csv")
    assert list(claims["claim"]) == ["convolution-third"]
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"}

    client = MlflowClient(command.uri)
    assert client.get_experiment_by_name("resnet-ladder") is None
    assert [model.name for model in client.search_registered_models()] == ["nielsen"]
    runs = runs_of(command.uri, study="nielsen")
    names = sorted((run.data.tags["rung"], run.data.tags["seed"]) for run in runs)
    assert names == [("01_shallow", "0"), ("02_convolution", "0")]

    records = sorted(path.name for path in (folder / "nielsen" / "results").iterdir())
    assert len(records) == 2 and records[0].startswith("01_shallow-seed0-squares")
    readme = (folder / "nielsen" / "README.md").read_text("utf-8")
    assert "**Test accuracy on squares**" in readme
    assert re.search(r"\| 2 \+ convolution \| [0-9.]+ % \| 98\.78 % \| [+-][0-9.]+ \| \w+", readme)
    results = (folder / "nielsen" / "docs" / "results.md").read_text("utf-8")
    assert ".venv/bin/ladder run 2 --seeds 0" in results and "--experiments" in results
    assert "2 of 2 recorded runs restored" in printed["restore --experiments"].out

    shutil.copyfile(empty, folder / "clone.db")
    clone = "--experiments", "nielsen", "--tracking-uri", f"sqlite:///{folder / 'clone.db'}"
    assert "2 of 2" in here("restore", *clone).out
    shown = here("report", "--summary", "--recorded", *clone)
    assert "convolution-third" in shown.out
    path = folder / "nielsen" / "README.md"
    path.write_text(readme.replace("98.78 %", "99.99 %"), encoding="utf-8")
    here("report", "--readme", "nielsen/results", "--experiments", "nielsen")
    assert path.read_text("utf-8") == readme
