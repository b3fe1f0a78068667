"""What planned seeds can decide, by recorded runs."""

import math

import pytest
from conftest import ROOT

from report import analysis
from report.analysis import planning
from report.analysis.verdicts import Bound
from resnet import records
from resnet.study import Study


@pytest.fixture(scope="module")
def found():
    return records.load_all(ROOT / "results")


@pytest.fixture(scope="module")
def content(found):
    return analysis.of_records(Study.open(), found.values())


def test_every_accuracy_and_claim_is_weighed_once(content):
    prospects = analysis.prospects(content)
    names = [s.name for s in content.systems if not math.isnan(s.published)]
    assert [p.name for p in prospects] == [*names, *(j.claim.id for j in content.claims)]


def test_the_seeds_it_takes_are_those_that_make_the_interval_narrow_enough(content):
    """With so many seeds rung 2's interval fits the tolerance, with one less it does not."""
    prospect = next(p for p in analysis.prospects(content) if p.name == "02_augmentation")
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


def test_epochs_take_five_and_what_nobody_measured_is_not_known(content):
    by_name = {p.name: p for p in analysis.prospects(content)}
    assert by_name["schedule-drop"].seeds == 5
    assert by_name["schedule-train"].basis == "its deviation is not known"  # of one recorded run
    assert by_name["schedule-val"].basis == "what was measured lies outside the bound"
    assert by_name["schedule-train"].seeds is by_name["schedule-val"].seeds is None
    assert by_name["deeper-gain"].seeds > 5  # half a point is less than the deviation


@pytest.mark.parametrize(
    ("bound", "expected", "half"),
    [
        (Bound(min=0.1), 0.13, 0.03),
        (Bound(max=0.1), 0.13, -0.03),
        (Bound(min=0.1, max=0.2), 0.12, 0.02),
        (Bound(min=0.1, max=0.2), math.nan, 0.05),
    ],
)
def test_how_narrow_it_must_be(bound, expected, half):
    assert planning._half(bound, expected) == pytest.approx(half)
    assert math.isnan(planning._half(Bound(min=0.1), math.nan))


def test_a_lead_is_weighed_against_every_rival(content):
    """Of rung 2's lead the closest rival by the published figures is rung 4's step."""
    prospect = next(p for p in analysis.prospects(content) if p.name == "augmentation-largest")
    published = content.statements.published
    mine = published["02_augmentation"] - published["01_template"]
    closest = published["04_lr_schedule"] - published["03_deeper_early_stopping"]
    assert prospect.half == pytest.approx(mine - closest)
    assert set(prospect.rungs) >= {"01_template", "02_augmentation", "04_lr_schedule"}
