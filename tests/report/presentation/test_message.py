"""Tests that the report's answer in words agrees with the verdicts."""

import math
import re
from dataclasses import replace

import pytest
from report_known import SAID
from scipy import stats

from report import analysis
from report.analysis import statistics
from report.presentation.tables import message, numbers
from report.presentation.tables.message import ASSUMED

HOLDS, NOT = "holds", "not run"
OPEN = "undecided"


@pytest.fixture
def answered(two_seeds, monkeypatch):
    """Makes a function that returns the answer for given verdicts on the study's six rows."""
    content = analysis.load(two_seeds[0].uri)
    ran = content.systems[0].runs

    def answered(*verdicts):
        given = dict(zip((s.name for s in content.systems), verdicts, strict=True))
        monkeypatch.setattr(analysis.System, "verdict", property(lambda s: given[s.name]))
        systems = [replace(s, runs=() if given[s.name] == NOT else ran) for s in content.systems]
        return message.message(replace(content, systems=tuple(systems), claims=()))

    return answered


@pytest.mark.parametrize(
    ("verdicts", "lead"),
    [
        ([HOLDS] * 6, "All six published accuracies are reproduced to within 1.5 points."),
        (["fails"] * 6, "None of the six published accuracies is reproduced to within 1.5 points."),
        (
            [ASSUMED, OPEN, OPEN, HOLDS, HOLDS, ASSUMED],
            "Two of the six published accuracies are reproduced to within 1.5 points, two are not "
            "reproduced under our assumptions and two are undecided.",
        ),
        (
            [HOLDS, "fails", OPEN, NOT, NOT, NOT],
            "One of the six published accuracies is reproduced to within 1.5 points, one is not "
            "reproduced, one is undecided and three are not run.",
        ),
        ([NOT] * 6, "Nothing has been run yet."),
        ([OPEN] * 6, "There is no verdict yet on the six published accuracies."),
        (
            [ASSUMED] * 5 + [OPEN],
            "Of the six published accuracies, five are not reproduced under our assumptions and "
            "one is undecided.",
        ),
        (
            [OPEN] * 5 + [NOT],
            "There is no verdict yet: of the six published accuracies, five are undecided and "
            "one is not run.",
        ),
    ],
)
def test_the_answer_counts_the_published_accuracies_by_verdict(answered, verdicts, lead):
    assert answered(*verdicts).lead == lead


def test_the_answer_counts_rungs_and_claims_that_were_not_run(two_seeds):
    assert message.message(analysis.load(two_seeds[0].uri)).text == (
        "There is no verdict yet: of the six published accuracies, two are undecided and "
        "four are not run. "
        "19 further claims: one holds, one fails, three are undecided and 14 are not run."
    )


def test_each_line_of_the_answer_names_its_rungs_and_their_accuracies(answered):
    answer = answered(HOLDS, ASSUMED, OPEN, OPEN, NOT, "fails")
    lines = {line.heading: line.text for line in answer.lines}
    assert list(lines) == [
        "Reproduced",
        "Not reproduced",
        "Not reproduced under our assumptions",
        "Undecided",
        "Not run",
    ]
    seen = r"rung 1 \(Template\): [\d.]+ % here \(3 seeds, 95 % interval [\d.]+ to [\d.]+ %\), 72"
    assert re.match(seen, lines["Reproduced"])
    assert "82.9 % published" in lines["Not reproduced under our assumptions"]
    assert "3 and 4: part of each 95 % interval lies more than 1.5 points" in lines["Undecided"]
    assert lines["Undecided"].endswith("; 3 of 5 planned seeds were run")
    assert lines["Not run"] == "rung 5"
    assert lines["Not reproduced"].startswith("VGG-like network (vgg): ")
    (command,) = answer.go_on
    assert " run 1,2,3,4,5,vgg --seeds 0-4 --tracking-uri " in command


def test_commands_for_recorded_runs_train_missing_seeds_and_record_the_new_runs(two_seeds):
    content = analysis.load(two_seeds[0].uri)
    selection = replace(content.selection, run_set=replace(content.run_set, recorded=True))
    go_on = message.message(replace(content, selection=selection)).go_on
    assert [" ".join(line.split()[2:6]) for line in go_on[:2]] == [
        "run 1,2 --seeds 3-4",
        "run 3,4,5,vgg --seeds 0-4",
    ]
    assert [line.split()[2] for line in go_on[2:]] == ["record"]


def test_the_answer_names_the_best_rung_if_no_accuracy_is_published(full):
    content = analysis.load(full[0].uri)
    systems = [replace(s, published=math.nan) for s in content.systems]
    assert message.message(replace(content, systems=tuple(systems))).lead == (
        "The highest test accuracy is 89.2 %, reached by rung 5 (+ deeper + dropout)."
    )


def test_claims_are_counted_in_words(two_seeds):
    content = analysis.load(two_seeds[0].uri)
    verdicts = (HOLDS, OPEN, OPEN, ASSUMED, ASSUMED, NOT)
    some = tuple(replace(content.claims[0], verdict=v) for v in verdicts)
    assert message.count_verdicts(some) == (
        "one holds, two fail (under our assumptions), two are undecided and one is not run"
    )
    single = message.message(replace(content, claims=some[:1])).text
    assert single.endswith("Claim: “a large gap between training and validation accuracy” holds.")


def test_the_verdict_on_a_row_is_explained_with_numbers(two_seeds, full):
    content = analysis.load(two_seeds[0].uri)
    row = content.systems[1]
    half = 50 * (row.interval[1] - row.interval[0])
    varies = f"the deviation between seeds is {100 * row.deviation:.1f} points"
    wide = f"{varies}; the interval, ±{half:.1f}, is wider than the allowed"
    # the text asks for no further seeds: by the estimate, the row's three seeds are enough
    assert message.why(content, row) == f"{wide} ±1.5"
    strict = replace(row, tolerance=0.008)
    systems = (content.systems[0], strict, *content.systems[2:])
    needed = next(
        n
        for n in range(2, 100)
        for freedom in [1 / (1 / (6 * (n - 1)) + 1 / statistics.GUESS)]
        if stats.t.isf(0.025, freedom) * row.deviation / math.sqrt(n) < 0.008
    )
    text = f"{wide} ±0.8; {needed} seeds per row should give a verdict"
    stricter = replace(content, systems=systems)
    assert message.why(stricter, strict) == text
    more = f"; 2 of 2 planned seeds were run; verdicts should need up to {needed} seeds per row"
    two = replace(stricter, statements=content.statements.model_copy(update={"seeds": 2}))
    assert needed > 2 and message.message(two).lines[0].text.endswith(more)
    assert numbers.gains_form([row, replace(row, tolerance=0.001)])(-0.0004) == "-0.04"
    assert message.why(content, content.systems[2]) == ""  # not run
    near = replace(row, published=row.accuracy, tolerance=1.0)
    assert message.why(content, near).endswith("lies within 100 points of the published accuracy")
    low, high = (100 * end for end in row.interval)
    beside = replace(row, published=row.accuracy + 0.01, tolerance=0.02)
    beyond = "points from the published accuracy"
    text = f"the interval is {low:.1f} to {high:.1f} %; part of it lies more than 2 {beyond}"
    assert message.why(content, beside) == text
    far = replace(row, published=row.accuracy + 0.1)
    text = f"the whole interval, ±{half:.1f}, lies more than 1.5 {beyond}"
    assert message.why(content, far) == text
    why = "the study states no value for epochs"
    assert message.why(content, replace(far, assumed=why)) == why
    few = analysis.load(full[0].uri)
    assert message.why(few, few.systems[0]).startswith("all rows together have too few seeds")


def test_verdicts_are_interim_until_every_planned_seed_was_run(two_seeds):
    content = analysis.load(two_seeds[0].uri)
    five = tuple(replace(content.systems[0].runs[0], seed=seed) for seed in range(5))
    done = [
        replace(system, runs=five) for system in content.systems if system.name in SAID.published
    ]
    final = replace(content, systems=tuple(done))
    assert not final.interim and not message.message(final).go_on
    assert replace(content, systems=(*done[:-1], replace(done[-1], runs=()))).interim


def test_the_expected_number_of_wrong_verdicts_is_stated(two_seeds):
    assert message.wrong(analysis.load(two_seeds[0].uri)) == (
        "Each of the 25 tests gives a wrong verdict with a probability of at most 5 %, so at most "
        "1.25 wrong verdicts are expected."
    )
