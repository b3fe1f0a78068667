"""Tests that plans, reports, errors and commands are correct for users' studies, even unusual ones.

Most runs are made up, because training is not tested here.
"""

import html
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from conftest import SMALL, squares
from report_store import Store, curve, right

import runner
from report import analysis
from resnet import UserError
from resnet.study import Study
from resnet.terminal import Options

RUNG = SMALL | {
    "data": {
        "pixel_scale": 255,
        "validation": {
            **{"fraction": 0.2, "subset": "last"},
            **{"augmented": False, "drop_remainder": False},
        },
        "augmentation": None,
    },
    "training": {
        **{"epochs": 2, "batch_size": 8, "learning_rate": 0.001},
        **{"early_stopping": None, "reduce_lr_on_plateau": None},
    },
    "assumed": {},
}
CLAIM = {"id": "gain", "rung": "02_b", "against": "01_a", "text": "it gains"}
CLAIM |= {"quantity": "test_gain", "bound": {"min": 0.0}}
LEAD = {"id": "lead", "rung": "02_b", "text": "it has the largest gain"}
LEAD |= {"quantity": "gain_lead", "bound": {"min": 0.0}}


def study_of(folder, files):
    """Writes each tree as a YAML file, and opens the study."""
    for name, tree in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return Study.open(folder)


def written(folder, rungs=3, epochs=2, dataset="tiny", **claims):
    """Writes a study with a baseline and up to three rungs; ``claims`` sets keys of claims.yaml."""
    training = RUNG["training"] | {"epochs": epochs}
    ladder = {
        "01_a": RUNG | {"title": "First", "training": training},
        "02_b": {"extends": "01_a", "title": "+ no dropout", "model": {"dropout": 0.0}},
        "03_c": {"extends": "02_b", "title": "+ rate", "training": {"learning_rate": 0.01}},
    }
    files = {
        "baselines/net": {"extends": "01_a", "title": "A net", "model": {"filters": [8]}},
        "claims": {
            "published": {"01_a": 0.5, "02_b": 0.55, "03_c": 0.6, "net": 0.7},
            "tolerance": 0.05,
            "seeds": 2,
            "credited": {"02_b": ["model.dropout"]},
            "claims": [CLAIM],
            "contradictions": [],
        }
        | claims,
        "study": {"name": "mine", "about": "what is asked", "dataset": dataset},
    }
    return study_of(folder, dict([*ladder.items()][:rungs]) | files)


def changed(study, name="study", **changes):
    """Changes keys of a YAML file in the study's folder, and opens the study again."""
    tree = yaml.safe_load((study.folder / f"{name}.yaml").read_text())
    return study_of(study.folder, {name: tree | changes})


def make_up_runs(study, folder):
    """Stores made-up runs with seeds 0 and 1 for each experiment, on a dataset named tiny."""
    store = Store(folder, study.name)
    (folder / "path" / "of" / "tiny").mkdir(parents=True)  # the made-up runs name this path
    for number, name in enumerate(study.files):
        experiment = study.experiment(name)
        history = curve(experiment.training.epochs, 0.6, 0.55 + 0.01 * number)
        for seed in range(2):
            correct = right(200, 100 + 10 * number + seed, seed)
            store.add(experiment, correct, seed=seed, history=history, dataset="tiny")


ONE_RUNG = {"rungs": 1, "published": {"01_a": 0.5, "net": 0.7}, "claims": [], "credited": {}}
BASELINE_PUBLISHED = {"published": {"net": 0.7}}
STUDIES = {
    "one rung": ONE_RUNG,
    "nothing published": {"published": {}},
    "lead, other images": {"claims": [CLAIM, LEAD], "dataset": "others"},
    "one rung, nothing published, one epoch": ONE_RUNG | {"published": {}, "epochs": 1},
    "one rung, only a baseline published": ONE_RUNG | BASELINE_PUBLISHED,
    "no claims, other images": {"claims": [], "published": {}, "dataset": "others"},
    "lead, one epoch": BASELINE_PUBLISHED | {"claims": [CLAIM, LEAD], "epochs": 1},
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("changes", STUDIES.values(), ids=STUDIES)
def test_unusual_studies_can_be_planned_and_reported(here, command, tmp_path, changes):
    study = written(tmp_path / "mine", **changes)
    what = ["--experiments", study.folder]
    plan = here("plan", "all", "--profile", "full", "--data", "digits", *what)
    assert (plan.returncode, plan.err) == (0, "")
    assert "nothing was trained" in plan.out
    make_up_runs(study, tmp_path)
    summary = here("report", "--summary", *what)
    assert (summary.returncode, summary.err) == (0, "")
    report = here("report", "--out", "page", *what)
    assert (report.returncode, report.err) == (0, "")
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    sentence = html.unescape(re.search(r'class="lead">(.+?)</p>', page)[1])
    assert sentence in " ".join(summary.out.split())
    published = [*yaml.safe_load(study.claims.read_text())["published"]]
    assert ("published" in sentence) == (bool(published) and study.dataset == "tiny")
    for line in commands(plan.out, summary.out, page=page):
        parsed(line, tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"claims": [CLAIM | {"quantity": "test_gian"}]}, "no quantity 'test_gian'"),
        ({"published": None}, "published: None is not allowed"),
        ({"claims": [CLAIM | {"rung": "04_d"}]}, "no experiment '04_d'"),
        ({"seeds": 0}, "seeds: 0 is not allowed"),
    ],
)
def test_mistakes_in_the_claims_are_reported_before_training(here, tmp_path, changes, told):
    study = written(tmp_path / "mine", **changes)
    for words in (["plan", "2", "--ablate"], ["run", "1"]):
        process = here(*words, "--experiments", study.folder, "--data", "digits")
        assert process.returncode == 2
        assert told in process.err and process.err.count("\n") == 1
        assert "claims.yaml" in process.err
    assert not (tmp_path / "checkpoints").exists()


def test_the_claims_file_only_needs_the_number_of_seeds(here, tmp_path):
    study = written(tmp_path / "mine")
    study.claims.write_text("seeds: 2\n")
    statements = analysis.load_statements(Study.open(study.folder))
    assert (statements.published, statements.claims, statements.seeds) == ({}, [], 2)
    study.claims.write_text("published: {01_a: 0.5}\n")
    process = here("plan", "1", "--experiments", study.folder, "--data", "digits")
    assert process.returncode == 2 and "tolerance: is missing" in process.err


def test_a_claim_about_the_largest_gain_needs_at_least_three_rungs(here, tmp_path):
    study = written(tmp_path / "mine", rungs=2, published={}, claims=[LEAD])
    process = here("plan", "all", "--experiments", study.folder, "--data", "digits")
    assert process.returncode == 2
    assert "claim lead: comparing two steps needs three rungs" in process.err


def test_an_invalid_alternative_value_is_reported_before_training(here, tmp_path):
    alternatives = {"training.epochs": [{"value": -1, "reason": "none"}]}
    assumed = {"training.epochs": "not stated"}
    study = written(tmp_path / "mine")
    changed(study, "01_a", assumed=assumed, alternatives=alternatives)
    process = here("run", "1", "--experiments", study.folder, "--data", "digits")
    assert process.returncode == 2
    assert "01_a: alternatives: training.epochs" in process.err


def test_every_command_in_output_and_reports_is_valid(here, command, image_folder, tmp_path):
    study = written(tmp_path / "my study", published={})
    name = "it's wide"
    (study.folder / "baselines" / "net.yaml").rename(study.folder / "baselines" / f"{name}.yaml")
    what = ["--experiments", study.folder, "--data", image_folder]
    ui = here("record", "--experiments", study.folder)
    plan = here("plan", f"1,{name}", *what)
    run = here("run", f"1,{name}", *what)
    again = here("run", "1", *what)
    assert [p.returncode for p in (plan, run, again)] == [0, 0, 0], plan.err + run.err
    assert "--timing" in plan.out
    report = here("report", "--out", "page", "--experiments", study.folder)
    assert here("record", "--experiments", study.folder).returncode == 0
    (study.folder / "README.md").write_text(
        "<!-- written by  make readme ; changes by hand are lost -->\n"
        "<!-- end of what is written -->\n"
    )
    readme = here("report", "--readme", study.folder / "results", "--experiments", study.folder)
    assert readme.returncode == 0, readme.err
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    documents = [path.read_text("utf-8") for path in study.folder.rglob("*.md")]
    outputs = [p.out + p.err for p in (ui, plan, run, again, report, readme)]
    found = commands(*outputs, *documents, page=page)
    assert len(found) > 8
    for line in found:
        assert "make " not in line
        parsed(line, tmp_path)
    again = [line for line in commands(page=page) if "--fresh" in line]
    assert again
    for line in again:
        assert str(image_folder) in line  # the run's images, not the study's images


@pytest.mark.parametrize(
    ("data", "images"),
    [
        ({}, "tiny"),
        ({"data": "mnist"}, "mnist"),
        ({"data": "../tiny.zip"}, "{folder}/../tiny.zip"),
        ({"data": "/images/tiny"}, "/images/tiny"),
    ],
)
def test_images_come_from_the_study_unless_a_profile_or_option_names_others(tmp_path, data, images):
    study = changed(written(tmp_path / "mine"), **data)
    profile = {"description": "few images", "data": "digits", "changes": {}}
    study_of(study.folder, {"profiles/quick": profile})
    assert Options("all", experiments=study.folder).dataset == images.format(folder=study.folder)
    assert Options("all", experiments=study.folder, profile="quick").dataset == "digits"
    assert Options("all", experiments=study.folder, data="cifar10").dataset == "cifar10"


@pytest.mark.parametrize("data", ["", 3, "a\x1b[31m"])
def test_an_invalid_path_of_images_in_a_study_gives_an_error_of_one_line(tmp_path, data):
    study = written(tmp_path / "mine")
    with pytest.raises(UserError, match=r"study\.yaml: data: ") as caught:
        changed(study, data=data)
    assert str(caught.value).isprintable()


def test_commands_need_no_data_option_if_study_yaml_names_the_images(here, tmp_path):
    study = written(tmp_path / "mine", published={})
    squares(tmp_path / "squares")
    (tmp_path / "squares" / "train").rename(study.folder / "tiny")  # tiny/ has a folder per class
    study = changed(study, data="tiny")
    refused = here("plan", "1", "--experiments", study.folder)
    assert refused.returncode == 2
    assert "needs test_fraction in study.yaml" in refused.err and refused.err.count("\n") == 1
    study = changed(study, test_fraction=0.2)
    for word in ("plan", "run"):
        process = here(word, "1", "--experiments", study.folder)
        assert process.returncode == 0, process.err
        assert "tiny: 160 training and 40 test images, 4 classes" in process.out
    report = here("report", "--out", "page", "--experiments", study.folder)
    assert report.returncode == 0, report.err
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    again = [line for line in commands(page=page) if "--fresh" in line]
    assert again and not any("--data" in line for line in again)
    with pytest.raises(UserError, match=r"study\.yaml: test_fraction: 1\.5 is not allowed"):
        changed(study, test_fraction=1.5)


def commands(*texts, page=""):
    """Returns all the project's commands found in the texts and the page."""
    lines = [line for text in texts for line in text.splitlines()]
    shown = re.findall(r'data-copy="([^"]+)"|<code>(.+?)</code>', page)
    lines += [html.unescape(copied or code) for copied, code in shown]
    found = []
    for line in lines:
        if match := re.search(r"((?:\w+=\S+ )?\S*(?:/ladder|runner\.py)\'? .+?)(?:  |`|$)", line):
            found.append(match[1])
    return found


def parsed(line, folder):
    """Checks that the program accepts a command, and that paths given as options exist."""
    words = shlex.split(line)
    start = next(i for i, word in enumerate(words) if Path(word).name in ("ladder", "runner.py"))
    name, *rest = runner._as_command(words[start + 1 :])
    group = typer.main.get_command(runner._app())
    context = group.commands[name].make_context(name, rest, resilient_parsing=False)
    for option in ("experiments", "data"):
        value = context.params.get(option)
        # records lack the images' path, so commands built from records have a placeholder instead
        if value and value != "digits" and not str(value).startswith("PATH-OF-"):
            assert (folder / value).exists(), line
