"""The report, on known runs in a real MLflow store; every number against its own computation."""

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_store import CLASSES, FINGERPRINT, LADDER, TRUTH, Store, curve, labels, right
from rich.console import Console
from scipy import stats
from statsmodels.regression.linear_model import WLS
from statsmodels.stats.weightstats import DescrStatsW

import report as notebook
from docs import screenshots
from report import (
    __main__,
    analysis,
    claims,
    figures,
    output,
    page,
    statistics,
    summary,
    systems,
    tables,
)
from resnet import UserError, cli, config
from resnet import figures as run_figures
from resnet.data import Dataset

N = 1000
STUDY = claims.load_study()
TITLES = {name: config.load(path).title for name, path in config.find().items()}
PARAMS = {name: config.load(path).flat() for name, path in config.find().items()}


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
    for name, accuracy in STUDY.published.items():
        correct = right(10_000, round(10_000 * accuracy))
        store.add(name, correct, history=curves[name])
    return store, build(store)


def build(store, out=None, **chosen):
    return output.write(analysis.load(store.uri, **chosen), out or store.folder / "out")


def scale(counts, n, histories):
    """How far a system's own epochs say that its seeds lie apart, up to the shared factor."""
    jumps = [np.mean(np.diff(h["val_accuracy"].to_numpy()[-10:]) ** 2) / 2 for h in histories]
    floors = [floor(count, n) ** 2 for count in counts]
    return math.sqrt(np.mean(np.add(jumps, floors)))


class Pooled:
    """The shared deviation, computed for itself, of counts of ``N`` and scales by name."""

    def __init__(self, counts, scales):
        self.counts, self.scales = counts, scales
        squares = [
            ((np.array(k) - np.mean(k)) ** 2).sum() / N**2 / scales[name] ** 2
            for name, k in counts.items()
        ]
        self.freedom = sum(len(k) - 1 for k in counts.values())
        self.factor = sum(squares) / self.freedom

    def mean(self, name):
        return np.mean(self.counts[name]) / N

    def half(self, **terms):
        """Of an interval; ``terms`` are the sums of 1/n (and 1 for a further run) by name."""
        variance = sum(self.factor * self.scales[name] ** 2 * n for name, n in terms.items())
        t = stats.t.ppf(0.975, 1 / (1 / self.freedom + 1 / statistics.GUESS))
        return t * math.sqrt(variance)


def pooled(counts):
    """Of :func:`two_seeds`."""
    histories = [curve(25, 0.95, 0.80)] * 3
    return Pooled(counts, {name: scale(k, N, histories) for name, k in counts.items()})


class Cells(HTMLParser):
    """The page's tables by class, as lists of rows of text."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.row, self.cell, self.problems = {}, None, None, []
        self.files, self.scripts = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "table":
            self.rows = self.tables.setdefault(attrs["class"].split()[0], [])
        elif tag == "tr":
            self.row = []
        elif tag in ("td", "th"):
            self.cell = ""
        elif tag == "script":
            self.scripts += 1
        elif tag in ("iframe", "object") or any(a.startswith("on") for a in attrs):
            self.problems.append(tag)
        for name in ("src", "href", "xlink:href"):
            if re.match(r"(tables|figures)/[\w-]+\.(csv|tex|md|svg|png)$", attrs.get(name, "")):
                self.files.append(attrs[name])
            elif not attrs.get(name, "#").startswith(("#", "data:")):
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


def test_one_seed_decides_nothing_about_an_accuracy(full):
    _, folder = full
    shown, raw = read(folder).records("progression"), csv(folder, "progression", "rung")
    by_run = csv(folder, "runs", "rung")
    for name, accuracy in STUDY.published.items():
        k = round(10_000 * accuracy)
        row, cells = raw.loc[name], shown[f"{config.short(name)} {TITLES[name]}"]
        assert row["reproduced"] == pytest.approx(k / 10_000)
        assert row[["interval_low", "further_low", "tolerance_low", "deviation"]].isna().all()
        assert row["verdict"] == "undecided"
        assert cells["published"] == cells["reproduced"] == f"{100 * accuracy:.1f} %"
        assert cells["95 % interval"] == "-\n1 seed"
        assert cells["parameters"] == "316,394\n53.98 M mult-adds"
        assert row["seed_floor"] == pytest.approx(floor(k, 10_000))
        images = stats.binomtest(k, 10_000).proportion_ci(method="wilson")
        found = by_run.loc[name, ["images_interval_low", "images_interval_high"]]
        assert tuple(found) == pytest.approx(tuple(images))
    last = shown["5 + deeper + dropout"]
    assert last["training"] == "75 epochs\n1 h 16 min"
    assert "training.epochs: 50 -> 75" in last["what changed"]
    assert "model.identity_blocks: [7, 3, 1] -> [7, 5, 2]" in last["what changed"]


def floor(right, n):
    return (
        math.sqrt(right * TRUTH[0] * (1 - TRUTH[0]) + (n - right) * TRUTH[1] * (1 - TRUTH[1])) / n
    )


def test_several_seeds_progression(two_seeds):
    store, counts = two_seeds
    content = analysis.load(store.uri)
    table = tables.progression(content).frame.set_index("rung")
    known = pooled(counts)
    assert content.deviation == f"{math.sqrt(known.factor):.2f}, 4 degrees of freedom"
    for name, count in counts.items():
        row, published, mean = table.loc[name], STUDY.published[name], known.mean(name)
        half, further = known.half(**{name: 1 / 3}), known.half(**{name: 1 + 1 / 3})
        assert row["reproduced"] == pytest.approx(mean)
        assert (row["interval_low"], row["interval_high"]) == pytest.approx(
            (mean - half, mean + half)
        )
        assert (row["further_low"], row["further_high"]) == pytest.approx(
            (mean - further, mean + further)
        )
        assert row["evidence"] == "3 seeds"
        assert row["published_is"] == "inside"
        assert row["deviation"] == pytest.approx(math.sqrt(known.factor) * known.scales[name])
        assert row["own_deviation"] == pytest.approx(np.std(np.array(count) / N, ddof=1))
        off = abs(mean - published)
        assert (row["tolerance_low"], row["tolerance_high"]) == pytest.approx(
            (max(off - half, 0), off + half)
        )
        assert row["seed_floor"] == pytest.approx(
            math.sqrt(np.mean([floor(k, N) ** 2 for k in count]))
        )
    assert list(table["verdict"][2:]) == ["not run"] * 4
    assert [s.waiting for s in content.systems[2:]] == ["not run"] * 4


def test_the_tolerances_are_where_the_verdict_turns(two_seeds):
    for system in analysis.load(two_seeds[0].uri).systems[:2]:
        fails, holds = system.tolerances
        for tolerance, verdict in (
            (holds * 1.0001, "holds"),
            (holds * 0.9999, "undecided"),
            (fails * 0.9999, "fails as assumed" if system.assumed else "fails"),
        ):
            if tolerance:
                assert replace(system, tolerance=tolerance).verdict == verdict


def samples(*rows):
    """By name, systems of accuracies and a scale."""
    return {
        f"s{i}": statistics.Sample(dict(enumerate(values)), scale)
        for i, (values, scale) in enumerate(rows)
    }


def test_the_shared_deviation_is_a_weighted_analysis_of_variance():
    rng = np.random.default_rng(0)
    rows = [(rng.normal(0.8, d, n), d) for d, n in ((0.01, 3), (0.002, 2), (0.02, 4), (0.03, 1))]
    shared = statistics.Shared.of(samples(*rows))
    assert (shared.freedom, shared.own) == (6, frozenset())
    names = np.repeat(range(len(rows)), [len(values) for values, _ in rows])
    y = np.concatenate([values for values, _ in rows])
    weights = np.concatenate([np.full(len(v), d**-2) for v, d in rows])
    fit = WLS(y, pd.get_dummies(names).to_numpy(float), weights=weights).fit()
    assert shared.factor == pytest.approx(fit.scale)
    alone = shared.estimate("s3", samples(*rows)["s3"])
    assert math.sqrt(alone.variance) == pytest.approx(0.03 * math.sqrt(fit.scale))


def test_below_four_degrees_of_freedom_nothing_is_known():
    close = (0.8, 0.801)
    for rows, known in (([close] * 3, False), ([close] * 4, True), ([close] * 3 + [(0.8,)], False)):
        found = samples(*((values, 0.01) for values in rows))
        shared = statistics.Shared.of(found)
        low, _ = statistics.contrast([(1, shared.estimate("s0", found["s0"]))]).interval()
        assert math.isnan(low) is not known
    # nor where no seed differs from another: they would all be points
    found = samples(*[((0.8, 0.8), 0.01)] * 6)
    same = statistics.Shared.of(found).estimate("s0", found["s0"])
    assert math.isnan(statistics.contrast([(1, same)]).interval()[0])
    assert math.isnan(statistics.contrast([(1, same)]).p)


def test_a_row_whose_seeds_contradict_the_others_goes_by_its_own():
    calm = [((0.8, 0.81, 0.79), 0.01)] * 4
    wild = (0.7, 0.9, 0.1, 0.8, 0.75)
    found = samples(*calm, (wild, 0.01))
    shared = statistics.Shared.of(found)
    assert shared.own == {"s4"}
    assert shared.freedom == 8
    assert shared.factor == pytest.approx(1)
    low, high = statistics.contrast([(1, shared.estimate("s4", found["s4"]))]).interval()
    assert (low, high) == pytest.approx(DescrStatsW(wild).tconfint_mean())
    # its gain over another has Satterthwaite's degrees of freedom
    gain = statistics.gain(shared.estimate("s0", found["s0"]), shared.estimate("s4", found["s4"]))
    own, other = np.var(wild, ddof=1) / 5, 0.01**2 / 3
    shared_freedom = 1 / (1 / 8 + 1 / statistics.GUESS)
    freedom = (own + other) ** 2 / (own**2 / 4 + other**2 / shared_freedom)
    assert (gain.error, gain.freedom) == pytest.approx((math.sqrt(own + other), freedom))
    # two that agree by chance do not go by their own: that would be firmer
    assert not statistics.Shared.of(samples(*calm, ((0.8, 0.8), 0.01))).own


def test_pairs_are_used_only_if_they_are_correlated():
    base = np.array([0.80, 0.82, 0.79, 0.83, 0.81])
    together, apart = base + 0.05 + [0.001, -0.001, 0, 0.001, 0], base[::-1] + 0.05
    for after, paired in ((together, True), (apart, False)):
        found = samples((base, 0.01), (after, 0.01), ((0.7, 0.71), 0.01))
        shared = statistics.Shared.of(found)
        gain = statistics.gain(*(shared.estimate(name, found[name]) for name in ("s0", "s1")))
        assert gain.paired is paired
        assert gain.value == pytest.approx(0.05, abs=1e-3)
        if paired:
            expected = DescrStatsW(after - base)
            assert gain.interval() == pytest.approx(expected.tconfint_mean())
            assert gain.p == pytest.approx(expected.ttest_mean(0)[1])


def test_four_pairs_are_never_used():
    base = np.array([0.80, 0.82, 0.79, 0.83])
    found = samples((base, 0.01), (base + 0.05, 0.01))
    shared = statistics.Shared.of(found)
    assert not statistics.gain(*(shared.estimate(name, found[name]) for name in found)).paired


ROWS = st.lists(
    st.tuples(
        st.lists(st.floats(0.7, 0.9), min_size=1, max_size=5),
        st.floats(0.002, 0.02),
    ),
    min_size=2,
    max_size=6,
)


@given(ROWS, st.floats(-0.2, 0.2))
def test_the_interval_and_the_test_never_contradict_each_other(rows, zero):
    """Without zero in it p is under 5 %."""
    found = samples(*rows)
    shared = statistics.Shared.of(found)
    for name, sample in found.items():
        known = statistics.contrast([(1, shared.estimate(name, sample))])
        off = known._replace(value=known.value - 0.8 - zero)
        low, high = off.interval()
        if not math.isnan(low) and min(abs(low), abs(high)) > 1e-9:
            assert (low > 0 or high < 0) == (off.p < 0.05)
        if abs(off.value) > 1e-9 and not math.isnan(low):
            assert (off.above > 0.5) == (off.value > 0)


@given(ROWS, st.integers(0, 5), st.floats(0.6, 1.0), st.floats(0.001, 0.1))
@settings(max_examples=300, deadline=None)
def test_a_run_at_the_mean_of_its_system_never_makes_a_verdict_less_firm(rows, at, middle, room):
    """Nor another system's, unless a system turns out to go by its own seeds."""
    name = f"s{at % len(rows)}"
    before = samples(*rows)
    values = before[name].values
    mean = float(np.mean([*values.values()]))
    after = before | {name: before[name]._replace(values=values | {len(values): mean})}
    bound = claims.Bound(min=middle - room, max=middle + room)
    (old, was), (new, now) = (
        (
            {
                name: bound.judge(*statistics.contrast([(1, e)]).interval())
                for name in found
                for e in [shared.estimate(name, found[name])]
            },
            shared,
        )
        for found in (before, after)
        for shared in [statistics.Shared.of(found)]
    )
    if was.own == now.own:
        assert not firmer(old, new)
    elif name not in now.own - was.own:
        assert not firmer({name: old[name]}, {name: new[name]})
    assert name not in now.own - was.own


def test_a_further_run_lies_where_it_is_said_to():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(1000):
        found = samples(*((rng.normal(0, d, 3), d) for d in (0.01, 0.02, 0.01, 0.03)))
        shared = statistics.Shared.of(found)
        last = shared.estimate("s3", found["s3"])
        low, high = statistics.contrast([(1, last)], one_more=True).interval()
        inside.append(low <= rng.normal(0, 0.03) <= high)
    assert 0.93 <= np.mean(inside) <= 0.99


def test_epochs_tell_how_far_a_network_jumps_about(two_seeds):
    run = made_run(LADDER[1], 0, 80, 20)
    val = run.history["val_accuracy"].to_numpy()
    assert run.jumps == pytest.approx(np.mean(np.diff(val[-10:]) ** 2) / 2)
    late = replace(run, metrics=run.metrics | {"tested_epoch": 4.0})  # before the drop
    assert late.jumps == pytest.approx(np.mean(np.diff(val[9:19]) ** 2) / 2)
    few = replace(run, history=curve(30, 0.8, 0.7, drops=(29,)))  # two epochs at that rate
    last = few.history["val_accuracy"].to_numpy()[-10:]
    assert few.jumps == pytest.approx(np.mean(np.diff(last) ** 2) / 2)
    assert math.isnan(replace(run, metrics={**run.metrics, "tested_epoch": math.nan}).jumps)
    once = replace(run, history=run.history[:1], metrics={"epochs_run": 1.0, "tested_epoch": 1.0})
    assert math.isnan(once.jumps)
    assert run.lacks == ""
    assert once.lacks == "test accuracy, curve of validation accuracy"


def test_the_floor_is_what_independent_errors_give():
    generator = np.random.default_rng(0)
    truth = generator.random(500)
    seeds = (generator.random((20_000, 500)) < truth).mean(axis=1)
    assert statistics.seed_floor(truth) == pytest.approx(seeds.std(), rel=0.02)


def test_mcnemar_agreement_and_holm(full):
    _, folder = full
    raw = csv(folder, "steps", "to")
    published = STUDY.published
    p_values = []
    for before, after in pairwise(LADDER):
        a, b = (right(10_000, round(10_000 * published[n])) for n in (before, after))
        lost, gained = (a & ~b).sum(), (b & ~a).sum()
        p = stats.binomtest(int(gained), int(gained + lost)).pvalue
        p_values.append(p)
        row = raw.loc[after]
        assert row["mcnemar_p"] == pytest.approx(p)
        assert (row["newly_right"], row["newly_wrong"]) == (gained, lost)
        assert row["agreement"] == pytest.approx((a == b).mean())  # a miss is always the next class
        assert row["gain"] == pytest.approx(published[after] - published[before])
        # of recipes one seed says nothing
        assert row[["interval_low", "p", "p_holm", "wins"]].isna().all()


def test_steps_over_seeds(two_seeds):
    store, counts = two_seeds
    step, known = analysis.load(store.uri).steps[0], pooled(counts)
    gains = (np.array(counts[LADDER[1]]) - counts[LADDER[0]]) / N
    assert step.gains == pytest.approx(gains)
    assert step.gain == pytest.approx(gains.mean())
    half = known.half(**dict.fromkeys(LADDER[:2], 1 / 3))
    assert step.interval == pytest.approx((gains.mean() - half, gains.mean() + half))
    freedom = 1 / (1 / 4 + 1 / statistics.GUESS)
    error = half / stats.t.ppf(0.975, freedom)
    assert step.p == pytest.approx(2 * stats.t.sf(gains.mean() / error, freedom))
    assert step.wins == pytest.approx(stats.t.cdf(gains.mean() / (2 * error), freedom))
    assert step.together("deviation") == pytest.approx(error * math.sqrt(3))
    per_seed = []
    for seed in range(3):
        a, b = (right(N, counts[name][seed], seed) for name in LADDER[:2])
        lost, gained = int((a & ~b).sum()), int((b & ~a).sum())
        per_seed.append(stats.binomtest(gained, gained + lost).pvalue)
    assert step.mcnemar_p == pytest.approx(np.median(per_seed))


def test_holm_is_over_the_steps(two_seeds):
    content = analysis.load(two_seeds[0].uri)
    p = 0.01, 0.2, 0.03
    steps = [
        replace(content.steps[0], after=replace(content.systems[1], name=str(i)), p=value)
        for i, value in enumerate(p)
    ]
    assert systems.holm(steps) == pytest.approx({"0": 3 * p[0], "2": 2 * p[2], "1": p[1]})


@pytest.mark.parametrize(("gain", "deviation"), [(0.005, 0.003), (-0.005, 0.005), (0.01, 0.006)])
def test_power_is_that_of_the_shared_deviation(gain, deviation):
    def power(n):
        freedom = 1 / (1 / (6 * (n - 1)) + 1 / statistics.GUESS)
        shift, limit = abs(gain) / deviation * math.sqrt(n), stats.t.isf(0.025, freedom)
        return stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift)

    n = statistics.seeds_needed(gain, deviation**2, 6)
    assert power(n) >= 0.8
    assert n > 2
    assert power(n - 1) < 0.8


def test_power_at_the_edges():
    assert statistics.seeds_needed(0.0, 1e-4, 6) is None
    assert statistics.seeds_needed(0.01, math.nan, 6) is None
    assert statistics.seeds_needed(math.nan, 1e-4, 6) is None
    assert statistics.seeds_needed(0.01, 0.0, 6) == 2
    assert statistics.seeds_needed(0.01, 0.0, 2) == 3  # two systems have two degrees at two seeds
    assert statistics.seeds_needed(1e-6, 1e-4, 6) is None
    assert statistics.seeds_needed(0.9, 1e-18, 6) == 2


def test_the_power_table(two_seeds, full):
    table, known = tables.power(analysis.load(two_seeds[0].uri)), pooled(two_seeds[1])
    row = table.frame.iloc[0]
    deviation = math.sqrt(known.factor) * math.hypot(*known.scales.values())
    assert row["deviation"] == pytest.approx(deviation)
    assert row["seeds_needed"] == statistics.seeds_needed(0.829 - 0.723, deviation**2, 2)
    assert table.shown()[2][:3] == ["2 → 3 + deeper + early stopping", "+0.5", "-"]  # 3 was not run
    row = csv(full[1], "power", "to").loc[LADDER[2]]
    floors = [floor(round(10_000 * STUDY.published[n]), 10_000) for n in LADDER[1:3]]
    assert row["floor"] == pytest.approx(math.hypot(*floors))
    assert row["seeds_by_floor"] == statistics.seeds_needed(0.005, row["floor"] ** 2, 6)
    assert math.isnan(row["deviation"])


def test_confusion_and_accuracy_by_class(full):
    _, folder = full
    truth, published = labels(10_000), STUDY.published
    tidy = csv(folder, "per_class", ["rung", "class"])
    heat = csv(folder, "classes", "class")
    for name, accuracy in published.items():
        correct = right(10_000, round(10_000 * accuracy))
        for k, label in enumerate(CLASSES):
            expected = correct[truth == k].mean()
            assert tidy.loc[(name, label), "accuracy"] == pytest.approx(expected)
            assert tidy.loc[(name, label), "images"] == (truth == k).sum()
            assert heat.loc[label, name] == pytest.approx(expected)
    counts = csv(folder, "confusion_matrix", "true class")
    correct = right(10_000, 8920)  # of the best rung
    assert counts.loc["cat", "cat"] == (correct & (truth == 3)).sum()
    assert counts.loc["cat", "deer"] == (~correct & (truth == 3)).sum()
    assert counts.to_numpy().sum() == 10_000
    text = (folder / output.PAGE).read_text()
    wrong = counts.loc["cat", "deer"]
    assert (
        f'data-row="3" data-column="4" data-size="10" data-told="true cat, predicted deer: {wrong}'
        in text
    )


def test_numbers_for_others(full, two_seeds):
    _, folder = full
    tidy = csv(folder, "curves", ["rung", "epoch"])
    expected = curve(50, 0.92, 0.90, drops=(23, 40))
    for key in expected:
        assert tidy.loc[LADDER[3], key].to_numpy() == pytest.approx(expected[key].to_numpy())
    for path in (folder / "tables").glob("*.csv"):
        keys = pd.read_csv(path).columns
        if path.stem not in (
            "confusion_matrix",
            "classes",
            "networks",
        ):  # which name classes, rungs
            assert all(re.fullmatch(r"[a-z][a-z0-9_]*", key) for key in keys), path
    ran = csv(folder, "runs", "rung")
    assert ran["train_seconds"].to_dict() == {
        name: 61.0 * {LADDER[3]: 50, LADDER[4]: 75}.get(name, 25) for name in ran.index
    }
    assert ran["test_accuracy"].to_dict() == pytest.approx(STUDY.published)
    for name in ("progression", "claims", "steps", "power", "runs"):
        numbers = pd.read_csv(folder / "tables" / f"{name}.csv")
        shown = getattr(tables, {"claims": "judged"}.get(name, name), None)
        assert shown is None or numbers.select_dtypes("number").shape[1] >= 3
    results = notebook.results(two_seeds[0].uri)
    assert sorted(results["test_accuracy"]) == sorted(
        count / N for counts in two_seeds[1].values() for count in counts
    )
    assert notebook.curves(two_seeds[0].uri).groupby(["rung", "seed"]).size().tolist() == [25] * 6


def test_the_networks_side_by_side(full, two_seeds):
    cells = read(full[1]).records("networks")
    heading = ["5 + deeper + dropout", "vgg VGG-like network"]
    assert [cells["reproduced"][h] for h in heading] == ["89.2 %", "87.9 %"]
    assert [cells["model.dropout"][h] for h in heading] == ["0.5", "0.2"]
    shown = {row[0]: row[1:] for row in tables.networks(analysis.load(two_seeds[0].uri)).shown()}
    assert shown["reproduced"] == ["not run", "not run"]
    assert shown["model.filters"] == ["-", "[32, 64, 128]"]  # which the YAML knows all the same
    assert shown["model.identity_blocks"] == ["[7, 5, 2]", "-"]


def test_provenance_and_assumptions(full):
    _, folder = full
    cells = read(folder)
    for row in list(cells.records("runs").values()):
        again = r"\.venv/bin/python runner\.py --ladder \w+ --seed 0 --cpus-per-run 4 --fresh"
        assert re.fullmatch(again, row["again with"])
    facts = {name: row["value"] for name, row in cells.records("environment").items()}
    assert facts["fingerprint"] == FINGERPRINT
    assert facts["training and test images"] == "50,000 and 10,000"
    assert facts["keras"] == "3.15.1"
    assert (facts["threads"], facts["instruction set"]) == ("4", "avx2")
    assert facts["SHA-256 of claims.yaml as a run began"] == "1" * 64
    assert "resumed elsewhere" not in facts
    assert facts["training time in all"] == tables.duration(61.0 * (25 * 4 + 50 + 75))
    assert "training.learning_rate" in cells.records("assumptions")
    assert "min_lr" in cells.records("contradictions")


def test_a_run_that_went_on_elsewhere_says_so(store):
    store.add(LADDER[0], right(N, 700), tags={"resumed_elsewhere": "avx2 instead of avx512"})
    shown = dict(tables.environment(analysis.load(store.uri)).shown()[1:])
    assert shown["resumed elsewhere"] == "avx2 instead of avx512"


def test_a_changed_value_loses_its_reason():
    experiment = config.load(config.find()[LADDER[0]])
    assert "model.batch_norm_momentum" in experiment.assumed
    changed = config.change(experiment, {"model": {"batch_norm_momentum": 0.9}}, "--set")
    assert set(experiment.assumed) - set(changed.assumed) == {"model.batch_norm_momentum"}
    same = config.change(experiment, {"model": {"batch_norm_momentum": 0.99}}, "--set")
    assert same.assumed == experiment.assumed
    vgg = config.load(config.find()["vgg"])
    block = {"training": {"early_stopping": {"patience": 3}}}
    assert "training.early_stopping" not in config.change(vgg, block, "--set").assumed


# --- claims ------------------------------------------------------------------------------------


def test_what_one_run_of_the_study_itself_can_tell(full):
    _, folder = full
    raw = csv(folder, "claims", "claim")
    assert len(raw) == len(STUDY.claims)
    assert set(raw["verdict"]) == {"undecided"}
    assert raw.loc["augmentation-gap", "value"] == pytest.approx(
        np.mean(np.diff(curve(25, 0.85, 0.83)[["val_accuracy", "accuracy"]].tail(3)))
        / np.mean(np.diff(curve(25, 0.98, 0.72)[["val_accuracy", "accuracy"]].tail(3)))
    )
    assert raw.loc["schedule-drop", "value"] == 23
    assert raw.loc["augmentation-largest", "value"] == pytest.approx(0.106 - 0.039)
    assert raw.loc["schedule-drop", "evidence"] == (
        "1 of 1 seed inside the bound, p 0.5 (binomial); the value is inside the bound"
    )
    assert raw.loc["augmentation-largest", "evidence"] == (
        "1, 1, 1, 1, 1 seeds: the deviation between seeds is not known; "
        "the value is inside the bound"
    )
    assert raw.loc["augmentation-largest", "run_ids"].count(" ") == 4


def claim(**changes):
    entry = {
        "id": "x",
        "rung": LADDER[1],
        "text": "a claim",
        "quantity": "test_accuracy",
        "bound": {"min": 0.8},
    }
    return claims.Claim.model_validate(entry | changes)


def evidence(store, **changes):
    content = analysis.load(store.uri)
    estimates = {system.name: system.estimate for system in content.systems}
    return claims.Evidence(tuple(content.runs), list(LADDER), estimates, **changes)


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [({"min": 0.80}, "holds"), ({"max": 0.80}, "fails"), ({"min": 0.834}, "undecided")],
)
def test_three_outcomes_over_seeds(two_seeds, bound, verdict):
    store, counts = two_seeds
    judged = claims.judge(claim(bound=bound), evidence(store))
    mean, half = pooled(counts).mean(LADDER[1]), pooled(counts).half(**{LADDER[1]: 1 / 3})
    assert (judged.value, *judged.interval) == pytest.approx((mean, mean - half, mean + half))
    assert judged.verdict == verdict
    assert len(judged.runs) == 3
    assert "3 seeds: deviation between seeds, 2.4 degrees of freedom" in judged.evidence


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [({"min": 0.10}, "undecided"), ({"min": 0.05}, "holds"), ({"max": 0.05}, "fails")],
)
def test_three_outcomes_of_a_gain(two_seeds, bound, verdict):
    store, _ = two_seeds
    gain = claim(quantity="test_gain", against=LADDER[0], bound=bound)
    judged = claims.judge(gain, evidence(store))
    step = analysis.load(store.uri).steps[0]
    assert (judged.value, judged.interval) == (step.gain, step.interval)
    assert judged.verdict == verdict


def test_what_fails_may_be_what_was_assumed(two_seeds):
    lower = claim(bound={"max": 0.80})
    why = {LADDER[1]: "assumed: epochs", LADDER[2]: "assumed: filters"}
    judged = claims.judge(lower, evidence(two_seeds[0], assumed=why))
    assert judged.verdict == "fails as assumed"
    assert judged.evidence.endswith(f"; {LADDER[1]} assumed: epochs")
    assert claims.judge(lower, evidence(two_seeds[0], assumed={LADDER[2]: "x"})).verdict == "fails"


def lead_of(accuracies, scale=0.004):
    """The judged lead of the second rung's gain, of rungs with three seeds each."""
    found = {
        name: statistics.Sample({i: a + d for i, d in enumerate((-0.004, 0, 0.004))}, scale)
        for name, a in zip(LADDER, accuracies, strict=True)
    }
    shared = statistics.Shared.of(found)
    estimates = {name: shared.estimate(name, sample) for name, sample in found.items()}
    every = tuple(made_run(name, seed, 80, 20) for name in LADDER for seed in range(3))
    lead = claim(quantity="gain_lead", bound={"min": 0.0})
    return claims.judge(lead, claims.Evidence(every, list(LADDER), estimates))


def test_which_step_brings_most_is_asked_of_every_rival():
    clear = lead_of((0.70, 0.80, 0.81, 0.84, 0.85))
    assert (clear.verdict, clear.value) == ("holds", pytest.approx(0.07))
    # steps 2, 3, 4, 5 less step 1: the least lead decides whether it holds
    t = stats.t.ppf([0.975, 1 - 0.025 / 3], 1 / (1 / 10 + 1 / statistics.GUESS))
    errors = 0.004 * np.sqrt(np.array([6, 4, 4]) / 3)  # the next step shares the rung, twice
    leads = np.array([0.10 - 0.01, 0.10 - 0.03, 0.10 - 0.01])
    assert clear.interval == pytest.approx((min(leads - t[0] * errors), min(leads + t[1] * errors)))
    assert lead_of((0.70, 0.72, 0.80, 0.81, 0.82)).verdict == "fails"
    assert lead_of((0.70, 0.74, 0.75, 0.79, 0.80)).verdict == "undecided"
    # two that are as large, and one that is a little larger: none of them decides
    assert lead_of((0.70, 0.74, 0.78, 0.82, 0.86)).verdict == "undecided"


def test_every_claim_can_hold_fail_and_be_undecided(two_seeds):
    """Each quantity's verdict is the bound's on its interval, whatever the claim."""
    bound = claims.Bound(min=0.1, max=0.2)
    assert bound.judge(0.1, 0.2) == "holds"
    assert bound.judge(0.05, 0.0999) == bound.judge(0.21, 0.3) == "fails"
    assert bound.judge(0.05, 0.15) == bound.judge(0.15, 0.25) == "undecided"
    assert bound.judge(0.0, 1.0) == bound.judge(math.nan, math.nan) == "undecided"
    measured = evidence(two_seeds[0])
    decided = 0
    for judged in analysis.load(two_seeds[0].uri).claims:
        if judged.claim.rung not in LADDER[:2] or judged.claim.id == "augmentation-largest":
            assert judged.verdict == "not run"
            assert "not run" in judged.evidence
            continue
        low, high = judged.interval
        if math.isnan(low):  # three seeds that agree
            assert judged.verdict == "undecided"
            continue
        decided += 1
        around = {"min": low - 1, "max": high + 1}
        above = {"min": high + 1, "max": high + 2}
        across = {"min": (low + high) / 2, "max": high + 1}
        cases = [(around, "holds"), (above, "fails"), (across, "undecided")]
        for bound, verdict in cases:
            changed = judged.claim.model_copy(update={"bound": claims.Bound.model_validate(bound)})
            assert claims.judge(changed, measured).verdict == verdict
    assert decided >= 3


@pytest.mark.parametrize(
    ("runs", "inside", "verdict"),
    [(1, 1, "undecided"), (4, 4, "undecided"), (5, 5, "holds"), (5, 4, "undecided"),
     (5, 1, "undecided"), (5, 0, "fails"), (8, 7, "holds"), (8, 6, "undecided"), (8, 1, "fails")],
)  # fmt: skip
def test_epochs_are_judged_by_the_share_of_runs(runs, inside, verdict):
    """By the exact binomial test against one half, at 5 % a side; "never" is an epoch like any."""
    within = curve(30, 0.9, 0.8, drops=(20,))
    outside = [curve(30, 0.9, 0.8), curve(30, 0.9, 0.8, drops=(29,))]  # never, and late
    made = [
        replace(
            made_run(LADDER[1], seed, 80, 20),
            history=within if seed < inside else outside[seed % 2],
        )
        for seed in range(runs)
    ]
    measured = claims.Evidence(tuple(made), list(LADDER), {})
    drop = claim(quantity="first_drop_epoch", bound={"min": 18, "max": 28})
    judged = claims.judge(drop, measured)
    assert judged.verdict == verdict
    p = min(stats.binomtest(inside, runs, alternative=side).pvalue for side in ("less", "greater"))
    told = f"{inside} of {runs} seed{'s' * (runs > 1)} inside the bound, p {p:.2g} (binomial)"
    assert judged.evidence.startswith(told)
    assert (verdict != "undecided") == (p <= 0.05)
    never = claim(quantity="first_drop_epoch", bound={"min": 100})
    count = sum("learning_rate" in run.history and run.history is outside[0] for run in made)
    assert f"{count} of {runs} seed" in claims.judge(never, measured).evidence
    shown = tables.shown(judged)
    assert shown[1] == "-"
    assert ("epoch 20" in shown[0], "never" in shown[0]) == (inside > 0, count > 0)


def test_early_stopping_that_never_came_holds_from_five_seeds(store):
    for seed in range(5):
        judged = {j.claim.id: j for j in analysis.load(store.uri).claims} if seed else {}
        assert not judged or judged["early-stop-idle"].verdict == "undecided"
        store.add(LADDER[2], right(N, 800), seed=seed)
    judged = {j.claim.id: j for j in analysis.load(store.uri).claims}["early-stop-idle"]
    assert (judged.verdict, tables.shown(judged)[0]) == ("holds", "never")


def test_other_quantities_take_three_seeds():
    gap = claim(rung=LADDER[0], quantity="final_gap", bound={"min": 0.01})
    for gains, verdict in (((0.03, 0.031), "undecided"), ((0.03, 0.031, 0.032), "holds"),
                           ((0.03, 0.03, 0.03), "undecided")):  # fmt: skip
        made = [
            replace(
                made_run(LADDER[0], seed, 80, 20), history=curve(30, 0.8 + gain, 0.8, drops=(20,))
            )
            for seed, gain in enumerate(gains)
        ]
        judged = claims.judge(gap, claims.Evidence(tuple(made), list(LADDER), {}))
        assert judged.verdict == verdict
        assert ("takes three" in judged.evidence) == (len(gains) == 2)
        if verdict == "holds":
            values = [claims.gap(run) for run in made]
            assert judged.interval == pytest.approx(DescrStatsW(values).tconfint_mean())


def test_slope_ratio(store):
    history = curve(40, 0.9, 0.8, drops=(20,))
    history.loc[:19, "accuracy"] = history.loc[:19, "val_accuracy"] = 0.3 + 0.01 * np.arange(19)
    history.loc[20:, "accuracy"] = history.loc[20:, "val_accuracy"] = 0.7 + 0.002 * np.arange(21)
    flat = claim(quantity="slope_ratio_after_drop", bound={"max": 0.5})
    for seed in range(3):
        history.loc[30, "accuracy"] += 1e-6  # the same in every seed are copies
        store.add(LADDER[1], right(N, 800), seed=seed, history=history)
        judged = claims.judge(flat, evidence(store))
        assert judged.value == pytest.approx(0.2, rel=1e-3)
    assert judged.verdict == "holds"
    # a second drop ends the stretch: the jump there is no slope either
    history.loc[26:, ["accuracy", "val_accuracy"]] += 0.2
    history.loc[26:, "learning_rate"] /= 5
    store.add(LADDER[2], right(N, 800), history=history)
    later = flat.model_copy(update={"rung": LADDER[2]})
    assert claims.judge(later, evidence(store)).value == pytest.approx(0.2)


def test_early_stopping_that_triggered_fails_the_claim(store):
    for seed in range(5):
        store.add(LADDER[2], right(N, 800), seed=seed, metrics={"stopped_epoch": 16.0 + 2 * seed})
    judged = {j.claim.id: j for j in analysis.load(store.uri).claims}["early-stop-idle"]
    assert (judged.verdict, judged.value) == ("fails as assumed", 20.0)
    assert "03_deeper_early_stopping assumed: early stopping restore" in judged.evidence
    assert tables.shown(judged)[0] == "epoch 16, 18, 20, 22, 24"


def test_a_new_claim_needs_only_yaml(full, tmp_path):
    """Also about a rung without a published accuracy; its accuracy is then no verdict."""
    text = (config.EXPERIMENTS / "claims.yaml").read_text()
    path = tmp_path / "claims.yaml"
    added = (
        "claims:\n  - {id: new, rung: vgg, text: new, quantity: test_accuracy, bound: {min: 0.8}}\n"
    )
    path.write_text(text.replace("claims:\n", added, 1).replace("  vgg: 0.879\n", "", 1))
    study = claims.load_study(path)
    assert "vgg" not in study.published
    judged = claims.judge(study.claims[0], evidence(full[0]))
    assert (judged.verdict, judged.value) == ("undecided", 0.879)
    own = systems.System("06_mine", "Mine", math.nan, 0.015, {}, tuple(evidence(full[0]).runs[:1]))
    assert own.verdict == "not comparable"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("quantity: final_gap", "quantity: final_gab", "there is no quantity 'final_gab'"),
        ("bound: {max: 0}", "bound: {}", "min, max or both"),
        ("rung: 05_deeper_dropout", "rung: 05_deper", "there is no experiment '05_deper'"),
        ("id: deeper-gain", "id: early-stop-idle", "stands there twice"),
        ("    against: vgg\n", "", "needs 'against'"),
        ("tolerance: 0.015", "tolerance: lots", "tolerance"),
        ("[data.augmentation]", "[data.augmentations]", "there is no factor 'data.augmentations'"),
        ("  02_augmentation: [", "  01_template: [", "'01_template' is no step of the ladder"),
        ("credited:", "credits:", "credited: Field required"),
        ("seeds: 5", "seeds: 0", "seeds: Input should be greater than or equal to 1"),
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


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=3),
    st.floats(-1, 1).map(lambda x: round(x, 3)),
    st.sampled_from(["accuracy", "points", "ratio"]),
)
def test_values_are_shown_as_they_are_judged(values, limit, unit):
    """On the side of the bound where they lie, whatever the digits that takes."""
    interval = (min(values), max(values))
    for end, bound in (("min", claims.Bound(min=limit)), ("max", claims.Bound(max=limit))):
        scale = 1 if unit == "ratio" else 100
        shown = [
            part.split()[0]
            for value in interval
            for part in tables.to_limits(value, (math.nan, math.nan), bound, unit)[:1]
        ]
        for value, text in zip(interval, shown, strict=True):
            if abs(value - limit) > 1e-7:
                assert (float(text) / scale < limit) == (value < limit), end


def test_the_value_that_was_seen():
    bound = claims.Bound(min=0.1)
    assert tables.to_limits(0.09954, (math.nan,) * 2, bound, "points") == ["+9.95 points", "-"]
    assert tables.to_limits(0.7999, (0.7995, 0.8003), claims.Bound(min=0.8), "accuracy") == [
        "79.99 %",
        "79.95 to 80.03 %",
    ]


# --- less evidence never gives a firmer verdict ------------------------------------------------


def test_without_its_predictions_one_run_leaves_every_accuracy_undecided(store):
    """All rows share one deviation: whoever is left out could have been the one that jumps."""
    for i, counts in enumerate(((700, 701), (830, 831), (835, 836), (870, 873))):
        ids = [store.add(LADDER[i], right(N, k), seed=seed) for seed, k in enumerate(counts)]
    gain = claim(quantity="test_gain", against=LADDER[0], bound={"min": 0.05})
    assert claims.judge(gain, evidence(store)).verdict == "holds"
    assert analysis.load(store.uri).systems[1].verdict == "holds"
    store.artifact(ids[0], "test_predictions.csv").unlink()
    content = analysis.load(store.uri)
    assert {s.verdict for s in content.systems} == {"undecided", "not run"}
    judged = claims.judge(gain, evidence(store))
    assert judged.verdict == "undecided"
    assert "the deviation between seeds is not known" in judged.evidence
    assert all(math.isnan(step.p) for step in content.steps)
    (told,) = (note for note in content.notes if "one deviation" in note)
    assert told.startswith(f"{LADDER[3]}, seed 0 (run {ids[0][:8]}) lacks its predictions: nothing")
    assert told in (build(store) / output.PAGE).read_text()
    store.client.delete_run(ids[0])  # the way out
    assert analysis.load(store.uri).systems[1].verdict == "undecided"  # of three degrees of freedom
    store.add(LADDER[3], right(N, 874), seed=2)
    assert analysis.load(store.uri).systems[1].verdict == "holds"


WEAKER = ("fails as assumed", "fails")


def firmer(with_gap, without):
    """Pairs of verdicts of which the one with the gap says more."""
    return [
        (name, verdict, without[name])
        for name, verdict in with_gap.items()
        if verdict != without[name]
        if verdict.startswith(("holds", "fails")) and (verdict, without[name]) != WEAKER
    ]


def verdicts(content):
    found = {f"rung {s.name}": s.verdict for s in content.systems}
    return found | {j.claim.id: j.verdict for j in content.claims}


SEEDS = st.integers(60, 90).flatmap(
    lambda middle: st.lists(st.integers(middle, middle + 5), min_size=1, max_size=6)
)
KEYS = ("accuracy", "val_accuracy", "learning_rate")


def made_run(rung, seed, percent, drop):
    correct = right(200, 2 * percent, seed)
    history = curve(30, percent / 100 + 0.04, percent / 100, drops=(drop,))
    truth = labels(200)
    return analysis.Run(
        id=f"{rung}{seed}",
        rung=rung,
        title=rung,
        seed=seed,
        begun=pd.Timestamp(0),
        tags={},
        params=PARAMS[rung],
        metrics={
            "test_accuracy": percent / 100,
            "epochs_run": 30.0,
            "stopped_epoch": 0.0,
            "tested_epoch": 30.0,
        },
        history=history.astype(float),
        n_train=50_000,
        source="",
        predictions=pd.DataFrame(
            {
                "label": truth,
                "predicted": np.where(correct, truth, (truth + 1) % 10),
                "truth_probability": np.where(correct, *TRUTH),
            }
        ),
    )


@given(st.data(), st.lists(SEEDS, min_size=5, max_size=5), st.integers(3, 28))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_no_gap_in_a_run_makes_any_verdict_firmer(data, accuracies, drop):
    """Over arbitrary accuracies and seeds, with arbitrary parts of arbitrary runs gone."""
    whole = []
    for rung, values in zip(LADDER, accuracies, strict=True):
        whole += [made_run(rung, seed, v, drop + seed) for seed, v in enumerate(values)]
    gapped = list(whole)
    for i in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)):
        run = gapped[i]
        gap = data.draw(st.sampled_from(["predictions", "metric", "epochs", "end"]))
        if gap == "predictions":
            run = replace(run, predictions=run.predictions[:0])
        elif gap == "metric":
            gone = data.draw(
                st.sampled_from(["test_accuracy", "epochs_run", "stopped_epoch", "tested_epoch"])
            )
            run = replace(run, metrics={k: v for k, v in run.metrics.items() if k != gone})
        elif gap == "epochs":
            epochs = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=30))
            history = run.history.copy()
            history.loc[history.index.isin(epochs), data.draw(st.sampled_from(KEYS))] = np.nan
            run = replace(run, history=history)
        else:
            run = replace(run, history=run.history.iloc[: data.draw(st.integers(0, 29))])
        gapped[i] = run

    def judge(runs):
        of = {
            rung: systems.System(
                name=rung,
                title=rung,
                published=STUDY.published[rung],
                tolerance=0.1,
                params={},
                runs=tuple(run for run in runs if run.rung == rung),
            )
            for rung in LADDER
        }
        shared, _ = analysis._shared(of, frozenset())
        of = {rung: replace(system, shared=shared) for rung, system in of.items()}
        estimates = {rung: system.estimate for rung, system in of.items()}
        measured = claims.Evidence(tuple(runs), STUDY.ladder, estimates)
        found = {c.id: claims.judge(c, measured).verdict for c in STUDY.claims}
        return found | {rung: system.verdict for rung, system in of.items()}

    assert not firmer(judge(gapped), judge(whole))


@pytest.fixture(scope="session")
def shaky(empty, tmp_path_factory):
    """Rungs of two and of three seeds, of which one disagrees with the others; some verdicts."""
    store = Store.copy(empty, tmp_path_factory.mktemp("shaky"))
    for rung, counts in {0: (783, 784), 1: (829, 829, 800), 2: (854, 854, 850)}.items():
        for seed, count in enumerate(counts):
            history = curve(25, 0.85 + 0.02 * (seed == 2), 0.82, drops=(10 + seed,))
            stopped = {"stopped_epoch": 17.0 * (seed == 2)}
            store.add(
                LADDER[rung], right(N, count, seed), seed=seed, history=history, metrics=stopped
            )
    found = verdicts(analysis.load(store.uri))
    assert "fails as assumed" in found.values()
    return store, found


ARTIFACTS = ("test_predictions.csv", "confusion_matrix.csv", "experiment.yaml")
GAPS = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.one_of(
            st.tuples(st.just("file"), st.sampled_from(ARTIFACTS)),
            st.tuples(st.just("cut"), st.sampled_from(ARTIFACTS)),
            st.tuples(
                st.just("column"), st.sampled_from(["label", "predicted", "truth_probability"])
            ),
            st.tuples(
                st.just("tag"),
                st.sampled_from(
                    [*analysis.runs.IDENTITY, "role", "title", "backend", "git_commit"]
                ),
            ),
            st.tuples(
                st.just("metric"),
                st.sampled_from(
                    [*KEYS, "test_accuracy", "epochs_run", "stopped_epoch", "tested_epoch"]
                ),
            ),
            st.tuples(st.just("epoch"), st.sampled_from(KEYS)),
            st.tuples(st.just("data"), st.just("")),
        ),
    ),
    min_size=1,
    max_size=4,
)


def opened(store, gaps, folder):
    """A copy of a store with gaps in it."""
    import sqlite3

    shutil.copytree(store.folder, folder)
    database = sqlite3.connect(folder / "mlflow.db")
    for column, table in (("artifact_uri", "runs"), ("artifact_location", "experiments")):
        database.execute(
            f"UPDATE {table} SET {column} = replace({column}, ?, ?)",
            (str(store.folder), str(folder)),
        )
    ids = [
        row[0]
        for row in database.execute("SELECT run_uuid FROM runs ORDER BY start_time, run_uuid")
    ]
    for at, (kind, name) in gaps:
        run = ids[at % len(ids)]
        path = Store(folder).artifact(run, name)
        if kind == "file":
            path.unlink(missing_ok=True)
        elif kind == "cut" and path.exists():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif kind == "column" and (path := Store(folder).artifact(run, ARTIFACTS[0])).exists():
            try:
                pd.read_csv(path).drop(columns=name, errors="ignore").to_csv(path, index=False)
            except ValueError:
                path.unlink()  # it was cut before
        elif kind == "tag":
            database.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (run, name))
        elif kind == "metric":
            for table in ("metrics", "latest_metrics"):
                database.execute(f"DELETE FROM {table} WHERE run_uuid = ? AND key = ?", (run, name))
        elif kind == "epoch":
            database.execute(
                "DELETE FROM metrics WHERE run_uuid = ? AND key = ? AND step > 20", (run, name)
            )
        elif kind == "data":
            database.execute("DELETE FROM inputs WHERE destination_id = ?", (run,))
    database.commit()
    database.close()
    return Store(folder)


def never_firmer(shaky, gaps):
    store, whole = shaky
    with tempfile.TemporaryDirectory() as folder:
        made = opened(store, gaps, Path(folder) / "copy")
        try:
            content = analysis.load(made.uri)
        except UserError as error:
            assert "nothing was run yet" in str(error)
            return
        assert not firmer(verdicts(content), whole), gaps
        assert page.headline(content)


@given(GAPS)
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
def test_no_gap_in_a_store_makes_any_verdict_firmer(shaky, gaps):
    never_firmer(shaky, gaps)


@pytest.mark.slow
@given(GAPS)
@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
def test_no_gap_of_many_makes_any_verdict_firmer(shaky, gaps):
    never_firmer(shaky, gaps)


@pytest.mark.parametrize("tag", ["seed", "rung", "role", "config_hash"])
def test_a_run_that_may_belong_here_leaves_it_undecided(store, tag):
    """It may be of any row, and be the one that jumps about."""
    ids = [store.add(LADDER[i], right(N, 828 + s), seed=s) for i in (0, 1) for s in range(3)]
    content = analysis.load(store.uri)
    assert [s.verdict for s in content.systems[:2]] == ["fails as assumed", "holds"]
    store.client.delete_tag(ids[2], tag)
    content = analysis.load(store.uri)
    assert [s.verdict for s in content.systems[:2]] == ["undecided", "undecided"]
    of_accuracies = [j for j in content.claims if claims.QUANTITIES[j.claim.quantity].contrasts]
    assert {j.verdict for j in of_accuracies} <= {"undecided", "not run"}
    assert f"lacks the tag {tag!r}" in " ".join(content.notes)


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


@pytest.mark.parametrize(
    ("made", "told", "head"),
    [
        ({"dataset": "pets"}, "on another dataset (pets, not CIFAR-10)", "Not the study's"),
        ({"profile": "quick"}, "in the quick profile", "Machinery check: 2 of 5 rungs ran"),
        ({"modified": "training.epochs=2"}, "with modified settings", "Not the study's"),
    ],
)
def test_what_is_not_the_study_is_not_held_against_it(store, made, told, head):
    for i, count in ((0, 400), (1, 829)):
        store.add(LADDER[i], right(N, count), **made)
    content = analysis.load(store.uri)
    assert {s.verdict for s in content.systems} == {"not comparable", "not run"}
    assert {j.verdict for j in content.claims} == {"not comparable", "not run"}
    assert content.claims[4].value == pytest.approx(
        0.429
    )  # what was measured is shown all the same
    assert page.headline(content).startswith(head)
    assert told in page.headline(content)
    text = (build(store) / output.PAGE).read_text()
    assert told in text
    assert "published (CIFAR-10) †" in text
    assert not re.search(r'class="chip (holds|fails|undecided)', text)
    assert ("--data path/of/pets" in text) == ("dataset" in made)


def test_the_headline_keeps_the_states_apart(two_seeds):
    content = analysis.load(two_seeds[0].uri)
    assert page.headline(content) == (
        "Interim, with 3 of 5 planned seeds a row. The 6 accuracies, within 1.5 points of those "
        "published: 2 undecided, 4 not run. The 19 further claims: 1 holds, 1 fails, 3 undecided "
        "(2 with a value inside the bound), 14 not run."
    )
    assert page.wrong(content) == (
        "Each of 25 verdicts may be wrong with a probability of at most 5 %: once all are decided, "
        "up to 1.25 of them will be, and of the 2 decided here up to 0.1."
    )
    deviations = sorted(100 * s.deviation for s in content.systems[:2])
    assert [tile[:3] for tile in page.tiles(content)[:3]] == [
        ("reproduced", "0 of 6", "2 undecided, 4 not run"),
        ("claims that hold", "1 of 19", "1 holds, 1 fails, 3 undecided, 14 not run"),
        ("seeds a row", "3 of 5", "interim, deviation {:.2f} to {:.2f} points".format(*deviations)),
    ]


def test_once_the_planned_seeds_are_in_nothing_is_interim(two_seeds):
    content = analysis.load(two_seeds[0].uri)
    done = [
        replace(system, runs=(content.systems[0].runs * 2)[:5])
        for system in content.systems
        if system.name in STUDY.published
    ]
    assert not replace(content, systems=tuple(done)).interim
    assert replace(content, systems=(*done[:-1], replace(done[-1], runs=()))).interim
    final = replace(content, systems=tuple(done))
    assert page.headline(final).startswith("The 6 accuracies, within")
    assert page.tiles(final)[2][1] == "5"
    assert page.told(["fails as assumed"] * 2 + ["fails", "holds", "holds"]) == (
        "2 hold, 1 fails, 2 fail as assumed"
    )


def test_modified_runs_are_rerun_as_they_were(store):
    store.add(LADDER[0], right(N, 700), modified="training.epochs=2 model.dropout=0.1")
    content = analysis.load(store.uri)
    assert tables.rerun_command(content.runs[0]) == (
        ".venv/bin/python runner.py --ladder 1 --seed 0 "
        "--cpus-per-run 4 --set training.epochs=2 --set model.dropout=0.1 --fresh"
    )
    assert all(not system.changes for system in content.systems[1:3])
    assert f"--tracking-uri {store.uri}" in tables.report_command(content)


def test_commands_name_images_and_engine_where_they_are_not_the_default(store):
    """The quick profile's images are the digits."""
    store.add(LADDER[0], right(N, 700), profile="quick", tags={"backend": "jax"})
    content = analysis.load(store.uri)
    for command in (tables.rerun_command(content.runs[0]), tables.ablate_command(content, "2")):
        assert command.startswith("KERAS_BACKEND=jax .venv-jax/bin/python runner.py --")
        assert "--profile quick --data cifar10" in command


def test_runs_in_lanes_are_rerun_in_as_many_and_took_their_share_of_the_card(store):
    lanes = {"backend": "jax", "device": "NVIDIA H200", "lanes": "5", "precision": "tf32"}
    for seed in range(2):
        store.add(LADDER[0], right(N, 700), seed=seed, tags=lanes)
    content = analysis.load(store.uri)
    assert tables.rerun_command(content.runs[0]).startswith(
        "KERAS_BACKEND=jax .venv-gpu/bin/python runner.py --ladder 1 --seed 0 --lanes 5"
    )
    assert content.seconds == pytest.approx(2 * 61.0 * 25 / 5)
    facts = dict(tables.environment(content).shown())
    assert (facts["lanes"], facts["precision"]) == ("5", "tf32")


def test_a_seed_without_its_accuracy_is_not_the_pair_that_is_compared(store):
    for rung, seed, count in ((0, 0, 700), (0, 1, 700), (1, 0, 800), (1, 1, 820)):
        gone = {"test_accuracy": math.nan} if (rung, seed) == (0, 0) else {}
        store.add(LADDER[rung], right(N, count), seed=seed, metrics=gone)
    step = analysis.load(store.uri).steps[0]
    assert step.gains == pytest.approx([0.12])
    assert math.isnan(step.interval[0])


def test_a_rung_of_ones_own_is_none_of_those_published(store):
    store.add(LADDER[0], right(N, 720))
    store.add("06_mine", right(N, 900), like=LADDER[4])
    store.add("02_mine", right(N, 900), like=LADDER[1])  # beside the study's of that number
    content = analysis.load(store.uri)
    assert [step.after.name for step in content.steps] == [*LADDER[1:], "06_mine"]
    assert "The 6 accuracies, within" in page.headline(content)
    assert page.tiles(content)[0][1] == "0 of 6"


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
    headings, _, row, *_ = tables.progression(content).shown()
    cells = dict(zip(headings, row, strict=True))
    assert cells["reproduced"] == told.split(",")[0]
    assert cells["deviation"] == tables.NONE
    assert content.systems[1].verdict == "not run"
    judged = {j.claim.id: j for j in content.claims}
    assert told.split(",")[0] in judged["augmentation-train"].evidence


def test_only_a_run_still_going(store):
    store.add(LADDER[0], right(N, 700), history=curve(2, 0.5, 0.4), status="RUNNING")
    folder = build(store)
    text = (folder / output.PAGE).read_text()
    assert "6 not run. The 19 further claims: 19 not run." in text
    assert "still going, 2 epochs done" in text


def test_deleted_and_damaged_artifacts_are_told(store):
    ids = [store.add(LADDER[i], right(N, 700 + 50 * i)) for i in range(4)]
    for name in ("mistakes.png", "confusion_matrix.csv", "experiment.yaml"):
        store.artifact(ids[3], name).unlink()
    predictions = [store.artifact(run, "test_predictions.csv") for run in ids]
    predictions[0].unlink()
    predictions[1].write_bytes(b"\xff no table")
    shorter = predictions[2].read_text().splitlines()[:-300]
    predictions[2].write_text("\n".join(shorter))
    content = analysis.load(store.uri)
    assert [s.verdict for s in content.systems[:3]] == ["undecided"] * 3
    told = " ".join(content.notes)
    assert "test_predictions.csv is gone" in told
    assert "test_predictions.csv is damaged" in told
    assert "where the run says 0.8" in told  # its images no longer give its accuracy
    assert content.pictured.classes == tuple(map(str, range(10)))  # their names were in the matrix
    text = (output.write(content, store.folder / "out") / output.PAGE).read_text()
    assert "Of its mistakes there are no images." in text
    vgg = store.add("vgg", right(N, 600))  # the rungs' best was 3 of 4, whose predictions are gone
    store.artifact(ids[3], "test_predictions.csv").unlink()
    assert analysis.load(store.uri).pictured.id == vgg
    store.client.delete_run(vgg)
    store.client.delete_run(ids[3])
    assert "No run shown has predictions" in (build(store) / output.PAGE).read_text()


def test_a_broken_experiment_file_does_not_stop_the_report(store, tmp_path, monkeypatch):
    store.add(LADDER[0], right(N, 700))
    broken = tmp_path / "06_mine.yaml"
    broken.write_text("extends: 01_template\nepocs: 3\n")
    shutil.copy(config.EXPERIMENTS / "01_template.yaml", tmp_path)
    known = config.find()
    monkeypatch.setattr(config, "find", lambda: known | {"06_mine": broken})
    assert "06_mine.yaml: epocs: unknown key" in " ".join(analysis.load(store.uri).notes)


def test_a_run_without_curves_or_figures_of_its_own(store):
    store.add(LADDER[0], right(N, 700), history=curve(25, 0.9, 0.8).iloc[:0])
    text = (build(store) / output.PAGE).read_text()
    assert "the runs recorded no curves." in text
    store.add(LADDER[0], right(N, 710), seed=1)  # whose curves are there
    assert "the runs recorded no curves." not in (build(store) / output.PAGE).read_text()


def test_a_step_between_runs_of_other_seeds_was_run(store):
    store.add(LADDER[0], right(N, 700))
    store.add(LADDER[1], right(N, 800), seed=1)
    figure = figures.gains(analysis.load(store.uri))
    told = [text.get_text() for text in figure.axes[0].texts]
    assert told.count("not run") == len(LADDER) - 1


# --- output ------------------------------------------------------------------------------------

HOSTILE = ("<script>alert(1)</script>", "100%_a&b", "$x^2$ {\\frac", "a|b`c`[d](e)*f*", "[z]")


def test_hostile_names_break_nothing(store):
    classes = (*HOSTILE, "true", "1e3", *CLASSES[len(HOSTILE) + 2 :])
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
    folder = build(store)
    cells = read(folder)
    assert not cells.problems
    shown = {row[0].partition(" ")[2].split("\n")[0] for row in cells.tables["progression"][6:]}
    assert set(HOSTILE) <= {name.split(" ", 1)[-1] for name in shown} | shown
    assert set(classes) == set(cells.records("classes"))
    assert cells.scripts == 1
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
    """Nothing fetched, every address there, every file that a table or figure links as well."""
    cells = read(full[1])
    assert not cells.problems
    assert cells.scripts == 1
    text = (full[1] / output.PAGE).read_text()
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert cells.files
    assert not [name for name in cells.files if not (full[1] / name).is_file()]
    for table in cells.tables:
        if len(cells.tables[table]) > 1:
            assert {f"tables/{table}.{kind}" for kind in ("csv", "tex", "md")} <= set(cells.files)
    for name in (full[1] / "figures").glob("*.svg"):
        assert f"figures/{name.name}" in cells.files


def test_every_claim_and_rung_has_an_address(full):
    ids = set(re.findall(r'\bid="([^"]+)"', (full[1] / output.PAGE).read_text()))
    assert {f"claims-{c.id}" for c in STUDY.claims} <= ids
    assert {f"progression-{name}" for name in LADDER} <= ids
    assert {f"runs-{run.id[:8]}" for run in analysis.load(full[0].uri).runs} <= ids


def test_figures(full):
    """Text stays text under a name; in the page every colour is the page's, to follow dark mode."""
    for path in (full[1] / "figures").glob("*.svg"):
        svg = path.read_text()
        assert "<title>" in svg
        assert svg.count("<text") > 5, path
        inside = figures.inline(svg, "x")
        assert 'aria-label="' in inside
        colours = set(re.findall(r"#[0-9a-f]{6}\b", re.sub(r"var\(--\w+, #\w+\)", "", inside)))
        assert not colours, path
    content = analysis.load(full[0].uri)
    drawn = figures.all_figures(content)
    limits = {
        (axes.get_xlim(), axes.get_ylim(), i)
        for name, figure in drawn.items()
        if name.startswith("curves_")
        for i, axes in enumerate(figure.axes)
    }
    assert len(limits) == 2  # accuracy and loss, whatever the rung
    figures.to_svg(drawn["validation"], "x")
    upper, lower = json.loads(figures.readings(drawn["validation"]))
    line = upper["lines"][3]
    assert line["label"] == "4 + learning-rate schedule"
    history = curve(50, 0.92, 0.90, drops=(23, 40))
    assert line["points"][9] == [10, f"{100 * history.loc[10, 'val_accuracy']:.1f} %"]
    assert lower["lines"][3]["points"][22] == [23, "0.0002"]
    assert json.loads(figures.readings(drawn["gains"]) or "[]") == []


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


def test_text_can_be_read_in_light_and_dark():
    css = (ROOT / "report" / "templates" / "report.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", part))
        for part in (css.split("@media")[0], css[css.index("dark") :].split("}")[0])
    )
    for colours in (light, light | dark):
        names = set(light) - {"line", "card", "paper", "heat"}
        for name in names:
            if name.endswith("-back"):
                continue
            for back in {f"{name}-back"} & set(colours) or {"card", "paper"}:
                bright, dim = sorted((luminance(colours[n]) for n in (name, back)), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (name, back)
    assert set(figures.PALETTE) - {"ink", "soft", "line", "card"} <= set(dark)


def test_files_come_in_every_form(full):
    files = {p.relative_to(full[1]).as_posix() for p in full[1].rglob("*") if p.is_file()}
    assert set(json.loads((full[1] / "manifest.json").read_text())["files"]) == files - {
        "manifest.json"
    }
    for name in ("progression", "claims", "steps", "residual_vs_vgg", "power", "assumptions"):
        assert {f"tables/{name}.{suffix}" for suffix in ("md", "csv", "tex")} <= files
    for name in ("progression", "gains", "validation", *(f"curves_{rung}" for rung in LADDER)):
        assert f"figures/{name}.svg" in files
    assert "figures/progression.png" in files


def test_mistakes_are_arranged_by_class(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    n, path = 200, tmp_path / "mistakes.png"
    x, y = generator.integers(0, 256, (n, 4, 6, 3), "uint8"), np.arange(n, dtype="uint8") % 3
    probabilities = generator.dirichlet([1, 1, 1], n)
    dataset = Dataset("squares", ("a", "b", "c"), x, y, x, y, "here")
    monkeypatch.setattr(run_figures.Image, "MAX_IMAGE_PIXELS", 4 * 3**2 * 4 * 6 - 1)
    run_figures.mistakes(dataset, probabilities, path)
    assert not path.exists()  # the report would be refused it
    monkeypatch.undo()
    run_figures.mistakes(dataset, probabilities, path)
    with run_figures.Image.open(path) as image:
        assert image.info["cells"] == "3"
        sheet = np.asarray(image)
    predicted = probabilities.argmax(axis=1)
    for true in range(3):
        for told in range(3):
            cell = sheet[true * 8 : true * 8 + 8, told * 12 : told * 12 + 12]
            found = np.flatnonzero((y == true) & (predicted == told) & (true != told))
            surest = found[np.argsort(-probabilities[found, told])][:4]
            for place in range(4):
                down, across = divmod(place, 2)
                tile = cell[down * 4 : down * 4 + 4, across * 6 : across * 6 + 6]
                if place < len(surest):
                    assert np.array_equal(tile[..., :3], x[surest[place]])
                assert (tile[..., 3] == 255 * (place < len(surest))).all()


CHROMIUM = screenshots.chromium()


def browsed(folder, tmp_path, script, width=1280):
    """What a script makes of the page in a real browser, as JSON."""
    text = (folder / output.PAGE).read_text()
    text = re.sub(r"<meta http-equiv=.*?>", "", text)
    text += f"<script>({script})().then((x) => {{ document.title = JSON.stringify(x); }})</script>"
    copy = tmp_path / "copy.html"
    copy.write_text(text)
    size = f"--window-size={width},900"
    dom = screenshots.browse(copy.as_uri(), size, "--dump-dom", seconds=20)
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]
    return json.loads(title.replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&"))


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium")
def test_in_a_browser(full, tmp_path):
    script = """async () => {
      const figure = document.querySelector("#figure-validation .picture");
      const area = figure.getBoundingClientRect();
      figure.dispatchEvent(new PointerEvent("pointermove", {
        clientX: area.left + area.width * 0.5, clientY: area.top + area.height * 0.5 }));
      const table = document.querySelector("table.progression");
      table.querySelector("thead th:nth-child(2) button").click();
      return {
        reading: figure.querySelector(".reading").innerText,
        sorted: [...table.tBodies[0].rows].map((row) => row.cells[1].textContent.trim()),
        order: table.querySelector("[aria-sort]").getAttribute("aria-sort"),
        wide: [...document.querySelectorAll(".scroll")]
          .filter((s) => s.scrollWidth > s.clientWidth + 1)
          .map((s) => s.getAttribute("aria-label")),
        page: document.documentElement.scrollWidth,
      };
    }"""
    seen = browsed(full[1], tmp_path, script)
    assert "5 + deeper + dropout: " in seen["reading"]
    assert seen["sorted"] == sorted(seen["sorted"])
    assert seen["order"] == "ascending"
    assert seen["wide"] == []
    assert seen["page"] <= 1280


@pytest.mark.skipif(
    not CHROMIUM or "AXE" not in os.environ, reason="takes chromium, and AXE=path/to/axe.min.js"
)
def test_axe_finds_nothing(full, tmp_path):
    axe = Path(os.environ["AXE"]).read_text()
    script = (
        "async () => { %s; document.querySelectorAll('details').forEach((d) => { d.open = true; });"
    )
    script += " return (await axe.run()).violations.map((v) => [v.id, v.nodes[0].html]); }"
    assert browsed(full[1], tmp_path, script % axe.replace("</script", "<\\/script")) == []


def test_a_report_is_replaced_and_nothing_else_is(store):
    store.add(LADDER[0], right(N, 700))
    out = store.folder / "reports" / "latest"
    build(store, out)
    store.add(LADDER[1], right(N, 800))
    build(store, out)
    assert "80.0 %" in (out / output.PAGE).read_text()
    assert [p.name for p in out.parent.iterdir()] == ["latest"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        build(store, out)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="is not a folder"):
        build(store, out / "notes.txt")


def test_a_failure_leaves_the_old_report(store, monkeypatch):
    store.add(LADDER[0], right(N, 700))
    out = store.folder / "reports" / "latest"
    build(store, out)
    before = (out / output.PAGE).read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "render", fail)
    with pytest.raises(UserError, match="No space left"):
        build(store, out)
    assert (out / output.PAGE).read_bytes() == before
    assert [p.name for p in out.parent.iterdir()] == ["latest"]


def test_the_parent_run_holds_the_report(full):
    store, folder = full
    parent = store.parent()
    output.attach(store.uri, parent, folder)
    names = {a.path for a in store.client.list_artifacts(parent, "report")}
    assert names == {f"report/{n}" for n in ("report.html", "figures", "tables", "manifest.json")}


def test_the_runner_s_table(two_seeds):
    store, counts = two_seeds
    console = Console(record=True, width=120)
    console.print(summary.progression(analysis.load(store.uri), named=LADDER[:3]))
    text = console.export_text()
    means = [np.mean(counts[name]) / N for name in LADDER[:2]]
    assert f"{100 * means[0]:.1f} %" in text
    assert f"{100 * (means[1] - means[0]):+.1f}" in text
    assert "not run" in text  # rung 3 was asked for; rungs 4 and 5 were not
    assert "5 + deeper" not in text


@pytest.mark.parametrize(
    ("profile", "counts"), [("full", (700,)), ("quick", (700,)), ("full", (699, 700, 701))]
)
def test_eighty_columns_cut_nothing(store, profile, counts):
    for rung in LADDER[:-1]:
        for seed, count in enumerate(counts):
            store.add(rung, right(N, count), profile=profile, seed=seed)
    store.add(
        LADDER[-1], right(N, 700), history=curve(34, 0.5, 0.4), profile=profile, status="RUNNING"
    )
    console = Console(record=True, width=80)
    content = analysis.load(store.uri)
    summary.show(content, console)
    text = console.export_text()
    assert "…" not in text
    assert f"{config.short(LADDER[2])} + deeper" in text  # at least two words a line
    for c in STUDY.claims:
        assert f"{c.id} " in text
    failing = [s for s in content.systems if s.verdict == "fails as assumed"]
    assert bool(failing) == (len(counts) > 1)
    for system in failing:
        assert f"{system.name}: {system.assumed}" in text
        assert re.search(
            rf"{system.short} .* {100 * system.accuracy:.1f} % +fails as assumed", text
        )


# --- command line ------------------------------------------------------------------------------


def report(*arguments):
    """``python -m report``, within this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["report", *map(str, arguments)])
        patch.setattr(sys, "excepthook", sys.excepthook)  # Typer sets its own
        patch.setattr(cli.console, "width", 160)
        with pytest.raises(SystemExit) as ended:
            __main__.entry()
    return subprocess.CompletedProcess(
        arguments, ended.value.code or 0, out.getvalue(), err.getvalue()
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
    with pytest.raises(UserError, match=r"nothing was run yet: .*python runner\.py"):
        analysis.load(uri)
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
        build(store, tmp_path / "out")
    assert store.experiment_id
    with pytest.raises(UserError, match="has no runs"):
        build(store, tmp_path / "out")


def test_corrupt_stores(tmp_path, two_seeds):
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"this is no database " * 100)
    uri = f"sqlite:///{database}"
    fails_in_one_line(report("--tracking-uri", uri), "is not a database of MLflow's")
    good = (two_seeds[0].folder / "mlflow.db").read_bytes()
    database.write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError):
        analysis.load(uri)
    database.write_bytes(good[:8192] + b"\xff" * (len(good) - 8192))
    with pytest.raises(UserError):
        analysis.load(uri)
    with pytest.raises(UserError):
        analysis.load("gopher://host")
    secret = "postgresql+psycopg2://me:s3cret@127.0.0.1:1/x"
    with pytest.raises(UserError, match=r"me:\*\*\*@") as error:
        analysis.load(secret)
    assert "s3cret" not in str(error.value)


def test_a_store_that_was_moved_is_read_with_its_artifacts(tmp_path, empty):
    (tmp_path / "old").mkdir()
    Store.copy(empty, tmp_path / "old").add(LADDER[0], right(N, 720))
    (tmp_path / "old").rename(tmp_path / "new")
    content = analysis.load(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    assert content.runs[0].n_test == N


def test_command_line(two_seeds, tmp_path):
    uri = two_seeds[0].uri
    code = (
        "import sys, report.__main__ as report\n"
        "try: report.entry()\n"
        "finally: assert not {'keras', 'tensorflow', 'jax'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--tracking-uri", uri, "--out", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result
    assert result.stderr == ""
    assert str(tmp_path / "out" / "report.html") in result.stdout
    result = report("--tracking-uri", uri, "--summary")
    assert result.returncode == 0
    assert "72.5 %" in result.stdout
    assert "augmentation-gain" in result.stdout
    fails_in_one_line(report("--tracking-uri", uri, "--profile", "quick"), "no runs match")


@pytest.mark.slow
def test_five_rungs_with_five_seeds(store):
    for rung in LADDER:
        for seed in range(5):
            store.add(rung, right(10_000, 8000, seed), seed=seed, history=curve(75, 0.9, 0.8))
    folder = build(store)
    assert len(read(folder).records("runs")) == 25
