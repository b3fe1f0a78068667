import contextlib
import itertools
import uuid
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import SMALL, assert_interrupted, assert_same_outcome, experiment
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from resnet import Interrupted, UserError, records
from resnet.network import building
from resnet.study import Job, change
from resnet.training import Epochs, checkpoints, loop, make_steps, steps, train

# -- the split and the batches ------------------------------------------------------------------


def test_the_split_and_the_batch_counts_equal_those_of_image_data_generator():
    n = 50_000
    epochs = Epochs.make(experiment("02_augmentation"), n, (32, 32), seed=0)
    generator = ImageDataGenerator(validation_split=0.2)
    # Each image has one pixel, whose value is the image's number.
    ids = np.arange(n, dtype="float32").reshape(n, 1, 1, 1)
    for subset, ours in (("training", epochs.train), ("validation", epochs.validation)):
        flow = generator.flow(ids, batch_size=32, subset=subset, shuffle=False)
        held = np.concatenate([flow[i].ravel() for i in range(len(flow))])
        np.testing.assert_array_equal(held, ours)
    # The study sets steps_per_epoch and validation_steps to the two subsets' image counts // 32.
    assert epochs.steps == len(epochs.batches(0)) == 40_000 // 32 == 1250
    assert epochs.validation_images == 10_000 // 32 * 32 == 312 * 32
    looked_at = np.concatenate([positions for positions, _ in epochs.validation_batches(3)])
    assert len(looked_at) == len(set(looked_at)) == 9_984
    assert set(looked_at) <= set(epochs.validation)


def test_rung_1_splits_the_images_as_keras_s_fit_does():
    n = 163  # not a multiple of the batch size
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, trainable=False)])

    def mean_id(y_true, y_pred):
        return y_true

    network.compile(loss="mse", metrics=[mean_id])
    ids = np.arange(n, dtype="float32")
    history = network.fit(
        ids[:, None], ids[:, None], validation_split=0.2, batch_size=32, shuffle=False, verbose=0
    ).history
    epochs = Epochs.make(experiment("01_template"), n, (8, 8), seed=0)
    assert history["mean_id"][0] == pytest.approx(epochs.train.mean())
    assert history["val_mean_id"][0] == pytest.approx(epochs.validation.mean())
    template = Epochs.make(experiment("01_template"), 50_000, (32, 32), seed=0)
    assert template.steps == 1250
    assert template.validation_images == 10_000  # 313 batches


@pytest.mark.parametrize("name", ["01_template", "02_augmentation"])
def test_each_epoch_has_every_training_image_once_in_a_new_order(name):
    epochs = Epochs.make(experiment(name), 200, (8, 8), seed=3)
    orders = [np.concatenate([p for p, _ in epochs.batches(epoch)]) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == sorted(epochs.train)
    assert not np.array_equal(orders[0], orders[1])
    again = Epochs.make(experiment(name), 200, (8, 8), seed=3)
    other = Epochs.make(experiment(name), 200, (8, 8), seed=4)
    np.testing.assert_array_equal(np.concatenate([p for p, _ in again.batches(1)]), orders[1])
    assert not np.array_equal(np.concatenate([p for p, _ in other.batches(1)]), orders[1])


def test_augmentation_changes_every_epoch_and_applies_to_validation_images():
    epochs = Epochs.make(experiment("02_augmentation"), 200, (8, 8), seed=0)
    first, second = (np.concatenate([t for _, t in epochs.batches(e)]) for e in (0, 1))
    assert not np.array_equal(first, second)
    assert all(transforms is not None for _, transforms in epochs.validation_batches(0))
    template = Epochs.make(experiment("01_template"), 200, (8, 8), seed=0)
    for batches in (template.batches(0), template.validation_batches(0)):
        assert all(transforms is None for _, transforms in batches)


@pytest.mark.parametrize(
    ("n", "fraction", "message"),
    [
        (30, 0.2, "batch_size: 32 is too large for 24 training"),
        (100, 0.001, "data.validation.fraction: 0.001 is too small for 100 images"),
        (100, 0.005, "data.validation.fraction: 0.005 is too small for 100 images"),
    ],
)
def test_too_few_images_are_a_user_error(n, fraction, message):
    e = experiment("02_augmentation", data={"validation": {"fraction": fraction}})
    with pytest.raises(UserError, match=message):
        Epochs.make(e, n, (8, 8), seed=0)


def test_same_classes_is_false_if_a_class_has_validation_images_only():
    epochs = Epochs.make(experiment("02_augmentation"), 200, (8, 8), seed=0)
    mixed = np.arange(200) % 4
    assert epochs.same_classes(mixed)
    assert not epochs.same_classes(np.sort(mixed))


# -- the loop -----------------------------------------------------------------------------------


def test_loss_and_accuracy_are_means_over_all_images(dataset):
    e = experiment("01_template", **SMALL)
    network = building.build(e, (8, 8, 3), 4, seed=0)
    steps = make_steps(network, dataset.x_train, dataset.y_train, e)
    steps.test((np.arange(100, dtype="int32"), None), 0)
    steps.test((np.arange(100, 160, dtype="int32"), None), 1)
    p = network.predict(dataset.x_train.astype("float32") / 255, verbose=0)
    of_truth = p[np.arange(160), dataset.y_train]
    assert steps.logs()["loss"] == pytest.approx(-np.log(of_truth).mean(), rel=1e-4)
    assert steps.logs()["accuracy"] == pytest.approx((p.argmax(1) == dataset.y_train).mean())


# -- callbacks ----------------------------------------------------------------------------------


def small_network():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    network.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    some = np.eye(2)[:1]  # Keras creates the metrics on first use
    network.compute_loss(y=some, y_pred=some)
    network.compute_metrics(None, some, some)
    return network


def begin(e, folder):
    """Makes a trainer whose steps do nothing. The test sets the weights instead."""
    nothing = {"pull": lambda: None, "push": lambda: None}
    steps = SimpleNamespace(lanes=1, network=small_network(), **nothing)
    return loop._Trainer(Job(e, 0), steps, None, folder, lambda event: None, lambda: False)


def set_to(network, epoch):
    network.set_weights([np.full_like(w, epoch) for w in network.get_weights()])


def keras_alone(callbacks, curve):
    """Runs Keras's callbacks on a curve. Returns the rates, the stopping epoch and one weight."""
    network, rates, stopped = small_network(), [], None
    network.stop_training = False
    for callback in callbacks:
        callback.set_model(network)
        callback.on_train_begin()
    for epoch, logs in enumerate(curve):
        set_to(network, epoch)
        rates.append(float(network.optimizer.learning_rate.numpy()))
        for callback in callbacks:
            callback.on_epoch_end(epoch, dict(logs))
        if network.stop_training:
            stopped = epoch
            break
    for callback in callbacks:
        callback.on_train_end()
    return rates, stopped, network.get_weights()[0][0, 0]


# Like real curves, these values rise, fall, repeat, or change by less than min_delta.
points = st.tuples(
    st.sampled_from([0.5, 0.4, 0.40005, 0.3, 0.2999, 0.2]) | st.floats(0, 3, width=32),
    st.sampled_from([0.5, 0.6, 0.60005, 0.7]) | st.floats(0, 1, width=32),
)


@settings(max_examples=25, deadline=None)
@given(
    curve=st.lists(points, min_size=1, max_size=40),
    name=st.sampled_from(["03_deeper_early_stopping", "04_lr_schedule"]),
    patience=st.sampled_from([(10, 5), (3, 1)]),
    kills=st.sets(st.integers(1, 39), max_size=2),
)
def test_callbacks_act_like_keras_s_callbacks_even_after_resumes(curve, name, patience, kills):
    curve = [
        {"loss": loss, "accuracy": acc, "val_loss": loss, "val_accuracy": acc}
        for loss, acc in curve
    ]
    e = experiment(name, training={"early_stopping": {"patience": patience[0]}})
    if e.training.reduce_lr_on_plateau:
        e = change(e, {"training": {"reduce_lr_on_plateau": {"patience": patience[1]}}}, "test")
    # The study passes these arguments to Keras's callbacks.
    stock = [
        keras.callbacks.EarlyStopping(
            monitor="val_loss" if name.startswith("04") else "val_accuracy",
            patience=patience[0],
            min_delta=1e-4,
            restore_best_weights=True,
        )
    ]
    if name.startswith("04"):
        stock.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss", factor=0.2, patience=patience[1], min_lr=1e-5
            )
        )
    folder = f"memory://{uuid.uuid4().hex}"
    trainer = begin(e, folder)
    for epoch, logs in enumerate(curve):
        if not trainer.due:
            break
        set_to(trainer.network, epoch)
        record = logs | {"epoch": epoch + 1, "learning_rate": trainer.rate}
        trainer.save(record)
        trainer.end_epoch(record)
        if epoch in kills:
            trainer = begin(e, folder)
            assert trainer.resume() == {}
            assert trainer.history[-1] == record
    stopped = len(trainer.history) - 1 if trainer.network.stop_training else None
    trainer.callbacks["early_stopping"].on_train_end()
    rates = [record["learning_rate"] for record in trainer.history]
    got = rates, stopped, trainer.network.get_weights()[0][0, 0]
    assert got == keras_alone(stock, curve[: e.training.epochs])


def test_restore_best_weights_determines_the_tested_epoch(dataset, tmp_path, monkeypatch):
    for setting, stops, restored in (
        ("always", False, True),  # trains four epochs, which the next cases reuse
        ("always", True, True),
        ("when_stopped", True, True),
        ("when_stopped", False, False),
        ("never", True, False),
    ):
        stopping = {"patience": 2 if stops else 9, "restore_best_weights": setting}
        training = {"epochs": 4, "early_stopping": stopping}
        e = experiment("03_deeper_early_stopping", **SMALL, training=training)
        # Epoch 1 is the best epoch of this curve.
        curve = iter([0.9, 0.5, 0.5, 0.5])
        monkeypatch.setattr(
            keras.callbacks.EarlyStopping,
            "get_monitor_value",
            lambda self, logs, curve=curve: next(curve),
        )
        outcome = train(e, dataset, 0, tmp_path)
        assert len(outcome.history) == (3 if stops else 4)
        assert outcome.stopped_epoch == (3 if stops else 0)
        assert outcome.best_epoch == 1
        assert outcome.tested_epoch == (1 if restored else len(outcome.history))


# -- checkpoints --------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    compressed=st.booleans(),
    damage=st.sampled_from(["cut", "flip", "empty"]),
    where=st.floats(0, 0.999),
    bit=st.integers(0, 7),
)
def test_a_damaged_checkpoint_is_a_user_error(tmp_path_factory, compressed, damage, where, bit):
    path = tmp_path_factory.mktemp("checkpoint") / "state.npz"
    arrays = {"variable_0": np.arange(100.0)}
    checkpoints.save(str(path), arrays, {"history": [], "x": 0.1})
    if compressed:
        with np.load(path) as plain:
            np.savez_compressed(path, **plain)
    content = bytearray(path.read_bytes())
    position = int(where * len(content))
    if damage == "flip":
        content[position] ^= 1 << bit
    else:
        content = content[: position if damage == "cut" else 0]
    path.write_bytes(content)
    try:
        loaded, meta = checkpoints.load(str(path))
    except UserError as error:
        assert str(error).isprintable()
        assert "--fresh" in str(error)
    else:  # the damaged bit does not matter; it may be in a time stamp
        np.testing.assert_array_equal(loaded["variable_0"], arrays["variable_0"])
        assert meta == {"history": [], "x": 0.1}


def test_a_checkpoint_with_a_pickle_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    np.savez(path, meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        checkpoints.load(str(path))


def test_resume_from_every_step_is_exact(dataset, tmp_path):
    """The run has dropout, augmentation and both callbacks. It is stopped again and again."""
    callbacks = {"early_stopping": {"patience": 2}, "reduce_lr_on_plateau": {"patience": 1}}
    e = experiment("05_deeper_dropout", **SMALL, training={"epochs": 4} | callbacks)
    whole = train(e, dataset, 0, tmp_path / "whole")
    for calls in itertools.count(3):  # each attempt makes one step more than the attempt before
        asked = itertools.count(1)
        with contextlib.suppress(Interrupted):
            parts = train(
                e, dataset, 0, tmp_path / "parts", should_stop=lambda a=asked, n=calls: next(a) == n
            )
            break
    assert calls >= 5
    assert_same_outcome(whole, parts)


def test_runs_of_one_trajectory_share_epochs_without_a_change_of_results(dataset, tmp_path):
    """Runs that differ in length, monitor or schedule share epochs until a learning rate drops."""

    def of(epochs, monitor=None, schedule=False):
        stop = {"monitor": monitor, "patience": 9, "min_delta": 0, "restore_best_weights": "always"}
        plateau = {"monitor": "val_loss", "factor": 0.2, "patience": 1, "min_lr": 1e-5}
        return experiment(
            "02_augmentation",
            **SMALL,
            training={
                "epochs": epochs,
                "early_stopping": stop if monitor else None,
                "reduce_lr_on_plateau": plateau | {"min_delta": 10.0} if schedule else None,
            },
        )

    shared = {}
    for e, epochs in (
        (of(3), 0),
        (of(4, "val_accuracy"), 3),
        (of(4, "val_loss"), 4),
        (of(4, "val_loss", schedule=True), 2),  # min_delta is 10, so the rate drops after epoch 2
        (of(2), 2),
    ):
        outcome = train(e, dataset, 0, tmp_path / "shared")
        assert outcome.shared_epochs == epochs
        shared[e.hash()] = outcome
        alone = train(e, dataset, 0, tmp_path / e.hash())
        assert alone.shared_epochs == 0
        assert_same_outcome(alone, outcome)
    dropped = shared[of(4, "val_loss", schedule=True).hash()]
    rates = [round(record["learning_rate"], 6) for record in dropped.history]
    assert rates[:4] == [0.001, 0.001, 0.0002, 0.00004]


@pytest.mark.parametrize("how", ["lacks one", "has one more", "of another shape"])
def test_a_checkpoint_of_another_network_is_a_user_error(dataset, tmp_path, how):
    e = experiment("01_template", **SMALL, training={"epochs": 1})
    train(e, dataset, 0, tmp_path)
    (path,) = tmp_path.glob("*.npz")
    arrays, meta = checkpoints.load(str(path))
    if how == "lacks one":
        del arrays["variable_3"]
    elif how == "has one more":
        arrays["variable_99"] = np.zeros(1)
    else:
        arrays["variable_3"] = np.zeros((7, 7))
    checkpoints.save(str(path), arrays, meta)
    with pytest.raises(UserError, match=r"belongs to a network that .* --fresh"):
        train(e, dataset, 0, tmp_path)


@pytest.mark.parametrize("monitor", ["val_loss", "loss", "val_accuracy"])
def test_early_stopping_ends_a_diverged_training(dataset, tmp_path, monitor):
    """Keras keeps NaN as the best value, so no later epoch is an improvement."""
    e = experiment(
        "04_lr_schedule",
        **SMALL,
        data={"pixel_scale": 1e-38},
        training={"epochs": 9, "early_stopping": {"monitor": monitor, "patience": 3}},
    )
    outcome = train(e, dataset, 0, tmp_path)
    assert np.isnan(outcome.history[0]["loss"])
    assert outcome.stopped_epoch == 4 and len(outcome.history) == 4
    assert 0 < outcome.test_accuracy < 1
    assert records.diverged(record["loss"] for record in outcome.history) == 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow only")
@pytest.mark.parametrize("augmented", [False, True])
def test_results_do_not_depend_on_the_steps_per_call(dataset, tmp_path, monkeypatch, augmented):
    data = {"augmentation": {"crop_padding": 1, "horizontal_flip": True} if augmented else None}
    e = experiment("02_augmentation", **SMALL, data=data, training={"epochs": 2, "batch_size": 8})
    monkeypatch.setattr(steps, "STEPS", 5)  # an epoch has three 5-step calls and a 1-step call
    many = train(e, dataset, 0, str(tmp_path / "many"))
    assert_interrupted(3, e, dataset, 0, str(tmp_path / "parts"))
    assert_same_outcome(many, train(e, dataset, 0, str(tmp_path / "parts")))
    monkeypatch.setattr(steps, "SMALL", 0)
    assert_same_outcome(many, train(e, dataset, 0, str(tmp_path / "single")))
