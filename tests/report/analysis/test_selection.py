"""Tests which runs a report shows."""

import re

import pytest
from report_known import N, build
from report_store import LADDER, right

from report import analysis
from report.presentation import output
from report.presentation.tables import message
from resnet import UserError


def test_a_report_never_mixes_sets_of_runs(store):
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
    with pytest.raises(UserError, match=r"exist: cifar10 \(abababababab\), full profile; "):
        analysis.load(store.uri, dataset="imagenet")


def test_the_set_with_most_rungs_is_shown_and_of_equal_sets_the_newest(store):
    store.add(LADDER[0], right(N, 700), start=1)
    store.add(LADDER[1], right(N, 700), start=2)
    store.add(LADDER[0], right(N, 600), dataset="other", fingerprint="cd" * 32, start=3)
    assert analysis.load(store.uri).run_set.dataset == "cifar10"
    store.add(LADDER[1], right(N, 600), dataset="other", fingerprint="cd" * 32, start=4)
    assert analysis.load(store.uri).run_set.dataset == "other"


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"dataset": "pets"}, "on another dataset (pets, not CIFAR-10)"),
        ({"profile": "quick"}, "in the quick profile"),
        ({"modified": "training.epochs=2"}, "with modified settings"),
    ],
)
def test_runs_with_other_data_profile_or_settings_give_no_verdicts(store, made, told):
    for i, count in ((0, 400), (1, 829)):
        store.add(LADDER[i], right(N, count), **made)
    content = analysis.load(store.uri)
    assert {s.verdict for s in content.systems} == {"not comparable", "not run"}
    assert {j.verdict for j in content.claims} == {"not comparable", "not run"}
    assert content.claims[4].value == pytest.approx(0.429)
    lead = message.message(content).lead
    assert "runs: 2 of 6. The highest test accuracy is 82.9 %, reached by rung 2" in lead
    assert told in lead
    text = (build(store) / output.PAGE).read_text()
    assert told in text
    assert "published (CIFAR-10) †" in text
    assert not re.search(r'class="chip (holds|fails|undecided)', text)
    assert ("--data path/of/pets" in text) == ("dataset" in made)


def test_a_user_s_own_rung_is_not_counted_with_the_published_rungs(store):
    store.add(LADDER[0], right(N, 720))
    store.add("06_mine", right(N, 900), like=LADDER[4])
    store.add("02_mine", right(N, 900), like=LADDER[1])  # 02 is the number of a published rung
    content = analysis.load(store.uri)
    assert [step.after.name for step in content.steps] == [*LADDER[1:], "06_mine"]
    lead = "There is no verdict yet: of the six published accuracies, one is undecided"
    assert message.message(content).lead == f"{lead} and five are not run."


def test_the_newest_run_of_the_newest_configuration_is_shown(store):
    old = {"config_hash": "0" * 64}
    store.add(LADDER[0], right(N, 100), tags=old, start=1)
    store.add(LADDER[0], right(N, 200), start=2)
    store.add(LADDER[0], right(N, 300), start=3)
    content = analysis.load(store.uri)
    assert content.systems[0].accuracies == [0.3]
    assert "leaves out 2 older runs whose seed was run again or whose" in " ".join(content.notes)
    store.add(LADDER[0], right(N, 400), tags=old, start=4)
    content = analysis.load(store.uri)
    assert content.systems[0].accuracies == [0.4]
    assert "the experiment file has changed since the report's runs" in " ".join(content.notes)
