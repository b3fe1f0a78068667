"""Claims on more than accuracies, and bounds that were changed after runs began."""

import json
from dataclasses import replace

from report_known import SAID, claim, judge, made_run
from report_store import LADDER

from report.analysis.systems import System
from resnet.study import Study


def rows(**changes):
    """Two rows of three seeds each, the second's runs changed."""
    made = {}
    for number, name in enumerate(LADDER[:2]):
        runs = [made_run(name, seed, 80 + number, 5) for seed in range(3)]
        if number:
            runs = [replace(run, **changes) for run in runs]
        made[name] = System(name, name, 0.8, 0.015, {}, runs=tuple(runs))
    return made


def test_a_claim_that_was_changed_after_its_runs_began_says_so():
    said = claim(bound={"min": 0.5})
    then = {"rung": LADDER[1], "quantity": "test_accuracy", "bound": {"min": 0.5}}
    kept = rows(tags={"bounds": json.dumps({"x": then})})
    assert "changed" not in judge(said, kept).evidence
    reworded = said.model_copy(update={"text": "in other words"})
    assert "changed" not in judge(reworded, kept).evidence
    moved = judge(said.model_copy(update={"bound": claim(bound={"min": 0.6}).bound}), kept).evidence
    assert "the claim was changed after 3 runs began: it was" in moved and '{"min": 0.5}' in moved
    added = rows(tags={"bounds": json.dumps({"other": then})})
    assert "after 3 runs began: it was not there" in judge(said, added).evidence
    for damaged in ("", "[]", "{"):
        assert "changed" not in judge(said, rows(tags={"bounds": damaged})).evidence


def test_a_study_s_bounds_are_what_decides_and_nothing_else():
    bounds = Study.open().bounds
    assert bounds["tolerance"] == SAID.tolerance
    assert {name: bounds[name] for name in SAID.published} == SAID.published
    for c in SAID.claims:
        now = c.model_dump(exclude={"id", "text", "where"}, exclude_none=True)
        assert bounds[c.id] == now
