"""Tests the gains computed for the changes in a step, and the alternatives to assumed values."""

import math
from dataclasses import replace
from itertools import combinations, pairwise, permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_known import KNOWN, SAID, N, build, csv, made_run, read
from report_store import LADDER, STUDY, curve, predictions, right
from scipy import stats

import runner
from report import analysis
from report.analysis import attribution, selection, statistics
from report.analysis.content import _content
from report.presentation import output, summary, tables
from report.presentation.tables import message
from resnet.study import Job, ablation

EFFECTS = {
    "training.epochs": 10,
    "training.early_stopping": -4,
    "training.reduce_lr_on_plateau": 30,
}
"""The gain of each factor of rung 4, in correctly classified test images out of 1,000."""


# --- Shapley values -------------------------------------------------------------------------------


def subsets(n):
    return [frozenset(c) for size in range(n + 1) for c in combinations("abcd"[:n], size)]


def games(n):
    return st.lists(st.floats(-1, 1), min_size=2**n, max_size=2**n).map(
        lambda values: dict(zip(subsets(n), values, strict=True))
    )


@given(st.integers(2, 4).flatmap(games))
@settings(deadline=None)
def test_a_shapley_value_is_the_mean_gain_over_all_orders(worth):
    """Also tests that the values of all factors add up to the whole gain."""
    value = attribution.shapley(worth)
    orders = list(permutations(value))
    for factor in value:
        before = [frozenset(order[: order.index(factor)]) for order in orders]
        gains = [worth[subset | {factor}] - worth[subset] for subset in before]
        assert value[factor] == pytest.approx(np.mean(gains), abs=1e-12)
    whole = worth[max(worth, key=len)] - worth[frozenset()]
    assert sum(value.values()) == pytest.approx(whole, abs=1e-12)


# --- the changes of a step ---------------------------------------------------------------------


def plans(rung=4):
    return ablation.subsets(KNOWN[LADDER[rung - 2]], KNOWN[LADDER[rung - 1]])


def made(plan, count, seed=0):
    """Makes a run of experiment ``plan`` that classifies ``count`` of ``N`` images correctly."""
    run = made_run(LADDER[0], seed, 80, 20)
    return replace(
        run,
        id=f"{plan.hash()[:8]}{seed}",
        rung=plan.name,
        title=plan.title,
        tags={"config_hash": plan.hash()},
        params=plan.flat(),
        metrics=run.metrics | {"test_accuracy": count / N},
        predictions=predictions(right(N, count, seed)),
    )


def content_of(runs, study=STUDY, **shown):
    """Makes a report's content from these runs, without a store."""
    shown = {"dataset": "cifar10", "profile": "full", "modified": ""} | shown
    rows = [(run.id, run.rung, run.tags["config_hash"]) for run in runs]
    finished = pd.DataFrame(rows, columns=["run_id", "rung", "config_hash"])
    chosen = selection.RunSet(study, fingerprint="", recorded=True, runs=finished, **shown)
    chosen = selection.Selection(chosen, finished, finished.iloc[:0], (), ())
    return _content("", study, chosen, {run.id: run for run in runs})


def additive(subset, seed):
    return 800 + 7 * seed + sum(EFFECTS[key] for key in subset)


def step_of(count, seeds=1):
    """Ablates rung 4. Each run classifies ``count(subset, seed)`` of ``N`` images correctly."""
    runs = [made(e, count(s, seed), seed) for s, e in plans().items() for seed in range(seeds)]
    (apart,) = content_of(runs).ablations
    assert apart.seeds == list(range(seeds))
    assert not apart.missing
    return apart


def test_one_seed_gives_the_expected_gains_without_intervals():
    apart = step_of(additive)
    for factor in apart.factors:
        effect = EFFECTS[factor.key] / N
        assert factor.shapley == pytest.approx([effect])
        assert factor.leave_one_out.gain == factor.add_one_in.gain == pytest.approx(effect)
        assert np.isnan([*factor.interval, *factor.leave_one_out.interval]).all()
    assert [f.key for f in apart.factors if f.credited] == ["training.reduce_lr_on_plateau"]
    assert apart.whole.gain == pytest.approx(sum(EFFECTS.values()) / N)


def test_three_seeds_give_the_expected_intervals():
    noise = {(k, seed): (seed - 1) * (2 + i) for i, k in enumerate(EFFECTS) for seed in range(3)}
    apart = step_of(lambda s, seed: additive(s, seed) + sum(noise[k, seed] for k in s), seeds=3)
    for factor in apart.factors:
        values = [(EFFECTS[factor.key] + noise[factor.key, seed]) / N for seed in range(3)]
        assert factor.shapley == pytest.approx(values)
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
        assert factor.interval == pytest.approx((factor.value - half, factor.value + half))
        # the interval of a gain between two subsets uses the deviation that all rows share
        gain, shared = factor.add_one_in, apart.step.after.shared
        assert shared.freedom == 4
        samples = gain.before.sample, gain.after.sample
        error = math.sqrt(sum(shared.factor * s.scale**2 / 3 for s in samples))
        t = stats.t.ppf(0.975, 1 / (1 / 4 + 1 / statistics.GUESS))
        assert gain.interval == pytest.approx((gain.gain - t * error, gain.gain + t * error))


def test_a_factor_that_changes_no_prediction_has_no_interval():
    """For example, early stopping changes no prediction if it never triggers."""
    apart = step_of(lambda s, seed: 800 + 9 * seed + 30 * ("training.epochs" in s), seeds=3)
    epochs, stopping, _ = apart.factors
    assert stopping.add_one_in.gain == 0
    assert np.isnan([*stopping.add_one_in.interval, stopping.add_one_in.p]).all()
    assert stopping.add_one_in.basis == "the networks are the same"
    low, high = epochs.add_one_in.interval
    assert low < epochs.add_one_in.gain < high


def test_an_ablation_uses_the_seeds_of_all_subsets_and_names_missing_runs():
    lacking = [("04_lr_schedule~epochs", 1), ("04_lr_schedule", 2)]
    runs = [made(e, 800, seed) for e in plans().values() for seed in range(3)]
    runs = [run for run in runs if (run.rung, run.seed) not in lacking]
    runs.append(made(KNOWN[LADDER[3]], 840, seed=7))  # only the rung itself has this seed
    (apart,) = content_of(runs).ablations
    assert apart.seeds == [0]
    assert apart.missing == {name: [seed] for name, seed in lacking}


def test_a_subset_s_runs_are_found_by_their_settings():
    """A run's name does not matter, and a run without an accuracy counts as missing."""
    runs = [made(e, 800) for e in plans().values()]
    other, named = runs[1], runs[2]
    runs[1] = replace(other, rung="01_template~other")
    (apart,) = content_of(runs).ablations
    assert apart.seeds == [0]
    runs[2] = replace(named, metrics={})
    (apart,) = content_of(runs).ablations
    assert apart.missing == {named.rung: [0]}


def test_runs_with_modified_or_outdated_settings_give_no_ablation():
    runs = [made(e, 800) for e in plans().values()]
    assert not content_of(runs, modified="model.dropout=0.1").ablations
    old = [replace(run, tags={"config_hash": "0" * 64}) for run in runs]
    assert not content_of(old).ablations


# --- alternatives to assumed values ------------------------------------------------------------


def seeds_of(plan, count, n=3):
    return [made(plan, count + seed - 1, seed) for seed in range(n)]


def varied(runs, **shown):
    """Returns rung 1 as an :class:`attribution.Varied`, and as a system."""
    content = content_of(runs, **shown)
    return content.varied[0], content.systems[0]


def test_assumptions_may_explain_a_failure_until_every_alternative_fails():
    """The published accuracy of the template is 72.3 %."""
    template, other = KNOWN[LADDER[0]], "fails (under our assumptions)"
    ten, fifty, first = ablation.alternatives(template).values()
    others = [run for name in LADDER[1:4] for run in seeds_of(KNOWN[name], 800)]
    runs = [*others, *seeds_of(template, 790)]
    row, system = varied(runs)
    open_ = "the study states no value for epochs or validation subset, and other values may give"
    assert row.doubt == f"{open_} the published accuracy"
    assert system.verdict == other
    runs += seeds_of(ten, 760)
    row, _ = varied(runs)
    assert [a.step.gain for a in row.run] == pytest.approx([-0.03])
    assert [a.step.after.verdict for a in row.run] == ["fails"]
    assert row.doubt.startswith(open_)
    runs += seeds_of(fifty, 820)
    row, _ = varied(runs)
    only = "the study states no value for validation subset, and other values may give"
    assert row.doubt == f"{only} the published accuracy"
    holds = "another value of validation subset reproduces the published accuracy"
    undecided = "with another value of validation subset, the row is undecided"
    for count, doubt, verdict in ((795, "", "fails"), (723, holds, other), (738, undecided, other)):
        row, system = varied([*runs, *seeds_of(first, count)])
        assert (row.doubt, system.verdict) == (doubt, verdict)
    failing = [*runs, *seeds_of(first, 795)]

    def without_accuracy(name):
        gapped = [replace(r, metrics={}) if r.rung == name else r for r in failing]
        return varied(gapped)[1].verdict

    assert without_accuracy(first.name) == other
    assert without_accuracy(LADDER[1]) == "undecided"
    assert varied(failing, dataset="pets")[1].verdict == "not comparable"


# --- the report --------------------------------------------------------------------------------


def test_runs_of_ladder_ablate_change_only_their_own_tables(store, tmp_path, capsys):
    """All other tables and the message about the ladder stay the same."""
    short = {"history": curve(4, 0.9, 0.8)}
    for name in LADDER[:2]:
        store.add(name, right(N, 800), start=1, **short)
    before = analysis.load(store.uri)
    shown = {name: table.texts() for name, table in tables.all_tables(before).items()}
    assert 'href="#apart"' not in (build(store) / output.PAGE).read_text()
    validation, augmentation = list(plans(2).values())[1:-1]
    store.add(validation, right(N, 796), start=2, **short)
    text = (build(store) / output.PAGE).read_text()
    assert 'href="#apart"' in text
    assert "missing for 02_augmentation~augmentation (seed 0)." in text
    assert ".venv/bin/ladder ablate 2 --seeds 0 --cpus-per-run 4</code>" in text
    store.add(augmentation, right(N, 830), start=2, metrics={"shared_epochs": 4}, **short)
    fewer = next(iter(ablation.alternatives(KNOWN[LADDER[0]]).values()))
    store.add(fewer, right(N, 700), start=2, **short)
    store.add(fewer, right(N, 700), seed=1, status="FAILED", start=3, **short)
    after = analysis.load(store.uri)
    assert [s.name for s in after.systems] == [s.name for s in before.systems]
    assert after.run_set.rungs == before.run_set.rungs == 2
    changed = {n for n, table in tables.all_tables(after).items() if table.texts() != shown.get(n)}
    assert changed == {"factors_02_augmentation", "alternatives", "cost"}
    assert message.message(after) == message.message(before)
    assert message.facts(after) == message.facts(before)
    (step,) = summary.parts(after, [LADDER[1]])
    assert step.title == "\nGain of each change in step 1 → 2 (points, 95 % intervals); seed 0"
    (row,) = summary.parts(after, [LADDER[0]])
    assert row.title == "\nAccuracies with one assumed value changed"
    place = SimpleNamespace(uri=store.uri, study=STUDY, checkpoints=tmp_path / "checkpoints")
    images = SimpleNamespace(fingerprint=after.run_set.fingerprint)
    capsys.readouterr()
    for experiment, times in ((KNOWN[LADDER[1]], 0), (augmentation, 1)):
        runner._conclude(place, {"": ""}, images, [Job(experiment, 0)])
        assert capsys.readouterr().out.count("each change in step 1 → 2") == times
    folder = build(store)
    raw = csv(folder, "factors_02_augmentation", "key")
    assert raw["shapley"].to_dict() == pytest.approx(
        {"data.validation": -0.017, "data.augmentation": 0.017}
    )
    assert raw["add_one_in"].tolist() == pytest.approx([-0.004, 0.03])
    assert raw["interval_low"].isna().all()
    cells = read(folder)
    assert not cells.problems
    assert not [name for name in cells.files if not (folder / name).is_file()]
    shown = cells.records("factors_02_augmentation")["augmentation"]
    assert shown["change"] == "augmentation\ndata setting; the study credits it with the gain"
    assert shown["Shapley value"] == "+1.7\n-"
    text = (folder / output.PAGE).read_text()
    assert "The whole step: +0.0 points, published +10.6." in text
    assert "is no reason to adopt a value" in text
    assert (folder / "figures" / "factors_02_augmentation.svg").read_text().count("◆") == 1


def test_the_study_credits_each_gain_only_to_changes_of_that_step():
    credited = SAID.credited
    assert list(credited) == list(LADDER[1:])
    for before, after in pairwise(LADDER):
        assert set(credited[after]) <= set(ablation.factors(KNOWN[before], KNOWN[after]))
