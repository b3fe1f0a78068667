"""What the report answers in words, for every mix of verdicts."""

import math
from dataclasses import replace

import pytest
from report_known import SAID
from scipy import stats

from report import analysis
from report.analysis import statistics
from report.presentation.tables import message
from report.presentation.tables.message import ASSUMED

HOLDS, NOT = "holds", "not run"
OPEN = "undecided"


@pytest.fixture
def answered(two_seeds, monkeypatch):
    """The message if the six rows of the study had these verdicts."""
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
        (
            ["fails"] * 6,
            "None of six published accuracies are reproduced to within 1.5 points and six are not.",
        ),
        (
            [ASSUMED, OPEN, OPEN, HOLDS, HOLDS, ASSUMED],
            "Two of six published accuracies are reproduced to within 1.5 points, two are not "
            "under our assumptions and two are undecided.",
        ),
        (
            [HOLDS, "fails", OPEN, NOT, NOT, NOT],
            "One of six published accuracies is reproduced to within 1.5 points, one is not, one "
            "is undecided and three are not run.",
        ),
        ([NOT] * 6, "Nothing has been run yet."),
        (
            [OPEN] * 5 + [NOT],
            "Nothing is decided yet: of six published accuracies, five are undecided and one is "
            "not run.",
        ),
    ],
)
def test_the_lead_counts_what_was_reproduced_and_what_not(answered, verdicts, lead):
    assert answered(*verdicts).lead == lead


def test_runs_of_two_rungs_are_told_with_what_is_missing(two_seeds):
    told = message.message(analysis.load(two_seeds[0].uri))
    assert told.text == (
        "Nothing is decided yet: of six published accuracies, two are undecided and four are not "
        "run. Further claims: of 19, one holds, one fails, three are undecided and 14 are not run."
    )


def test_each_part_names_its_rungs_and_numbers(answered):
    told = answered(HOLDS, ASSUMED, OPEN, OPEN, NOT, "fails")
    lines = {line.heading: line.text for line in told.lines}
    assert list(lines) == [
        "Reproduced",
        "Not reproduced",
        "Not reproduced under our assumptions",
        "Undecided",
        "Not run",
    ]
    assert lines["Reproduced"].startswith("rung 1 (Template): ")
    assert "82.9 % published" in lines["Not reproduced under our assumptions"]
    assert lines["Undecided"] == "rungs 3 and 4: 3 of 5 planned seeds were run"
    assert lines["Not run"] == "rung 5"
    assert lines["Not reproduced"].startswith("VGG-like network (vgg): ")
    (command,) = told.go_on  # finished seeds are skipped
    assert " run 1,2,3,4,5,vgg --seeds 0-4 --tracking-uri " in command


def test_of_recorded_runs_only_the_missing_seeds_are_run_and_then_recorded(two_seeds):
    content = analysis.load(two_seeds[0].uri)
    selection = replace(content.selection, run_set=replace(content.run_set, recorded=True))
    told = message.message(replace(content, selection=selection)).go_on
    assert [" ".join(line.split()[2:6]) for line in told[:2]] == [
        "run 1,2 --seeds 3-4",
        "run 3,4,5,vgg --seeds 0-4",
    ]
    assert [line.split()[2] for line in told[2:]] == ["record"]


def unpublished(content):
    """As if the study had published no accuracy and claimed nothing."""
    systems = [replace(s, published=math.nan) for s in content.systems]
    said = content.statements.model_copy(update={"published": {}, "claims": []})
    return replace(content, systems=tuple(systems), claims=(), statements=said)


def test_without_published_accuracies_the_best_rung_is_named(full):
    assert message.message(unpublished(analysis.load(full[0].uri))).lead == (
        "The highest test accuracy is 89.2 %, of rung 5 (+ deeper + dropout)."
    )


def test_claims_are_counted_in_words(two_seeds):
    claims = analysis.load(two_seeds[0].uri).claims
    some = [replace(claims[0], verdict=v) for v in (HOLDS, OPEN, OPEN, ASSUMED, ASSUMED, NOT)]
    assert message.count_verdicts(some) == (
        "one holds, two fail (under our assumptions), two are undecided and one is not run"
    )
    assert message.count_verdicts(some[:1]) == "holds"


def test_a_row_says_why_by_its_numbers(two_seeds, full):
    content = analysis.load(two_seeds[0].uri)
    row = content.systems[1]
    half = 50 * (row.interval[1] - row.interval[0])
    wide = f"seeds vary by {100 * row.deviation:.1f} points; the interval, ±{half:.1f}, is wider"
    # three seeds of every row would do, and it has three
    assert message.why(content, row) == f"{wide} than the 1.5 allowed"
    strict = replace(row, tolerance=0.008)
    systems = (content.systems[0], strict, *content.systems[2:])
    needed = next(
        n
        for n in range(2, 100)
        for freedom in [1 / (1 / (6 * (n - 1)) + 1 / statistics.GUESS)]
        if stats.t.isf(0.025, freedom) * row.deviation / math.sqrt(n) < 0.008
    )
    told = f"{wide} than the 0.8 allowed; {needed} seeds should do"
    assert message.why(replace(content, systems=systems), strict) == told
    assert message.why(content, content.systems[2]) == ""  # was not run
    near = replace(row, published=row.accuracy, tolerance=1.0)
    assert message.why(content, near).endswith("lies within 100 points of the published accuracy")
    low, high = (100 * end for end in row.interval)
    beside = replace(row, published=row.accuracy + 0.01, tolerance=0.02)
    told = f"the interval, {low:.1f} to {high:.1f} %, lies partly beyond the 2 points allowed"
    assert message.why(content, beside) == told
    far = replace(row, published=row.accuracy + 0.1)
    told = f"all of the interval, ±{half:.1f}, lies beyond 1.5 points of the published accuracy"
    assert message.why(content, far) == told
    why = "the study does not state epochs"
    assert message.why(content, replace(far, assumed=why)) == why
    few = analysis.load(full[0].uri)
    assert message.why(few, few.systems[0]).startswith("too few seeds in all to know")


def test_once_the_planned_seeds_are_in_nothing_is_interim(two_seeds):
    content = analysis.load(two_seeds[0].uri)
    five = tuple(replace(content.systems[0].runs[0], seed=seed) for seed in range(5))
    done = [
        replace(system, runs=five) for system in content.systems if system.name in SAID.published
    ]
    final = replace(content, systems=tuple(done))
    assert not final.interim and not message.message(final).go_on
    assert replace(content, systems=(*done[:-1], replace(done[-1], runs=()))).interim


def test_of_all_verdicts_some_are_wrong(two_seeds):
    assert message.wrong(analysis.load(two_seeds[0].uri)) == (
        "Each of 25 verdicts may be wrong with a probability of at most 5 %. Of the 2 decided "
        "here, up to 0.1 may be wrong."
    )
