"""Tests how a judged claim shows that it was changed after its runs began."""

import json
from dataclasses import replace

from report_known import SAID, claim, judge, made_run
from report_store import LADDER

from report.analysis.systems import System
from resnet.study import Study


def rows(**changes):
    """Makes a ladder of one row with three runs; ``changes`` replaces attributes of each run."""
    runs = tuple(replace(made_run(LADDER[1], seed, 81, 5), **changes) for seed in range(3))
    return {LADDER[1]: System(LADDER[1], "x", 0.8, 0.015, {}, runs=runs)}


def test_evidence_says_that_a_claim_was_changed_after_its_runs_began():
    said = claim(bound={"min": 0.5})
    then = {"rung": LADDER[1], "quantity": "test_accuracy", "bound": {"min": 0.5}}
    kept = rows(tags={"bounds": json.dumps({"x": then})})
    assert "changed" not in judge(said, kept).evidence
    reworded = said.model_copy(update={"text": "in other words"})
    assert "changed" not in judge(reworded, kept).evidence
    moved = judge(said.model_copy(update={"bound": claim(bound={"min": 0.6}).bound}), kept).evidence
    assert "the claim was changed after 3 runs began; before, it was {" in moved
    assert '{"min": 0.5}' in moved
    added = rows(tags={"bounds": json.dumps({"other": then})})
    assert judge(said, added).evidence.endswith("the claim was added after 3 runs began")
    for damaged in ("", "[]", "{"):
        assert "changed" not in judge(said, rows(tags={"bounds": damaged})).evidence


def test_the_bounds_stored_with_a_run_contain_all_that_decides_a_claim():
    bounds = Study.open().bounds
    assert bounds["tolerance"] == SAID.tolerance
    assert {name: bounds[name] for name in SAID.published} == SAID.published
    for c in SAID.claims:
        now = c.model_dump(exclude={"id", "text", "where"}, exclude_none=True)
        assert bounds[c.id] == now
