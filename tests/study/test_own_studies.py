"""Unusual studies of someone's own: from the plan to the page, and every printed command.

Runs are made up, except where training is what is tested.
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
CLAIM |= {"quantity": "test_gain"}
LEAD = {"id": "lead", "rung": "02_b", "text": "it brings the most", "quantity": "gain_lead"}


def one_rung(study):
    study["rungs"] = {"01_a": study["rungs"]["01_a"]}
    published = {"01_a": 0.5, "net": 0.7}
    study["claims"] |= {"published": published, "claims": [], "credited": {}}


def one_epoch(study):
    study["epochs"] = 1


def no_claims(study):
    study["claims"]["claims"] = []


def nothing_published(study):
    study["claims"]["published"] = {}


def only_a_baseline_published(study):
    study["claims"]["published"] = {"net": 0.7}


def a_lead(study):
    if len(study["rungs"]) > 1:
        study["claims"]["claims"].append(LEAD | {"bound": {"min": 0.0}})


def other_images(study):
    study["dataset"] = "others"


SITUATIONS = (
    # the order is that in which two of them are made
    one_rung,
    one_epoch,
    no_claims,
    nothing_published,
    only_a_baseline_published,
    a_lead,
    other_images,
)


def written(folder, *situations):
    """The study of a baseline and three rungs, as the situations have it."""
    study = {
        "rungs": {
            "01_a": RUNG | {"title": "First"},
            "02_b": {"extends": "01_a", "title": "+ no dropout", "model": {"dropout": 0.0}},
            "03_c": {"extends": "02_b", "title": "+ rate", "training": {"learning_rate": 0.01}},
        },
        "claims": {
            "published": {"01_a": 0.5, "02_b": 0.55, "03_c": 0.6, "net": 0.7},
            "tolerance": 0.05,
            "seeds": 2,
            "credited": {"02_b": ["model.dropout"]},
            "claims": [CLAIM | {"bound": {"min": 0.0}}],
            "contradictions": [],
        },
        "dataset": "tiny",
        "epochs": 2,
    }
    for situation in sorted(situations, key=SITUATIONS.index):
        situation(study)
    study["rungs"]["01_a"]["training"] = RUNG["training"] | {"epochs": study["epochs"]}
    (folder / "baselines").mkdir(parents=True)
    files = {"baselines/net": {"extends": "01_a", "title": "A net", "model": {"filters": [8]}}}
    for name, tree in (study["rungs"] | files | {"claims": study["claims"]}).items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    about = {"name": "mine", "about": "what is asked", "dataset": study["dataset"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(about))
    return Study.open(folder)


def says(study, **changes):
    """The study with some changes to its ``study.yaml``."""
    path = study.folder / "study.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    return Study.open(study.folder)


def made_up(study, folder, seeds=2):
    """A store with runs of everything, on images called tiny."""
    store = Store(folder, study.name)
    (folder / "path" / "of" / "tiny").mkdir(parents=True)  # where it says that images came from
    names = [*study.files]
    for number, name in enumerate(names):
        experiment = study.experiment(name)
        history = curve(experiment.training.epochs, 0.6, 0.55 + 0.01 * number)
        for seed in range(seeds):
            correct = right(200, 100 + 10 * number + seed, seed)
            store.add(experiment, correct, seed=seed, history=history, dataset="tiny")
    return store


TOGETHER = [
    (one_rung,),
    (nothing_published,),
    (a_lead, other_images),
    (one_rung, nothing_published, one_epoch),
    (one_rung, only_a_baseline_published),
    (no_claims, nothing_published, other_images),
    (one_epoch, only_a_baseline_published, a_lead),
]


def named(situations):
    return "-".join(situation.__name__ for situation in situations)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("situations", TOGETHER, ids=named)
def test_every_study_is_planned_and_reported(here, command, tmp_path, situations):
    study = written(tmp_path / "mine", *situations)
    what = ["--experiments", study.folder]
    plan = here("plan", "all", "--profile", "full", "--data", "digits", *what)
    assert (plan.returncode, plan.err) == (0, "")
    assert "nothing was trained" in plan.out
    made_up(study, tmp_path)
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
        (
            {"claims": [CLAIM | {"quantity": "test_gian", "bound": {"min": 0}}]},
            "no quantity 'test_gian'",
        ),
        ({"published": None}, "published: None is not allowed"),
        ({"claims": [CLAIM | {"rung": "04_d", "bound": {"min": 0}}]}, "no experiment '04_d'"),
        ({"seeds": 0}, "seeds: 0 is not allowed"),
    ],
)
def test_a_mistake_in_the_claims_is_told_before_anything_is_trained(here, tmp_path, changes, told):
    study = written(tmp_path / "mine")
    claims = yaml.safe_load(study.claims.read_text()) | changes
    study.claims.write_text(yaml.safe_dump(claims))
    for words in (["plan", "2", "--ablate"], ["run", "1"]):
        process = here(*words, "--experiments", study.folder, "--data", "digits")
        assert process.returncode == 2
        assert told in process.err and process.err.count("\n") == 1
        assert "claims.yaml" in process.err
    assert not (tmp_path / "checkpoints").exists()


def test_claims_need_only_what_the_study_says(here, tmp_path):
    study = written(tmp_path / "mine")
    study.claims.write_text("seeds: 2\n")
    statements = analysis.load_statements(Study.open(study.folder))
    assert (statements.published, statements.claims, statements.seeds) == ({}, [], 2)
    study.claims.write_text("published: {01_a: 0.5}\n")
    process = here("plan", "1", "--experiments", study.folder, "--data", "digits")
    assert process.returncode == 2 and "tolerance: is missing" in process.err


def test_a_lead_takes_another_step(here, tmp_path):
    study = written(tmp_path / "mine", a_lead)
    (study.folder / "03_c.yaml").unlink()
    claims = yaml.safe_load(study.claims.read_text())
    del claims["published"]["03_c"]
    study.claims.write_text(yaml.safe_dump(claims))
    process = here("plan", "all", "--experiments", study.folder, "--data", "digits")
    assert process.returncode == 2
    assert "claim lead: there is no other step to compare with" in process.err


def test_an_alternative_that_is_not_allowed_is_told_before_anything_is_trained(here, tmp_path):
    study = written(tmp_path / "mine")
    path = study.folder / "01_a.yaml"
    tree = yaml.safe_load(path.read_text()) | {
        "assumed": {"training.epochs": "not stated"},
        "alternatives": {"training.epochs": [{"value": -1, "reason": "none"}]},
    }
    path.write_text(yaml.safe_dump(tree))
    process = here("run", "1", "--experiments", study.folder, "--data", "digits")
    assert process.returncode == 2
    assert "01_a: alternatives: training.epochs" in process.err


def test_every_command_that_is_printed_works(here, command, image_folder, tmp_path):
    """Of a study with its own images: on the terminal, the page, and in the documents."""
    study = written(tmp_path / "my study", nothing_published)
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
    for line in again:  # on the images that it was run on, wherever the study's are said to be
        assert str(image_folder) in line


@pytest.mark.parametrize(
    ("data", "images"),
    [
        ({}, "tiny"),
        ({"data": "mnist"}, "mnist"),
        ({"data": "../tiny.zip"}, "{folder}/../tiny.zip"),
        ({"data": "/images/tiny"}, "/images/tiny"),
    ],
)
def test_a_study_says_where_its_images_are(tmp_path, data, images):
    study = says(written(tmp_path / "mine"), **data)
    (study.folder / "profiles").mkdir()
    profile = {"description": "few images", "data": "digits", "changes": {}}
    (study.folder / "profiles" / "quick.yaml").write_text(yaml.safe_dump(profile))
    assert Options("all", experiments=study.folder).dataset == images.format(folder=study.folder)
    assert Options("all", experiments=study.folder, profile="quick").dataset == "digits"
    assert Options("all", experiments=study.folder, data="cifar10").dataset == "cifar10"


@pytest.mark.parametrize("data", ["", 3, "a\x1b[31m"])
def test_where_no_images_can_be_is_refused_in_one_line(tmp_path, data):
    study = written(tmp_path / "mine")
    with pytest.raises(UserError, match=r"study\.yaml: data: ") as caught:
        says(study, data=data)
    assert str(caught.value).isprintable()


def test_nobody_repeats_what_the_study_says_of_its_images_and_their_split(here, tmp_path):
    study = written(tmp_path / "mine", nothing_published)
    squares(tmp_path / "squares")
    (tmp_path / "squares" / "train").rename(study.folder / "tiny")  # which holds the classes
    study = says(study, data="tiny")
    refused = here("plan", "1", "--experiments", study.folder)
    assert refused.returncode == 2
    assert "needs test_fraction in study.yaml" in refused.err and refused.err.count("\n") == 1
    study = says(study, test_fraction=0.2)
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
        says(study, test_fraction=1.5)


def commands(*texts, page=""):
    """Every command of the project's in some outputs, as it stands there."""
    lines = [line for text in texts for line in text.splitlines()]
    shown = re.findall(r'data-copy="([^"]+)"|<code>(.+?)</code>', page)
    lines += [html.unescape(copied or code) for copied, code in shown]
    found = []
    for line in lines:
        if match := re.search(r"((?:\w+=\S+ )?\S*(?:/ladder|runner\.py)\'? .+?)(?:  |`|$)", line):
            found.append(match[1])
    return found


def parsed(line, folder):
    """A command is one that the program takes, and names files that are there."""
    words = shlex.split(line)
    start = next(i for i, word in enumerate(words) if Path(word).name in ("ladder", "runner.py"))
    name, *rest = runner._as_command(words[start + 1 :])
    group = typer.main.get_command(runner._app())
    context = group.commands[name].make_context(name, rest, resilient_parsing=False)
    for option in ("experiments", "data"):
        value = context.params.get(option)
        # the words before a path of a record, whose images are not in git
        if value and value != "digits" and not str(value).startswith("PATH-OF-"):
            assert (folder / value).exists(), line
