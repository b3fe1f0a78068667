"""The report, on known runs in a real MLflow store; every number against its own computation."""

import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from mlflow.tracking import MlflowClient
from report_store import CLASSES, FINGERPRINT, LADDER, Store, curve, labels, right
from rich.console import Console
from scipy import stats

from report import analysis, claims, output, page, selection, statistics, summary, tables
from resnet import UserError, config

N = 1000


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """MLflow's tables without a run: made once, because making them takes seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty, tmp_path):
    return Store.copy(empty, tmp_path)


@pytest.fixture(scope="session")
def two_seeds(empty, tmp_path_factory):
    """Rungs 1 and 2 with seeds 0, 1, 2 and their accuracies; the rest not run."""
    store = Store.copy(empty, tmp_path_factory.mktemp("seeds"))
    counts = {LADDER[0]: (720, 725, 730), LADDER[1]: (830, 829, 845)}
    for rung, numbers in counts.items():
        for seed, count in enumerate(numbers):
            history = curve(25, 0.95 + 0.01 * seed, 0.80)
            store.add(rung, right(N, count, seed), seed=seed, history=history)
    return store, counts


@pytest.fixture(scope="session")
def full(empty, tmp_path_factory):
    """Every rung and the VGG-like network, one seed each, as the study has them."""
    store = Store.copy(empty, tmp_path_factory.mktemp("full"))
    curves = {
        LADDER[0]: curve(25, 0.98, 0.72),
        LADDER[1]: curve(25, 0.85, 0.83),
        LADDER[2]: curve(25, 0.87, 0.84),
        LADDER[3]: curve(50, 0.92, 0.90, drops=(23, 40)),
        LADDER[4]: curve(75, 0.91, 0.895, drops=(45,)),
        "vgg": curve(25, 0.90, 0.87),
    }
    for name, accuracy in claims.load_study().published.items():
        correct = right(10_000, round(10_000 * accuracy))
        store.add(name, correct, history=curves[name])
    return store, output.build(store.uri, store.folder / "out")


def seeds_mean(values):
    values = np.asarray(values) / N
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


class Cells(HTMLParser):
    """The page's tables by class, as lists of rows of text."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.row, self.cell, self.problems = {}, None, None, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "table":
            self.rows = self.tables.setdefault(attrs["class"], [])
        elif tag == "tr":
            self.row = []
        elif tag in ("td", "th"):
            self.cell = ""
        elif tag in ("script", "iframe", "object") or any(a.startswith("on") for a in attrs):
            self.problems.append(tag)
        for name in ("src", "href"):
            if not attrs.get(name, "#").startswith(("#", "data:")):
                self.problems.append(attrs[name])

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.row.append(self.cell.strip())
            self.cell = None
        elif tag == "tr":
            self.rows.append(self.row)

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def records(self, name):
        heading, *rows = self.tables[name]
        return {row[0].split("\n")[0]: dict(zip(heading, row, strict=True)) for row in rows}


def read(folder):
    return Cells((folder / output.PAGE).read_text(encoding="utf-8"))


def csv(folder, name, index):
    return pd.read_csv(folder / "tables" / f"{name}.csv").set_index(index)


# --- numbers -----------------------------------------------------------------------------------


def test_one_seed_progression(full):
    _, folder = full
    shown, raw = read(folder).records("progression"), csv(folder, "progression", "rung")
    for name, accuracy in claims.load_study().published.items():
        k = round(10_000 * accuracy)
        interval = stats.binomtest(k, 10_000).proportion_ci(method="wilson")
        row = raw.loc[name]
        assert row["reproduced"] == pytest.approx(k / 10_000)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        inside = abs(interval.low - accuracy) <= 0.015 and abs(interval.high - accuracy) <= 0.015
        assert row["verdict"] == ("holds" if inside else "undecided")
        assert shown[name]["published"] == shown[name]["reproduced"] == f"{100 * accuracy:.1f} %"
        assert shown[name]["95 % interval"] == (
            f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %\n"
            "1 seed, binomial (10,000 images)"
        )
        assert shown[name]["size"] == "316,394 parameters\n53.98 M multiply-adds"
    assert shown[LADDER[4]]["training"] == "75 epochs\n1 h 16 min"
    assert "training.epochs: 50 -> 75" in shown[LADDER[4]]["what changed"]
    assert "model.identity_blocks: [7, 3, 1] -> [7, 5, 2]" in shown[LADDER[4]]["what changed"]


def test_several_seeds_progression(two_seeds):
    store, counts = two_seeds
    content = analysis.load(store.uri)
    for system in content.systems[:2]:
        mean, low, high = seeds_mean(counts[system.name])
        assert system.accuracy == pytest.approx(mean)
        assert system.interval == pytest.approx((low, high))
        assert system.basis == "3 seeds, t interval"
    assert [s.waiting for s in content.systems[2:]] == ["not run"] * 4


def test_mcnemar_agreement_and_classes(full):
    _, folder = full
    raw = csv(folder, "steps", "to")
    truth = labels(10_000)
    published = claims.load_study().published
    p_values = []
    for before, after in pairwise(LADDER):
        a, b = (right(10_000, round(10_000 * published[n])) for n in (before, after))
        lost, gained = (a & ~b).sum(), (b & ~a).sum()
        p = stats.binomtest(int(gained), int(gained + lost)).pvalue
        p_values.append(p)
        row = raw.loc[after]
        assert row["mcnemar_p_median"] == pytest.approx(p)
        assert row["p"] == pytest.approx(p)
        assert (row["newly_right"], row["newly_wrong"]) == (gained, lost)
        assert row["agreement"] == pytest.approx((a == b).mean())  # a miss is always the next class
        assert row["gain"] == pytest.approx(published[after] - published[before])
        d = b.astype(int) - a
        half = stats.norm.ppf(0.975) * d.std(ddof=1) / 100
        assert (row["low"], row["high"]) == pytest.approx((d.mean() - half, d.mean() + half))
    order = np.argsort(p_values)
    running, expected = 0.0, {}
    for rank, i in enumerate(order):
        running = max(running, min(1, (4 - rank) * p_values[i]))
        expected[LADDER[i + 1]] = running
    assert raw["p_holm"].to_dict() == pytest.approx(expected)

    a, b = (right(10_000, round(10_000 * published[n])) for n in LADDER[:2])
    gains = [b[truth == k].mean() - a[truth == k].mean() for k in range(10)]
    best = int(np.argmax(gains))
    cell = read(folder).records("steps")[LADDER[0]]["gained most"]
    assert cell.startswith(f"{CLASSES[best]} {100 * gains[best]:+.1f}")


def test_steps_over_seeds(two_seeds):
    store, counts = two_seeds
    step = analysis.load(store.uri).steps[0]
    gains = (np.array(counts[LADDER[1]]) - counts[LADDER[0]]) / N
    assert step.gains == pytest.approx(gains)
    assert step.p == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
    # every resample of three values: the percentile bootstrap that drawing approaches
    resamples = [np.mean(c) for c in np.array(np.meshgrid(gains, gains, gains)).reshape(3, -1).T]
    ends = np.percentile(resamples, [2.5, 97.5], method="inverted_cdf")
    assert step.interval == pytest.approx(ends)
    variances = [np.var(np.array(c) / N, ddof=1) for c in counts.values()]
    assert step.deviation == pytest.approx(math.sqrt(np.mean(variances)))
    per_seed = []
    for seed in range(3):
        a, b = (right(N, counts[name][seed], seed) for name in LADDER[:2])
        lost, gained = int((a & ~b).sum()), int((b & ~a).sum())
        per_seed.append(stats.binomtest(gained, gained + lost).pvalue)
    assert step.mcnemar_p == pytest.approx(np.median(per_seed))


@pytest.mark.parametrize(("gain", "deviation"), [(0.005, 0.003), (-0.005, 0.005), (0.1, 0.003)])
def test_power_by_the_noncentral_f(gain, deviation):
    """The square of Student's t is F: another road to the same power."""

    def power(n):
        shift = n / 2 * (gain / deviation) ** 2
        return stats.ncf.sf(stats.f.ppf(0.95, 1, 2 * n - 2), 1, 2 * n - 2, shift)

    n = statistics.seeds_needed(gain, deviation)
    assert power(n) >= 0.8
    assert n == 2 or power(n - 1) < 0.8


def test_power_at_the_edges():
    assert statistics.seeds_needed(0.0, 0.01) is None
    assert statistics.seeds_needed(0.01, 0.0) == 2
    assert statistics.seeds_needed(1e-6, 0.01) is None
    assert statistics.seeds_needed(0.9, 1e-9) == 2


def test_power_line_over_seeds(two_seeds):
    store, _ = two_seeds
    row = tables.power(analysis.load(store.uri)).raw.iloc[0]
    assert row["seeds_needed"] == statistics.seeds_needed(0.829 - 0.723, row["deviation"])
    single = tables.power(analysis.load(store.uri)).shown.iloc[2]
    assert single["deviation over seeds"] == "not to be had from one seed"


def test_confusion_and_class_accuracy(full):
    store, folder = full
    truth = labels(10_000)
    correct = right(10_000, 8920)
    raw = csv(folder, "classes", "class")["accuracy"]
    for k, name in enumerate(CLASSES):
        assert raw[name] == pytest.approx(correct[truth == k].mean())
    content = analysis.load(store.uri)
    counts = analysis.confusion(content.pictured)
    assert content.best.name == LADDER[4]
    assert counts.loc["cat", "cat"] == (correct & (truth == 3)).sum()
    assert counts.loc["cat", "deer"] == (~correct & (truth == 3)).sum()
    assert counts.to_numpy().sum() == 10_000


def test_vgg_table(full):
    cells = read(full[1]).records("systems")
    heading = ["05_deeper_dropout: + deeper + dropout", "vgg: VGG-like network"]
    assert [cells["layers with weights"][h] for h in heading] == ["50", "12"]
    assert [cells["reproduced"][h] for h in heading] == ["89.2 %", "87.9 %"]
    assert [cells["dropout"][h] for h in heading] == ["0.5", "0.2"]


def test_provenance_and_assumptions(full):
    _, folder = full
    cells = read(folder)
    ran = cells.records("runs")
    assert {row["rung"] for row in ran.values()} == set(claims.load_study().published)
    for row in ran.values():
        assert row["again with"] == f"python runner.py --ladder {row['rung']} --seed 0 --fresh"
    facts = {name: row["value"] for name, row in cells.records("environment").items()}
    assert facts["fingerprint"] == FINGERPRINT
    assert facts["training and test images"] == "50,000 and 10,000"
    assert facts["keras"] == "3.15.1"
    assert facts["training time in all"] == tables.duration(61.0 * (25 * 4 + 50 + 75))
    assert "training.learning_rate" in cells.records("assumptions")
    assert "min_lr" in cells.records("contradictions")


# --- claims ------------------------------------------------------------------------------------


def test_the_study_itself_holds_where_one_run_can_tell(full):
    _, folder = full
    raw = csv(folder, "claims", "claim")
    assert len(raw) == len(claims.load_study().claims)
    holds = {
        "overfit-template",
        "augmentation-train",
        "augmentation-val",
        "augmentation-gap",
        "early-stop-idle",
        "schedule-train",
        "schedule-drop",
        "dropout-train",
        "dropout-drop",
        "no-overfit",
        "augmentation-largest",
    }
    assert set(raw.index[raw["verdict"] == "holds"]) >= holds
    assert raw.loc["augmentation-gap", "value"] == pytest.approx(
        np.mean(np.diff(curve(25, 0.85, 0.83)[["val_accuracy", "accuracy"]].tail(3)))
        / np.mean(np.diff(curve(25, 0.98, 0.72)[["val_accuracy", "accuracy"]].tail(3)))
    )
    assert raw.loc["schedule-drop", "value"] == 23
    assert raw.loc["augmentation-largest", "value"] == pytest.approx(0.106 - 0.039)
    validation = stats.binomtest(round(0.90 * 9984), 9984).proportion_ci(method="wilson")
    row = raw.loc["schedule-val"]
    assert (row["low"], row["high"]) == pytest.approx((validation.low, validation.high), abs=1e-6)
    assert row["verdict"] == "holds"
    assert "the value itself, no interval" in raw.loc["schedule-drop", "evidence"]
    assert raw.loc["augmentation-largest", "run_ids"].count(" ") >= 3


def claim(**changes):
    entry = {
        "id": "x",
        "rung": LADDER[1],
        "text": "a claim",
        "quantity": "test_accuracy",
        "bound": {"min": 0.8},
    }
    return claims.Claim.model_validate(entry | changes)


def evidence(store):
    return claims.Evidence(analysis.load(store.uri).runs, list(LADDER))


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [({"min": 0.80}, "holds"), ({"max": 0.80}, "fails"), ({"min": 0.834}, "undecided")],
)
def test_three_outcomes_over_seeds(two_seeds, bound, verdict):
    store, counts = two_seeds
    judged = claims.judge(claim(bound=bound), evidence(store))
    mean, low, high = seeds_mean(counts[LADDER[1]])
    assert (judged.value, judged.low, judged.high) == pytest.approx((mean, low, high))
    assert judged.verdict == verdict
    assert len(judged.runs) == 3
    assert "3 seeds" in judged.evidence


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [({"min": 0.10}, "undecided"), ({"min": 0.05}, "holds"), ({"max": 0.05}, "fails")],
)
def test_three_outcomes_of_one_run_are_paired_by_image(full, bound, verdict):
    store, _ = full
    judged = claims.judge(
        claim(quantity="test_gain", against=LADDER[0], bound=bound), evidence(store)
    )
    a, b = right(10_000, 7230), right(10_000, 8290)
    d = b.astype(int) - a
    half = stats.norm.ppf(0.975) * d.std(ddof=1) / 100
    assert (judged.low, judged.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert judged.verdict == verdict
    assert "paired interval of 10,000 test images" in judged.evidence


def test_every_claim_can_hold_fail_and_be_undecided(two_seeds):
    """Each quantity's verdict is the bound's on its interval, whatever the claim."""
    bound = claims.Bound(min=0.1, max=0.2)
    assert bound.judge(0.1, 0.2) == "holds"
    assert bound.judge(0.05, 0.0999) == bound.judge(0.21, 0.3) == "fails"
    assert bound.judge(0.05, 0.15) == bound.judge(0.15, 0.25) == "undecided"
    assert bound.judge(0.0, 1.0) == "undecided"
    measured = evidence(two_seeds[0])
    for judged in analysis.load(two_seeds[0].uri).claims:
        if judged.claim.rung not in LADDER[:2] or judged.claim.id == "augmentation-largest":
            assert judged.verdict == "undecided"
            assert "not run" in judged.evidence
            continue
        around = {"min": judged.low - 1, "max": judged.high + 1}
        above = {"min": judged.high + 1, "max": judged.high + 2}
        across = {"min": (judged.low + judged.high) / 2, "max": judged.high + 1}
        cases = [(around, "holds"), (above, "fails"), (across, "undecided")]
        if judged.low == judged.high:  # a point is inside a bound or outside
            cases.pop()
        for bound, verdict in cases:
            changed = judged.claim.model_copy(update={"bound": claims.Bound.model_validate(bound)})
            assert claims.judge(changed, measured).verdict == verdict


def test_epochs_that_never_came(store):
    drop = claim(quantity="first_drop_epoch", bound={"min": 18, "max": 28})
    store.add(LADDER[1], right(N, 800), history=curve(30, 0.9, 0.8))
    judged = claims.judge(drop, evidence(store))
    assert (judged.verdict, judged.value) == ("fails", math.inf)
    store.add(LADDER[1], right(N, 800), seed=1, history=curve(30, 0.9, 0.8, drops=(20,)))
    judged = claims.judge(drop, evidence(store))
    assert judged.verdict == "undecided"
    assert "never in 1 of them" in judged.evidence


def test_slope_ratio(store):
    history = curve(40, 0.9, 0.8, drops=(20,))
    history.loc[:19, "accuracy"] = history.loc[:19, "val_accuracy"] = 0.3 + 0.01 * np.arange(19)
    history.loc[20:, "accuracy"] = history.loc[20:, "val_accuracy"] = 0.7 + 0.002 * np.arange(21)
    store.add(LADDER[1], right(N, 800), history=history)
    flat = claim(quantity="slope_ratio_after_drop", bound={"max": 0.5})
    judged = claims.judge(flat, evidence(store))
    assert judged.value == pytest.approx(0.2)
    assert judged.verdict == "holds"


def test_early_stopping_that_triggered_fails_the_claim(store):
    store.add(LADDER[2], right(N, 800), metrics={"stopped_epoch": 17.0})
    judged = {j.claim.id: j for j in analysis.load(store.uri).claims}["early-stop-idle"]
    assert (judged.verdict, judged.value) == ("fails", 17.0)


def test_a_new_claim_needs_only_yaml(full, tmp_path):
    text = (config.EXPERIMENTS / "claims.yaml").read_text()
    path = tmp_path / "claims.yaml"
    added = "claims:\n  - {id: new, rung: vgg, text: new, quantity: epochs_run, bound: {max: 25}}\n"
    path.write_text(text.replace("claims:\n", added, 1))
    new = claims.load_study(path).claims[0]
    assert claims.judge(new, evidence(full[0])).verdict == "holds"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("quantity: final_gap", "quantity: final_gab", "there is no quantity 'final_gab'"),
        ("bound: {max: 0}", "bound: {}", "min, max or both"),
        ("rung: 05_deeper_dropout", "rung: 05_deper", "no published accuracy"),
        ("id: deeper-gain", "id: early-stop-idle", "stands there twice"),
        ("    against: vgg\n", "", "needs 'against'"),
        ("tolerance: 0.015", "tolerance: lots", "tolerance"),
    ],
)
def test_mistakes_in_claims_are_one_line(tmp_path, old, new, told):
    path = tmp_path / "claims.yaml"
    path.write_text((config.EXPERIMENTS / "claims.yaml").read_text().replace(old, new))
    with pytest.raises(UserError) as error:
        claims.load_study(path)
    assert told in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# --- which runs --------------------------------------------------------------------------------


def test_sets_are_never_mixed(store):
    store.add(LADDER[0], right(N, 700))
    store.add(LADDER[0], right(N, 100), seed=1, dataset="digits", fingerprint="cd" * 32, start=1)
    store.add(LADDER[0], right(N, 200), seed=2, profile="quick")
    store.add(LADDER[0], right(N, 300), seed=3, modified="training.epochs=2")

    def accuracies(**chosen):
        content = analysis.load(store.uri, **chosen)
        assert len(content.selection.others) == 3
        return content.systems[0].accuracies

    assert accuracies() == [0.7]
    assert accuracies(dataset="digits") == accuracies(dataset="CDCD") == [0.1]
    assert accuracies(profile="quick") == [0.2]
    assert accuracies(modified="training.epochs=2") == [0.3]
    with pytest.raises(UserError, match=r"there are: cifar10 \(abababababab\), full profile; "):
        analysis.load(store.uri, dataset="imagenet")


def test_most_rungs_are_preferred_then_the_newest(store):
    store.add(LADDER[0], right(N, 700), start=1)
    store.add(LADDER[1], right(N, 700), start=2)
    store.add(LADDER[0], right(N, 600), dataset="other", fingerprint="cd" * 32, start=3)
    assert analysis.load(store.uri).selection.shown.dataset == "cifar10"
    store.add(LADDER[1], right(N, 600), dataset="other", fingerprint="cd" * 32, start=4)
    assert analysis.load(store.uri).selection.shown.dataset == "other"


def test_other_data_are_marked(store):
    store.add(LADDER[0], right(N, 700), dataset="cifar10-jpeg")
    content = analysis.load(store.uri)
    assert tables.published_heading(content) == "published (CIFAR-10) †"
    folder = output.write(content, store.folder / "out")
    text = (folder / output.PAGE).read_text()
    assert "on another dataset (cifar10-jpeg, not CIFAR-10)" in text
    assert "published (CIFAR-10) †" in read(folder).records("progression")[LADDER[0]]
    assert "--data path/of/cifar10-jpeg" in text
    assert "not CIFAR-10" not in page.verdict(content)


def test_modified_runs_are_marked_and_rerun_as_they_were(store):
    store.add(LADDER[0], right(N, 700), modified="training.epochs=2 model.dropout=0.1")
    content = analysis.load(store.uri)
    assert "modified settings" in content.selection.shown.reservation
    assert tables.rerun_command(content.runs[0]) == (
        "python runner.py --ladder 01_template --seed 0 "
        "--set training.epochs=2 --set model.dropout=0.1 --fresh"
    )
    assert all(not system.changes for system in content.systems[1:3])


def test_the_newest_configuration_and_run_count(store):
    old = {"config_hash": "0" * 64}
    store.add(LADDER[0], right(N, 100), tags=old, start=1)
    store.add(LADDER[0], right(N, 200), start=2)
    store.add(LADDER[0], right(N, 300), start=3)
    content = analysis.load(store.uri)
    assert content.systems[0].accuracies == [0.3]
    notes = " ".join(content.notes)
    assert "1 finished run(s) of another configuration (000000000000) left out" in notes
    assert "1 older run(s) of the same seed left out" in notes
    store.add(LADDER[0], right(N, 400), tags=old, start=4)
    content = analysis.load(store.uri)
    assert content.systems[0].accuracies == [0.4]
    assert "no longer describes" in " ".join(content.notes)


@pytest.mark.parametrize(
    ("status", "told"),
    [("RUNNING", "still going, 7 epochs done"), ("FAILED", "failed, 7"), ("KILLED", "killed, 7")],
)
def test_unfinished_runs_are_said(store, status, told):
    store.add(LADDER[0], right(N, 700))
    store.add(LADDER[1], right(N, 800), history=curve(7, 0.5, 0.4), status=status)
    content = analysis.load(store.uri)
    assert content.systems[1].waiting.startswith(told)
    folder = output.write(content, store.folder / "out")
    cells = read(folder)
    assert cells.records("progression")[LADDER[1]]["reproduced"].startswith(told)
    assert told.split(",")[0] in str(cells.tables["unfinished"])
    judged = {j.claim.id: j for j in content.claims}
    assert told.split(",")[0] in judged["augmentation-train"].evidence


def test_only_a_run_still_going(store):
    store.add(LADDER[0], right(N, 700), history=curve(2, 0.5, 0.4), status="RUNNING")
    folder = output.build(store.uri, store.folder / "out")
    assert "None of the 5 rungs has a finished run yet" in (folder / output.PAGE).read_text()


def test_deleted_artifacts_leave_a_gap(store):
    run_id = store.add(LADDER[0], right(N, 700))
    other = store.add(LADDER[1], right(N, 850))
    store.artifact(run_id, "test_probabilities.npy").unlink()
    store.artifact(run_id, "mistakes.png").unlink()
    store.artifact(other, "test_labels.npy").write_bytes(b"no array")
    store.artifact(other, "confusion_matrix.csv").unlink()
    store.artifact(other, "experiment.yaml").unlink()
    content = analysis.load(store.uri)
    assert content.systems[0].interval == pytest.approx(
        stats.binomtest(700, N).proportion_ci(method="wilson")
    )
    step = content.steps[0]
    assert step.gain == pytest.approx(0.15)
    assert math.isnan(step.p)
    assert "predictions are gone" in step.basis
    folder = output.write(content, store.folder / "out")
    text = (folder / output.PAGE).read_text()
    assert "test_probabilities.npy is gone" in text
    assert "test_labels.npy is damaged" in text
    assert "No run shown has predictions" in text
    judged = {j.claim.id: j for j in content.claims}["augmentation-gain"]
    half = 1.96 * math.sqrt(0.7 * 0.3 / N + 0.85 * 0.15 / N)
    assert (judged.low, judged.high) == pytest.approx((0.15 - half, 0.15 + half))
    assert "unpaired" in judged.evidence


def test_a_run_without_curves_or_figures_of_its_own(store):
    store.add(LADDER[0], right(N, 700), history=curve(25, 0.9, 0.8).iloc[:0])
    text = (output.build(store.uri, store.folder / "out") / output.PAGE).read_text()
    assert "The run recorded no curves." in text


# --- output ------------------------------------------------------------------------------------

HOSTILE = ("<script>alert(1)</script>", "100%_a&b", "$x^2$ {\\frac", "a|b`c`[d](e)*f*", "[z]")


def test_hostile_names_break_nothing(store):
    classes = (*HOSTILE, *CLASSES[len(HOSTILE) :])
    for seed, name in enumerate(HOSTILE):
        store.add(
            name,
            right(N, 700 + seed),
            like=LADDER[0],
            title=name,
            dataset=HOSTILE[0],
            classes=classes,
            tags={"device": name},
        )
    folder = output.build(store.uri, store.folder / "out")
    cells = read(folder)
    assert not cells.problems
    assert set(HOSTILE) <= set(cells.records("progression"))
    assert set(HOSTILE) <= set(cells.records("classes"))
    assert "<script" not in (folder / output.PAGE).read_text()
    for path in (folder / "tables").glob("*.md"):
        text = path.read_text()
        assert "<script" not in text
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, path
    for path in (folder / "tables").glob("*.tex"):
        body = path.read_text().partition(r"\midrule")[2].partition(r"\bottomrule")[0]
        for row in body.strip().splitlines():
            assert not re.search(r"(?<!\\)[%$#_^~]", row), path
            assert not row.lstrip().startswith("[")
        assert len({len(re.findall(r"(?<!\\)&", r)) for r in body.strip().splitlines()}) == 1
    assert r"100\%\_a\&b" in (folder / "tables" / "progression.tex").read_text()
    assert len(list((folder / "figures").glob("curves_*.svg"))) == len(HOSTILE)


def test_page_stands_alone(full):
    cells = read(full[1])
    assert not cells.problems
    text = (full[1] / output.PAGE).read_text()
    assert "url(" not in text
    assert "@import" not in text
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert text.count("<img") == text.count('alt="')


def test_files_come_in_every_form(full):
    files = {p.relative_to(full[1]).as_posix() for p in full[1].rglob("*") if p.is_file()}
    assert set(json.loads((full[1] / "manifest.json").read_text())["files"]) == files - {
        "manifest.json"
    }
    for name in ("progression", "claims", "steps", "residual_vs_vgg", "power", "assumptions"):
        assert {f"tables/{name}.{suffix}" for suffix in ("md", "csv", "tex")} <= files
    for name in ("progression", "confusion_matrix", *(f"curves_{rung}" for rung in LADDER)):
        assert {f"figures/{name}.svg", f"figures/{name}.png"} <= files


def test_a_report_is_replaced_and_nothing_else_is(store):
    store.add(LADDER[0], right(N, 700))
    out = store.folder / "reports" / "latest"
    output.build(store.uri, out)
    store.add(LADDER[1], right(N, 800))
    output.build(store.uri, out)
    assert "80.0 %" in (out / output.PAGE).read_text()
    assert [p.name for p in out.parent.iterdir()] == ["latest"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        output.build(store.uri, out)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="is not a folder"):
        output.build(store.uri, out / "notes.txt")


def test_a_failure_leaves_the_old_report(store, monkeypatch):
    store.add(LADDER[0], right(N, 700))
    out = store.folder / "reports" / "latest"
    output.build(store.uri, out)
    before = (out / output.PAGE).read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "render", fail)
    with pytest.raises(UserError, match="No space left"):
        output.build(store.uri, out)
    assert (out / output.PAGE).read_bytes() == before
    assert [p.name for p in out.parent.iterdir()] == ["latest"]


def test_the_parent_run_holds_the_report(full):
    store, folder = full
    parent = store.parent()
    output.attach(store.uri, parent, folder)
    names = {a.path for a in store.client.list_artifacts(parent, "report")}
    assert names == {f"report/{n}" for n in ("report.html", "progression.png", "progression.svg")}


def test_the_runner_s_table(two_seeds):
    store, counts = two_seeds
    console = Console(record=True, width=120)
    console.print(summary.progression(analysis.load(store.uri), named=LADDER[:3]))
    text = console.export_text()
    means = [np.mean(counts[name]) / N for name in LADDER[:2]]
    assert f"{100 * means[0]:.1f} %" in text
    assert f"{100 * (means[1] - means[0]):+.1f}" in text
    assert "(3 seeds)" in text
    assert "not run" in text  # rung 3 was asked for; rungs 4 and 5 were not
    assert "5 + deeper" not in text


# --- command line ------------------------------------------------------------------------------


def report(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "report", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
    )


def fails_in_one_line(result, *told):
    assert result.returncode == 2, result
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    for text in told:
        assert text in result.stderr


def test_missing_and_empty_stores(tmp_path, empty):
    database = tmp_path / "mlflow.db"
    uri = f"sqlite:///{database}"
    with pytest.raises(UserError, match=r"nothing was run yet: .* python runner\.py"):
        output.build(uri, tmp_path / "out")
    database.touch()
    fails_in_one_line(
        report("--tracking-uri", uri, "--out", tmp_path / "out"),
        "nothing was run yet",
        "runner.py --ladder all",
    )
    assert database.stat().st_size == 0
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]  # and no mlruns/
    store = Store.copy(empty, tmp_path)
    with pytest.raises(UserError, match="no experiment 'resnet-ladder'"):
        output.build(store.uri, tmp_path / "out")
    assert store.experiment_id
    with pytest.raises(UserError, match="has no runs"):
        output.build(store.uri, tmp_path / "out")


def test_corrupt_stores(tmp_path, two_seeds):
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"this is no database " * 100)
    uri = f"sqlite:///{database}"
    fails_in_one_line(report("--tracking-uri", uri), "is not a database of MLflow's")
    good = (two_seeds[0].folder / "mlflow.db").read_bytes()
    database.write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError):
        output.build(uri, tmp_path / "out")
    database.write_bytes(good[:8192] + b"\xff" * (len(good) - 8192))
    with pytest.raises(UserError):
        output.build(uri, tmp_path / "out")
    with pytest.raises(UserError):
        output.build("gopher://host", tmp_path / "out")


def test_command_line(two_seeds, tmp_path):
    uri = two_seeds[0].uri
    result = report("--tracking-uri", uri, "--out", tmp_path / "out")
    assert result.returncode == 0, result
    assert result.stderr == ""
    assert str(tmp_path / "out" / "report.html") in result.stdout
    result = report("--tracking-uri", uri, "--summary")
    assert result.returncode == 0
    assert "72.5 %" in result.stdout
    assert "augmentation-gain" in result.stdout
    fails_in_one_line(report("--tracking-uri", uri, "--profile", "quick"), "no runs match")


def test_no_training_library_is_loaded():
    code = (
        "import sys, report.output, report.summary, report.__main__\n"
        "sys.exit(bool({'keras', 'tensorflow', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_five_rungs_with_five_seeds(store):
    for rung in LADDER:
        for seed in range(5):
            store.add(rung, right(10_000, 8000, seed), seed=seed, history=curve(75, 0.9, 0.8))
    folder = output.build(store.uri, store.folder / "out")
    assert len(read(folder).records("runs")) == 25


def test_selection_states():
    assert selection.state("RUNNING") == "still going"
    assert selection.state("KILLED") == "killed"
