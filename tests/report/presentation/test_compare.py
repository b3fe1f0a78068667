"""Tests the report's comparison of the ladder with other sets of runs."""

import math
import re
import shlex

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from report_known import N, build, csv, fails_in_one_line, read, reported
from report_store import FINGERPRINT, LADDER, STUDY, Store, right
from rich.console import Console

from report import analysis
from report.analysis import runs, selection
from report.presentation import output, summary
from resnet import UserError, records
from resnet.study import change

EPOCHS = "training.epochs=2"
SHOWN = f"cifar10 ({FINGERPRINT[:12]}), full profile"
MINE = f"{SHOWN}, modified: {EPOCHS}"
RECORDED = f"{SHOWN}, recorded runs"
DIGITS = "digits (cdcdcdcdcdcd), quick profile"
COUNTS = {0: (720, 725, 730), 1: (830, 829, 845), 2: (834, 840, 838)}
"""Maps each rung's index to three counts of correctly classified images, for seeds 0, 1 and 2."""
OTHERS = {1: (800, 790, 795), 2: (750,)}
"""The counts for runs of two epochs: rung 2 has seeds 1, 2 and 3, and rung 3 has seed 0."""


@pytest.fixture(scope="session")
def sets(empty, tmp_path_factory):
    """Makes a store of three sets of runs: one unmodified, one with two epochs, one on digits."""
    store = Store.copy(empty, tmp_path_factory.mktemp("sets"))
    for i, counts in COUNTS.items():
        for seed, count in enumerate(counts):
            store.add(LADDER[i], right(N, count, seed), seed=seed)
        digits = {"dataset": "digits", "fingerprint": "cd" * 32, "profile": "quick"}
        store.add(LADDER[i], right(N, 900), **digits)
    for i, counts in OTHERS.items():
        two = change(STUDY.experiment(LADDER[i]), {"training": {"epochs": 2}}, "--set")
        for seed, count in enumerate(counts, start=int(len(counts) > 1)):
            store.add(two, right(N, count, seed), seed=seed, modified=EPOCHS)
    store.add("06_mine", right(N, 700), like=LADDER[4], title="Mine", modified=EPOCHS)
    return store


@pytest.fixture(scope="session")
def study(empty, tmp_path_factory):
    """Returns a study whose only record is a run of rung 1 on another device."""
    store = Store.copy(empty, tmp_path_factory.mktemp("recorded"))
    store.add(LADDER[0], right(N, 720), tags={"device": "Another processor"})
    return store.recorded(store.folder / "results")


@pytest.fixture(scope="session")
def folder(sets, study, tmp_path_factory):
    """Returns the folder of a report that compares the ladder with three other sets of runs."""
    out = tmp_path_factory.mktemp("compared") / "out"
    return build(sets, out, study=study, compare=[EPOCHS, "recorded", "digits"])


def test_two_sets_are_compared_rung_by_rung(folder, sets):
    raw, cells = csv(folder, "compared_1", "rung"), read(folder).records("compared_1")
    row = raw.loc[LADDER[1]]
    (other,) = analysis.load(sets.uri, compare=[EPOCHS]).compared
    assert math.isnan(other.systems[1].interval[0])  # too few seeds for an interval
    assert row["difference"] == pytest.approx(np.mean(OTHERS[1]) / N - np.mean(COUNTS[1]) / N)
    assert row[["interval_low", "p", "p_holm"]].isna().all()
    assert (row["shown"], row["compared"]) == pytest.approx(
        (np.mean(COUNTS[1]) / N, np.mean(OTHERS[1]) / N)
    )
    shown = cells["2 + augmentation"]
    assert shown["accuracy, shown"] == "83.5 %\nseeds 0-2"
    assert shown["accuracy, compared"] == "79.5 %\nseeds 1-3"
    assert shown["evidence"] == "3 seeds; 3 seeds"
    assert shown["different settings"].endswith("training.epochs: 25 -> 2")
    assert raw.loc[LADDER[2], "evidence"] == "3 seeds; 1 seed"
    assert set(raw["shown_set"]) == {SHOWN}
    assert set(raw["compared_set"]) == {MINE}


def test_a_rung_that_only_one_set_has_is_listed_without_a_difference(folder):
    cells = read(folder).records("compared_1")
    assert set(cells) == {
        "1 Template", "2 + augmentation", "3 + deeper + early stopping", "6 Mine",
    }  # fmt: skip
    lacking = {"1 Template": "accuracy, compared", "6 Mine": "accuracy, shown"}
    for name, where in lacking.items():
        row = cells[name]
        assert row[where] == "not run"
        assert "not run" in row["evidence"]
        nothing = ("difference", "95 % interval", "p", "agreement", "different settings")
        assert {row[heading] for heading in nothing} == {"-"}


def test_networks_are_not_compared_by_image_if_the_fingerprints_differ(folder, sets):
    """The two datasets have equal labels, so only the fingerprint tells them apart."""
    raw = csv(folder, "compared_3", "rung")
    assert raw.loc[LADDER[0], "difference"] == pytest.approx(0.9 - np.mean(COUNTS[0]) / N)
    empty = ["interval_low", "p", "mcnemar_p", "agreement", "newly_right", "newly_wrong"]
    assert raw[empty].isna().all(axis=None)
    assert set(raw["evidence"]) == {"3 seeds; 1 seed; different images"}
    text = (folder / output.PAGE).read_text()
    assert text.count("The images differ") == 1
    assert text.index(f"Compared: {DIGITS}") < text.index("The images differ")


def test_equal_runs_of_two_sets_agree_on_every_image(folder):
    raw = csv(folder, "compared_2", "rung").loc[LADDER[0]]
    assert raw["difference"] == pytest.approx(0.72 - np.mean(COUNTS[0]) / N)
    assert (raw["pairs"], raw["agreement"]) == (1, 1)


def labels(frame, *names, **chosen):
    """Returns the labels of the set shown and of the sets compared with it."""
    found = selection.select(frame, STUDY, compare=names, **chosen)
    return [each.run_set.label for each in (found, *found.compared)]


def test_a_set_of_runs_is_found_by_each_property_and_by_its_label(sets, study):
    (record,) = map(runs.of_record, records.load_all(study.results).values())
    row = runs.row(record.id, "FINISHED", record.begun, record.tags)
    frame = pd.concat([runs.search(sets.uri, STUDY), pd.DataFrame([row])])
    for name, label in (
        (EPOCHS, MINE),
        ("recorded", RECORDED),
        ("quick", DIGITS),
        ("CDCD", DIGITS),
    ):
        assert labels(frame, name) == labels(frame, label, name) == [SHOWN, label]
    assert labels(frame, DIGITS, EPOCHS) == [SHOWN, DIGITS, MINE]
    assert labels(frame, "", modified=EPOCHS) == [MINE, SHOWN]  # "" finds the unmodified ladder
    # inexact settings find no set, and properties of the shown set find no other set
    for name in ("training.epochs=", "training.epochs=20", "full", "own", "cifar10", ""):
        with pytest.raises(UserError, match="names no other set of runs") as error:
            labels(frame, name)
        assert all(label in str(error.value) for label in (MINE, RECORDED, DIGITS))
    with pytest.raises(UserError, match=r"candidates: none$"):
        labels(frame[frame["role"] == "recorded"], "own")


def test_the_matching_set_that_is_most_similar_to_the_set_shown_is_compared(store):
    other = {"dataset": "pets", "fingerprint": "cd" * 32}
    store.add(LADDER[0], right(N, 700))
    store.add(LADDER[0], right(N, 600), modified=EPOCHS)
    store.add(LADDER[0], right(N, 500), modified=EPOCHS, **other)
    store.add(LADDER[0], right(N, 400), profile="quick", modified=EPOCHS)
    store.add(LADDER[0], right(N, 300), profile="quick", **other)
    frame = runs.search(store.uri, STUDY)
    assert labels(frame, EPOCHS) == [SHOWN, MINE]
    with pytest.raises(UserError, match="names several sets of runs; candidates: ") as error:
        labels(frame, "quick")
    assert str(error.value).count("quick profile") == 2
    assert "full profile" not in str(error.value)


def test_comparisons_are_added_to_the_summary_in_the_terminal(sets):
    plain, text = "", ""
    for names in ((), (EPOCHS, "digits")):
        console = Console(record=True, width=80)
        summary.show(analysis.load(sets.uri, compare=names), console)
        plain, text = text, console.export_text()
    assert "…" not in text
    assert "(2, 3): training.epochs: 25 -> 2" in text
    assert MINE in " ".join(text.split())
    assert re.search(r"83\.5 % +79\.5 % +-4\.0", text)
    assert "different images" in text
    assert "compared" not in plain
    assert set(plain.splitlines()) <= set(text.splitlines())


def test_the_command_in_docs_own_rung_md_compares_two_sets(sets, tmp_path):
    text = (ROOT / "docs" / "own-rung.md").read_text("utf-8")
    assert re.search(r"ladder run \d --set (\S+)", text)[1] == EPOCHS
    words = shlex.split(re.search(r"ladder report (--own --compare .*)", text)[1])
    uri = ("--tracking-uri", sets.uri)
    made = reported(*uri, "--out", tmp_path / "out", *words)
    assert (made.returncode, made.stderr) == (0, ""), made
    assert f"compared with {MINE}\n" in made.stdout
    assert (tmp_path / "out" / "tables" / "compared_1.tex").exists()
    nothing = reported(*uri, "--out", tmp_path / "none", "--compare", "epochs")
    fails_in_one_line(nothing, "--compare 'epochs'", MINE)
    assert not (tmp_path / "none").exists()
    assert f"--compare {EPOCHS}" in reported("--help").stdout
