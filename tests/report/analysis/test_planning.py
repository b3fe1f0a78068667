"""Tests the number of seeds that a verdict needs, as estimated from records."""

import math

import pytest
from conftest import ROOT

from report import analysis
from report.analysis import planning
from report.analysis.verdicts import Bound
from resnet import records
from resnet.study import Study


@pytest.fixture(scope="module")
def content():
    return analysis.of_records(Study.open(), records.load_all(ROOT / "results").values())


@pytest.fixture(scope="module")
def by_name(content):
    return {p.name: p for p in analysis.prospects(content)}


def test_every_published_accuracy_and_claim_gets_an_estimate(content):
    prospects = analysis.prospects(content)
    names = [s.name for s in content.systems if not math.isnan(s.published)]
    assert [p.name for p in prospects] == [*names, *(j.claim.id for j in content.claims)]


def test_with_one_seed_fewer_the_interval_is_too_wide(content, by_name):
    prospect = by_name["02_augmentation"]
    system = next(s for s in content.systems if s.name == prospect.name)
    assert prospect.half == pytest.approx(content.statements.tolerance)
    widths = {}
    for n in (prospect.seeds - 1, prospect.seeds):
        shared = len(content.systems) * (n - 1)
        freedom = 1 / (1 / shared + 1 / analysis.statistics.GUESS)
        values = dict.fromkeys(range(n), system.published)
        estimate = system.estimate._replace(values=values, freedom=freedom)
        low, high = analysis.statistics.contrast([(1, estimate)]).interval()
        widths[n] = (high - low) / 2
    assert widths[prospect.seeds] < prospect.half <= widths[prospect.seeds - 1]


def test_only_a_claim_that_can_be_decided_gets_a_number_of_seeds(by_name):
    assert by_name["schedule-drop"].seeds == 5
    assert by_name["schedule-train"].basis == "the deviation is not known"  # one recorded run
    assert by_name["schedule-val"].basis == "the measured value is outside the bound"
    assert by_name["schedule-train"].seeds is by_name["schedule-val"].seeds is None
    assert by_name["deeper-gain"].seeds > 5  # a gain of half a point is less than the deviation


@pytest.mark.parametrize(
    ("bound", "expected", "half"),
    [
        (Bound(min=0.1), 0.13, 0.03),
        (Bound(max=0.1), 0.13, -0.03),
        (Bound(min=0.1, max=0.2), 0.12, 0.02),
        (Bound(min=0.1, max=0.2), math.nan, 0.05),
    ],
)
def test_the_half_width_is_the_distance_to_the_bound_s_nearer_end(bound, expected, half):
    assert planning._half(bound, expected) == pytest.approx(half)
    assert math.isnan(planning._half(Bound(min=0.1), math.nan))


def test_a_claim_about_the_largest_gain_compares_it_with_the_second_largest(content, by_name):
    """In the study, rung 2 has the largest gain, and rung 4 has the second largest gain."""
    prospect = by_name["augmentation-largest"]
    published = content.statements.published
    mine = published["02_augmentation"] - published["01_template"]
    closest = published["04_lr_schedule"] - published["03_deeper_early_stopping"]
    assert prospect.half == pytest.approx(mine - closest)
    assert set(prospect.rungs) >= {"01_template", "02_augmentation", "04_lr_schedule"}
