"""Tests how claims are read, and how they are judged by measurements."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from report_known import (
    SAID,
    N,
    claim,
    copied,
    csv,
    judge,
    made_run,
    measured,
    pooled,
    read,
    rows,
    t_interval,
)
from report_store import LADDER, curve, right
from scipy import stats

from report import analysis
from report.analysis import claims, quantities, statistics
from report.analysis.systems import System
from report.presentation.tables import results
from resnet import UserError
from resnet.host.messages import count


def test_one_seed_per_rung_leaves_every_claim_of_the_study_undecided(full):
    _, folder = full
    raw = csv(folder, "claims", "claim")
    assert len(raw) == len(SAID.claims)
    assert set(raw["verdict"]) == {"undecided"}
    assert raw.loc["augmentation-gap", "value"] == pytest.approx(
        np.mean(np.diff(curve(25, 0.85, 0.83)[["val_accuracy", "accuracy"]].tail(3)))
        / np.mean(np.diff(curve(25, 0.98, 0.72)[["val_accuracy", "accuracy"]].tail(3)))
    )
    assert raw.loc["schedule-drop", "value"] == 23
    assert raw.loc["augmentation-largest", "value"] == pytest.approx(0.106 - 0.039)
    assert raw.loc["schedule-drop", "evidence"] == (
        "1 of 1 seed inside the bound (binomial test, p = 0.5); the value is inside the bound"
    )
    assert raw.loc["augmentation-largest", "evidence"] == (
        "seeds per row: 1, 1, 1, 1, 1; the deviation between seeds is not known; "
        "the value is inside the bound"
    )
    assert raw.loc["augmentation-largest", "run_ids"].count(" ") == 4
    shown = read(folder).records("claims")
    for row in raw.itertuples():
        assert shown[row.text]["evidence"].startswith(f"{row.evidence}. Measured: ")
    drop = shown["the learning rate drops at about epoch 23"]["evidence"]
    assert drop.endswith(f" Measured: {quantities.QUANTITIES['first_drop_epoch'].meaning}.")
    gap = shown["the train-validation gap shrinks strongly against rung 1"]["evidence"]
    assert gap.endswith(" divided by that of rung 1. The divisor must be above zero.")


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [({"min": 0.80}, "holds"), ({"max": 0.80}, "fails"), ({"min": 0.834}, "undecided")],
)
def test_an_accuracy_is_judged_by_its_interval_over_seeds(two_seeds, bound, verdict):
    store, counts = two_seeds
    judged = judge(claim(bound=bound), measured(store))
    mean, half = pooled(counts).mean(LADDER[1]), pooled(counts).half(**{LADDER[1]: 1 / 3})
    assert (judged.value, *judged.interval) == pytest.approx((mean, mean - half, mean + half))
    assert judged.verdict == verdict
    assert len(judged.runs) == 3
    evidence = "seeds per row: 3; the interval uses the deviation estimated from all rows' seeds"
    assert judged.evidence.startswith(evidence)


def test_a_gain_is_judged_by_the_interval_of_its_step(two_seeds):
    step = analysis.load(two_seeds[0].uri).steps[0]
    gain = claim(quantity="test_gain", against=LADDER[0], bound={"min": 0.10})
    judged = judge(gain, measured(two_seeds[0]))
    assert (judged.value, judged.interval) == (step.gain, step.interval)
    assert judged.verdict == "undecided"


def test_a_claim_names_the_assumptions_under_which_it_fails(two_seeds):
    lower = claim(bound={"max": 0.80})
    why = {LADDER[1]: "epochs", LADDER[2]: "filters"}
    judged = judge(lower, measured(two_seeds[0], why))
    assert judged.verdict == "fails (under our assumptions)"
    assert judged.evidence.endswith(f"; {LADDER[1]}: epochs")
    assert judge(lower, measured(two_seeds[0], {LADDER[2]: "x"})).verdict == "fails"


def lead_of(accuracies):
    """Judges the claim that rung 2 has the largest gain, with three seeds per rung."""
    made = [
        replace(run, metrics=run.metrics | {"test_accuracy": accuracy + off})
        for name, accuracy in zip(LADDER, accuracies, strict=True)
        for seed, off in enumerate((-0.004, 0, 0.004))
        for run in [made_run(name, seed, 80, 20)]
    ]
    return judge(claim(quantity="gain_lead", bound={"min": 0.0}), rows(made))


def test_the_largest_gain_is_compared_with_the_gain_of_every_other_step():
    clear = lead_of((0.70, 0.80, 0.81, 0.84, 0.85))
    assert (clear.verdict, clear.value) == ("holds", pytest.approx(0.07))
    # each lead is rung 2's gain minus another step's gain; the smallest lead decides the claim
    t = stats.t.ppf([0.975, 1 - 0.025 / 3], 1 / (1 / 10 + 1 / statistics.GUESS))
    errors = 0.004 * np.sqrt(np.array([6, 4, 4]) / 3)  # 6 = 1 + 2**2 + 1: two steps share rung 2
    leads = np.array([0.10 - 0.01, 0.10 - 0.03, 0.10 - 0.01])
    assert clear.interval == pytest.approx((min(leads - t[0] * errors), min(leads + t[1] * errors)))
    assert lead_of((0.70, 0.72, 0.80, 0.81, 0.82)).verdict == "fails"
    assert lead_of((0.70, 0.74, 0.75, 0.79, 0.80)).verdict == "undecided"
    # equal gains leave the claim undecided
    assert lead_of((0.70, 0.74, 0.78, 0.82, 0.86)).verdict == "undecided"


def test_the_evidence_names_a_row_that_uses_its_own_deviation():
    percents = dict.fromkeys(LADDER, (79, 80, 81)) | {LADDER[0]: (10, 70, 75, 80, 90)}
    made = [made_run(name, i, p, 20) for name, ps in percents.items() for i, p in enumerate(ps)]
    systems = rows(made)
    assert systems[LADDER[0]].shared.own == {LADDER[0]}
    gain = claim(quantity="test_gain", against=LADDER[0], bound={"min": 0})
    for said, own in ((gain, f"; for {LADDER[0]}, it uses the row's own deviation"), (claim(), "")):
        assert f"estimated from all rows' seeds{own}; " in judge(said, systems).evidence


def test_an_interval_decides_only_if_it_lies_wholly_inside_or_outside_the_bound():
    bound = analysis.Bound(min=0.1, max=0.2)
    assert bound.judge(0.1, 0.2) == "holds"
    assert bound.judge(0.05, 0.0999) == bound.judge(0.21, 0.3) == "fails"
    assert bound.judge(0.05, 0.15) == bound.judge(0.15, 0.25) == "undecided"
    assert bound.judge(0.0, 1.0) == bound.judge(math.nan, math.nan) == "undecided"


@pytest.mark.parametrize(
    ("runs", "inside", "verdict"),
    [(1, 1, "undecided"), (4, 4, "undecided"), (5, 5, "holds"), (5, 4, "undecided"),
     (5, 1, "undecided"), (5, 0, "fails"), (8, 7, "holds"), (8, 6, "undecided"), (8, 1, "fails")],
)  # fmt: skip
def test_epochs_are_judged_by_the_share_of_runs_inside_the_bound(runs, inside, verdict):
    """The binomial test (probability one half, 5 % per side) also counts runs without a drop."""
    within = curve(30, 0.9, 0.8, drops=(20,))
    outside = [curve(30, 0.9, 0.8), curve(30, 0.9, 0.8, drops=(29,))]  # no drop, and a late drop
    made = [
        replace(
            made_run(LADDER[1], seed, 80, 20),
            history=within if seed < inside else outside[seed % 2],
        )
        for seed in range(runs)
    ]
    systems = rows(made)
    drop = claim(quantity="first_drop_epoch", bound={"min": 18, "max": 28})
    judged = judge(drop, systems)
    assert judged.verdict == verdict
    p = min(stats.binomtest(inside, runs, alternative=side).pvalue for side in ("less", "greater"))
    told = f"{inside} of {count(runs, 'seed')} inside the bound (binomial test, p = {p:.2g})"
    assert judged.evidence.startswith(told)
    assert (verdict != "undecided") == (p <= 0.05)
    never = claim(quantity="first_drop_epoch", bound={"min": 100})
    of_never = sum(run.history is outside[0] for run in made)
    assert f"{of_never} of {runs} seed" in judge(never, systems).evidence
    shown = results._measured(judged)
    assert shown[1] == "-"
    assert ("epoch 20" in shown[0], "never" in shown[0]) == (inside > 0, of_never > 0)


@pytest.mark.parametrize(
    ("gains", "verdict", "told"),
    [
        ((0.03, 0.031), "undecided", "2 seeds; an interval needs three"),
        ((0.03, 0.031, 0.032), "holds", "3 seeds; t interval"),
        ((0.03, 0.03, 0.03), "undecided", "3 seeds; no interval, because all values are equal"),
    ],
)
def test_a_final_gap_needs_three_seeds_with_different_values(gains, verdict, told):
    gap = claim(rung=LADDER[0], quantity="final_gap", bound={"min": 0.01})
    made = [
        replace(made_run(LADDER[0], seed, 80, 20), history=curve(30, 0.8 + gain, 0.8, drops=(20,)))
        for seed, gain in enumerate(gains)
    ]
    judged = judge(gap, rows(made))
    assert judged.verdict == verdict
    assert judged.evidence.startswith(told)
    if verdict == "holds":
        values = [quantities.gap(run) for run in made]
        assert judged.interval == pytest.approx(t_interval(values))


def test_a_slope_ratio_compares_the_epochs_around_the_first_drop(store):
    history = curve(40, 0.9, 0.8, drops=(20,))
    history.loc[:19, "accuracy"] = history.loc[:19, "val_accuracy"] = 0.3 + 0.01 * np.arange(19)
    history.loc[20:, "accuracy"] = history.loc[20:, "val_accuracy"] = 0.7 + 0.002 * np.arange(21)
    flat = claim(quantity="slope_ratio_after_drop", bound={"max": 0.5})
    for seed in range(3):
        history.loc[30, "accuracy"] += 1e-6  # equal values would have no interval
        store.add(LADDER[1], right(N, 800), seed=seed, history=history)
        judged = judge(flat, measured(store))
        assert judged.value == pytest.approx(0.2, rel=1e-3)
    assert judged.verdict == "holds"
    # the slope after the first drop uses only epochs before the second drop
    history.loc[26:, ["accuracy", "val_accuracy"]] += 0.2
    history.loc[26:, "learning_rate"] /= 5
    store.add(LADDER[2], right(N, 800), history=history)
    later = flat.model_copy(update={"rung": LADDER[2]})
    assert judge(later, measured(store)).value == pytest.approx(0.2)


def test_a_claim_may_be_about_a_rung_without_a_published_accuracy(full, tmp_path):
    study = copied(tmp_path)
    added = (
        "claims:\n  - {id: new, rung: vgg, text: new, quantity: test_accuracy, bound: {min: 0.8}}\n"
    )
    text = study.claims.read_text().replace("claims:\n", added, 1)
    study.claims.write_text(text.replace("  vgg: 0.879\n", "", 1))
    said = analysis.load_statements(study)
    assert "vgg" not in said.published
    systems = measured(full[0])
    judged = judge(said.claims[0], systems)
    assert (judged.verdict, judged.value) == ("undecided", 0.879)
    runs = systems[LADDER[0]].runs
    own = analysis.System("06_mine", "Mine", math.nan, 0.015, {}, runs)
    assert own.verdict == "not comparable"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("quantity: final_gap", "quantity: final_gab", "there is no quantity 'final_gab'"),
        ("bound: {max: 0}", "bound: {}", "min, max or both"),
        ("rung: 05_deeper_dropout", "rung: 05_deper", "there is no experiment '05_deper'"),
        ("id: deeper-gain", "id: early-stop-idle", "several claims have the id 'early-stop-idle'"),
        ("    against: vgg\n", "", "needs 'against'"),
        ("tolerance: 0.015", "tolerance: lots", "tolerance"),
        ("  02_augmentation: [", "  01_template: [", "no step of the ladder leads to"),
        ("credited:", "credits:", "credits: unknown key (did you mean 'credited'?)"),
        ("seeds: 5", "seeds: 0", "0 is not allowed; it must be a whole number, at least 1"),
    ],
)
def test_a_mistake_in_claims_is_reported_in_one_line(tmp_path, old, new, told):
    study = copied(tmp_path)
    study.claims.write_text(study.claims.read_text().replace(old, new))
    with pytest.raises(UserError) as error:
        analysis.load_statements(study)
    assert told in str(error.value)
    assert str(study.claims) in str(error.value)
    assert "\n" not in str(error.value)


def voters(predicted, labels):
    """Makes a ladder of one row. Network i of this row predicts the classes ``predicted[i]``."""
    runs = tuple(
        replace(
            made_run(LADDER[1], seed, 100 * np.mean(np.equal(row, labels)), 5),
            predictions=pd.DataFrame({"label": labels, "predicted": row, "truth_probability": 0.9}),
        )
        for seed, row in enumerate(predicted)
    )
    shared = statistics.Shared(factor=1.0, freedom=20)
    row = System(LADDER[1], "x", math.nan, 0.01, {}, runs=runs, shared=shared)
    return {LADDER[1]: row}


def test_a_vote_elects_the_most_frequent_class_and_a_tie_counts_in_part():
    labels = np.array([0, 1, 2, 3])
    predicted = np.array([[0, 1, 2, 0], [0, 1, 1, 3], [0, 0, 0, 1]])  # two right votes, two ties
    assert claims.vote(predicted, labels) == pytest.approx((1 + 1 + 1 / 3 + 1 / 3) / 4)
    assert claims.vote(predicted[:1], labels) == 3 / 4


@pytest.mark.parametrize("k", [3, 5])
def test_a_vote_is_judged_over_every_choice_of_voters(k):
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 2000)
    wrong = random.random((5, 2000)) < 0.1
    predicted = np.where(wrong, (labels + random.integers(1, 10, (5, 2000))) % 10, labels)
    rows_ = voters(predicted, labels)
    estimate = rows_[LADDER[1]].estimate
    votes = [claims.vote(predicted[list(c)], labels) for c in combinations(range(5), k)]
    said = claim(quantity="vote_errors", voters=k, bound={"max": 100})
    judged = judge(said, rows_)
    assert judged.value == pytest.approx(2000 * (1 - np.mean(votes)))
    half = stats.t.isf(0.025, estimate.freedom) * math.sqrt(estimate.variance) * 2000
    assert judged.interval == pytest.approx((judged.value - half, judged.value + half))
    assert f"{math.comb(5, k)} vote" in judged.evidence
    gain = judge(claim(quantity="vote_gain", voters=k, bound={"min": 0}), rows_)
    single = np.mean([np.mean(row == labels) for row in predicted])
    assert gain.value == pytest.approx(np.mean(votes) - single)
    few = judge(claim(quantity="vote_errors", voters=6, bound={"max": 100}), rows_)
    assert (few.verdict, few.evidence) == ("undecided", "5 of 6 networks trained")


def test_an_error_ratio_is_averaged_over_seeds(two_seeds):
    store, counts = two_seeds
    said = claim(quantity="error_ratio", against=LADDER[0], bound={"max": 0.5})
    judged = judge(said, measured(store))
    before, after = (np.subtract(N, counts[name]) for name in LADDER[:2])
    assert judged.value == pytest.approx(np.mean(after / before))


def test_only_claims_about_votes_have_voters():
    with pytest.raises(ValueError, match="the quantity vote_gain needs 'voters'"):
        claim(quantity="vote_gain")
    with pytest.raises(ValueError, match="the quantity test_accuracy takes no 'voters'"):
        claim(voters=3)
