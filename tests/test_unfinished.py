"""States packed for git: who goes on from them ends with the same bits."""

import importlib.util

import keras
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import SMALL, assert_same_outcome, experiment

from report import claims
from resnet import Interrupted, config, training

_spec = importlib.util.spec_from_file_location("pack", ROOT / "results" / "unfinished" / "pack.py")
pack = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pack)

# rounded, so that values are often equal or less than the callbacks' delta apart
FIGURE = st.floats(0, 0.002).map(lambda value: round(value, 5))


@settings(deadline=None)
@given(st.lists(st.tuples(FIGURE, FIGURE), min_size=1, max_size=20))
def test_what_keras_s_callbacks_ask_for_is_kept(curves):
    records = [{"val_loss": loss, "val_accuracy": accuracy} for loss, accuracy in curves]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    stops = [
        keras.callbacks.EarlyStopping(m, 1e-4, 100, mode=mode)
        for m, mode in (("val_loss", "min"), ("val_accuracy", "max"))
    ]
    plateau = keras.callbacks.ReduceLROnPlateau("val_loss", 0.2, 5, min_delta=1e-4, mode="min")
    for callback in (*stops, plateau):
        callback.set_model(model)
        callback.on_train_begin()
    parting = {len(records)}
    for epoch, record in enumerate(records, 1):
        before = float(model.optimizer.learning_rate)
        for callback in (*stops, plateau):
            callback.on_epoch_end(epoch - 1, dict(record))
        if float(model.optimizer.learning_rate) != before:
            parting.add(epoch)
    whole, weights = pack.needed(records)
    assert parting <= whole
    assert {stop.best_epoch + 1 for stop in stops} <= weights


def test_the_epochs_that_are_kept_are_those_of_the_files():
    experiments = [config.load(config.find()[name]) for name in claims.load_study().published]
    assert set(pack.LAST) == {e.training.epochs for e in experiments}


def test_going_on_from_packed_states_is_exact(dataset, tmp_path):
    """In the fifth and, packed once more, in the sixth epoch."""
    e = experiment(
        "05_deeper_dropout",
        **SMALL,
        training={"epochs": 6, "reduce_lr_on_plateau": {"patience": 5, "min_delta": 10.0}},
    )
    whole = training.train(e, dataset, 0, tmp_path / "whole")
    folder = tmp_path / "begun"
    for batches in (22, 7):
        calls = iter(range(batches))
        with pytest.raises(Interrupted):
            training.train(e, dataset, 0, folder, should_stop=lambda c=calls: next(c, None) is None)
        pack.pack(folder, folder := tmp_path / f"packed{batches}")
        states = [dict(np.load(path)) for path in folder.glob("*.npz")]
        assert any(np.isnan(array).all() for state in states for array in state.values())
    assert_same_outcome(whole, training.train(e, dataset, 0, folder))
