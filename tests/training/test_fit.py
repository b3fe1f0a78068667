"""Checks training against Keras's ``fit``: optimizers, schedules, label smoothing and l2."""

import re

import keras
import numpy as np
import pytest
from conftest import bars, experiment

from resnet.network import build, building
from resnet.training import train

SGD = {"learning_rate": 0.05, "optimizer": {"name": "sgd"}}
WARM = {"name": "cosine", "decay_steps": 4, "warmup_target": 0.1, "warmup_steps": 2}
CASES = {
    "sgd with momentum": (
        {"learning_rate": 0.05, "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}},
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    ),
    "adamw": (
        {"learning_rate": 0.001, "optimizer": {"name": "adamw", "weight_decay": 0.01}},
        lambda: keras.optimizers.AdamW(0.001, weight_decay=0.01),
    ),
    "clipped": (
        {"learning_rate": 0.05, "optimizer": {"name": "sgd", "global_clipnorm": 0.1}},
        lambda: keras.optimizers.SGD(0.05, global_clipnorm=0.1),
    ),
    "label smoothing": (SGD | {"label_smoothing": 0.1}, lambda: keras.optimizers.SGD(0.05)),
    "l2": (SGD | {"l2": 0.01}, lambda: keras.optimizers.SGD(0.05)),
    "cosine with warm-up": (SGD | {"schedule": WARM}, lambda: keras.optimizers.SGD(0.05)),
    "residual": (  # a larger rate would amplify rounding errors
        SGD | {"learning_rate": 0.002, "model": {"identity_blocks": [1, 0, 0]}},
        lambda: keras.optimizers.SGD(0.002),
    ),
    "steps": (
        SGD
        | {"schedule": {"name": "piecewise_constant", "boundaries": [1], "values": [0.05, 0.01]}},
        lambda: keras.optimizers.SGD(0.05),
    ),
}


def rate(epoch):
    """Returns the learning rate. It rises from 0.05 to 0.1 by epoch 2 and falls to 0 by epoch 6."""
    if epoch < 2:
        return 0.05 + 0.05 * epoch / 2
    return 0.05 * (1 + np.cos(np.pi * (epoch - 2) / 4))


def regularized(l2):
    """Returns a function that clones a layer and adds an L2 regulariser to the clone's kernel."""

    def clone(layer):
        config = layer.get_config()
        if l2 and "kernel_regularizer" in config:
            config["kernel_regularizer"] = keras.regularizers.L2(l2)
        return type(layer).from_config(config)

    return clone


@pytest.mark.parametrize("case", CASES)
def test_training_equals_keras_s_fit(case, tmp_path):
    settings, optimizer = CASES[case]
    vgg = {"architecture": "vgg", "filters": [4], "convolutions": 1, "dense": [8], "dropout": 0.0}
    training = {"epochs": 4, "batch_size": 16, "shuffle": "never"} | settings
    e = experiment("01_template", model=training.pop("model", vgg), training=training)
    dataset = bars()
    ours = train(e, dataset, 0, str(tmp_path))

    network = building.stock(build(e, (8, 8, 3), 4, 0))
    theirs = keras.models.clone_model(network, clone_function=regularized(settings.get("l2")))
    theirs.set_weights(network.get_weights())
    theirs.compile(
        optimizer(),
        keras.losses.CategoricalCrossentropy(label_smoothing=settings.get("label_smoothing", 0.0)),
        metrics=["accuracy"],
    )
    callbacks = []
    if case == "cosine with warm-up":
        callbacks = [keras.callbacks.LearningRateScheduler(rate)]
    if case == "steps":
        callbacks = [keras.callbacks.LearningRateScheduler(lambda n: 0.05 if n < 1 else 0.01)]
    x, y = dataset.x_train / np.float32(255), keras.utils.to_categorical(dataset.y_train, 4)
    fitted = theirs.fit(
        *(x[:128], y[:128]),
        **{"epochs": 4, "batch_size": 16, "shuffle": False, "verbose": 0, "callbacks": callbacks},
        validation_data=(x[128:], y[128:]),
    )
    for key in ("loss", "val_loss"):
        mine = [record[key] for record in ours.history]
        np.testing.assert_allclose(mine, fitted.history[key], rtol=2e-3, err_msg=key)
    loss, accuracy = theirs.evaluate(
        dataset.x_test / np.float32(255), keras.utils.to_categorical(dataset.y_test, 4), verbose=0
    )
    np.testing.assert_allclose(ours.test_accuracy, accuracy, atol=0.03)
    np.testing.assert_allclose(ours.probabilities.sum(axis=1), np.ones(40), atol=1e-5)
    if "label_smoothing" not in settings and "l2" not in settings:
        np.testing.assert_allclose(ours.test_loss, loss, rtol=2e-3)
    for a, b in zip(ours.network.trainable_variables, theirs.trainable_variables, strict=True):
        if re.search("conv[0-9]?/bias", a.path):
            assert not np.asarray(a).any()  # this project's Conv2D keeps this bias at zero
        else:
            np.testing.assert_allclose(a, b, rtol=0.01, atol=2e-3, err_msg=a.path)


@pytest.mark.parametrize(("ties", "tested"), [("first", 1), ("last", 4)])
def test_the_setting_ties_selects_one_of_several_best_epochs_for_testing(ties, tested, tmp_path):
    still = {"learning_rate": 1e-12, "optimizer": {"name": "sgd"}, "epochs": 4}
    stop = {"monitor": "val_accuracy", "patience": 9, "min_delta": 0.0}
    stop |= {"restore_best_weights": "always", "ties": ties}
    vgg = {"architecture": "vgg", "filters": [4], "convolutions": 1, "dense": [], "dropout": 0.0}
    # With this momentum, the moving statistics stay the same, so all accuracies are equal.
    vgg["batch_norm_momentum"] = 1 - 1e-9
    e = experiment("01_template", model=vgg, training=still | {"early_stopping": stop})
    outcome = train(e, bars(), 0, str(tmp_path))
    assert len({record["val_accuracy"] for record in outcome.history}) == 1
    assert (outcome.best_epoch, outcome.tested_epoch) == (tested, tested)
