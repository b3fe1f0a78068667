"""Tests that ``ladder ablate`` derives the right experiments from steps and assumed values."""

import pytest
import yaml
from conftest import changed_keys

from resnet import UserError
from resnet.study import Study, ablation, from_yaml, load, rung_number
from resnet.terminal import Options

KNOWN = {name: load(path) for name, path in Study.open().files.items()}
SCHEDULE = ("epochs", "early_stopping", "reduce_lr_on_plateau")
RUNGS = [name for name in KNOWN if rung_number(name) is not None]


def parts(text):
    return ablation.derived(text, list(KNOWN), KNOWN.__getitem__)


def step(rung):
    before, after = (RUNGS[-1], rung) if rung in KNOWN else RUNGS[rung - 2 : rung]
    return KNOWN[before], KNOWN[after]


@pytest.mark.parametrize(
    ("rung", "expected"),
    [
        (2, ["data.validation", "data.augmentation"]),
        (3, ["model.identity_blocks", "training.early_stopping"]),
        (4, [f"training.{key}" for key in SCHEDULE]),
        (5, ["model.identity_blocks", "model.dropout", "training.epochs"]),
        ("vgg", ["model", *(f"training.{key}" for key in SCHEDULE)]),  # another architecture
    ],
)
def test_the_factors_are_the_settings_that_differ_between_two_experiments(rung, expected):
    assert list(ablation.factors(*step(rung))) == expected


@pytest.mark.parametrize("rung", [2, 3, 4, 5, "vgg"])
def test_a_derived_experiment_differs_from_both_rungs_in_the_expected_factors(rung):
    before, after = step(rung)
    found = ablation.subsets(before, after)
    keys = list(ablation.factors(before, after))
    assert len(found) == 2 ** len(keys)
    assert found[frozenset()] == before
    assert found[frozenset(keys)] == after
    assert len({e.hash() for e in found.values()}) == len(found)
    for chosen, e in found.items():
        assert set(ablation.factors(before, e)) == chosen
        assert set(ablation.factors(e, after)) == set(keys) - chosen
        assert from_yaml(e.to_yaml(), "test").hash() == e.hash()
        assert set(e.assumed) <= {*before.assumed, *after.assumed}
        if e not in (before, after):
            assert rung_number(e.name) is None


def test_a_derived_experiment_takes_each_reason_from_the_rung_that_sets_the_value():
    before, after = step(4)
    key = "training.reduce_lr_on_plateau.min_delta"
    for chosen, e in ablation.subsets(before, after).items():
        assert (key in e.assumed) == ("training.reduce_lr_on_plateau" in chosen)


def test_derived_experiments_that_differ_only_in_when_they_stop_share_a_trajectory():
    of = {n: {e.trajectory() for e in ablation.subsets(*step(n)).values()} for n in (2, 3, 4, 5)}
    assert {n: len(found) for n, found in of.items()} == {2: 4, 3: 2, 4: 1, 5: 4}


def test_rungs_are_selected_by_number_and_each_experiment_is_derived_once():
    assert [e.name for e in parts("3")] == [
        "02_augmentation",
        "03_deeper_early_stopping",
        "03_deeper_early_stopping~identity_blocks",
        "03_deeper_early_stopping~early_stopping",
    ]
    both = [e.name for e in parts("3,4")]
    assert both[:3] == ["02_augmentation", "03_deeper_early_stopping", "04_lr_schedule"]
    assert both.count("03_deeper_early_stopping") == 1
    assert len(parts("all")) == 5 + 2 + 2 + 6 + 6
    with pytest.raises(UserError, match="rungs 1: no rung precedes 01_template; choose"):
        parts("1")
    with pytest.raises(UserError, match="rungs 9: there is no rung 9"):
        parts("9")


def test_an_alternative_changes_one_assumed_value():
    names = [e.name for e in parts("assumed")]
    assert len(names) == len(set(names))
    for e in KNOWN.values():
        for (key, reason), other in ablation.alternatives(e).items():
            assert reason
            assert other.name in names
            assert changed_keys(e, other) == [key]
            assert key in e.assumed
            assert key not in other.assumed
            assert not other.alternatives.get(key)


def test_only_assumed_keys_can_have_alternatives(tmp_path):
    base = KNOWN["01_template"].model_dump(exclude={"name", "code"})
    (tmp_path / "01_a.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "02_b.yaml").write_text("extends: 01_a\nassumed: {training.epochs: null}\n")
    assert "training.epochs" not in load(tmp_path / "02_b.yaml").alternatives
    (tmp_path / "02_b.yaml").write_text(
        "extends: 01_a\nalternatives: {model.dropout: [{value: 0.5, reason: why not}]}\n"
    )
    with pytest.raises(UserError, match=r"model\.dropout' is not among the assumed"):
        load(tmp_path / "02_b.yaml")


def test_experiments_that_an_override_makes_equal_are_trained_once():
    due = Options("4", set_=["training.epochs=30"], ablate=True).due()
    chosen = [job.experiment for job in due]
    assert len(chosen) == len({e.hash() for e in chosen}) == 4
    assert {"03_deeper_early_stopping", "04_lr_schedule"} <= {e.name for e in chosen}
