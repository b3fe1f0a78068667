"""Tests that a study can define networks, and can use Keras's optimizers and schedules."""

import hashlib
import inspect
import shutil

import keras
import numpy as np
import pytest
from conftest import assert_interrupted, assert_same_outcome, bars
from test_own_studies import RUNG, changed, study_of

from resnet import UserError, records
from resnet.engines import run_jobs
from resnet.network import build, building, layers
from resnet.store import connect, download
from resnet.study import Job, signatures
from resnet.training import train

NETWORKS = '''
from typing import Annotated

import keras
from keras import layers
from pydantic import Field

Width = Annotated[int, Field(ge=1, le=512)]


def basic(input_shape, classes, *, width: Width = 8, blocks: int = 1, final: str = "softmax"):
    """Basic blocks of He et al."""
    x = image = keras.Input(input_shape)
    x = _unit(x, width, "stem")
    for b in range(blocks):
        y = _unit(x, width, f"block{b}_first")
        y = layers.Conv2D(width, 3, padding="same", name=f"block{b}_second")(y)
        y = layers.BatchNormalization(name=f"block{b}_second_bn")(y)
        x = layers.ReLU(name=f"block{b}")(layers.Add(name=f"block{b}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(classes, activation=final, name="head")(x))


def _unit(x, width, name):
    x = layers.Conv2D(width, 3, padding="same", kernel_initializer="he_normal", name=name)(x)
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))
'''
TRAINING = {
    "epochs": 4,
    "learning_rate": 0.1,
    "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    "schedule": {"name": "piecewise_constant", "boundaries": [2, 3], "values": [0.1, 0.01, 0.001]},
    "l2": 1e-4,
}


def written(folder, networks=NETWORKS):
    folder.mkdir()
    (folder / "networks.py").write_text(networks)
    first = RUNG | {"title": "Basic", "model": {"architecture": "basic"}}
    files = {
        "01_basic": first | {"training": RUNG["training"] | TRAINING},
        "02_wider": {"extends": "01_basic", "title": "Wider", "model": {"width": 12}},
        "claims": {"seeds": 1, "credited": {"02_wider": ["model.width"]}},
        "study": {"name": "mine", "about": "my network", "dataset": "bars"},
    }
    return study_of(folder, files)


@pytest.fixture
def study(tmp_path):
    return written(tmp_path / "mine")


def test_the_parameters_of_a_network_function_are_settings_of_the_model(study):
    e = study.experiment("01_basic")
    assert e.model.settings == {"width": 8, "blocks": 1, "final": "softmax"}
    assert e.model.code_sha256 == hashlib.sha256(NETWORKS.encode()).hexdigest()
    assert study.experiment("01_basic", overrides=["model.width=9"]).model.settings["width"] == 9
    whole_number = "it must be a whole number, at least 1 and at most 512"
    for changes, told in (
        ({"width": 0}, f"model.width: 0 is not allowed; {whole_number}"),
        ({"widht": 3}, "model.widht: unknown key (did you mean 'width'?); allowed: width"),
        ({"architecture": "basi"}, "(did you mean 'basic'?); allowed: residual, vgg, basic"),
    ):
        changed(study, "01_basic", model={"architecture": "basic"} | changes)
        with pytest.raises(UserError) as error:
            study.experiment("01_basic")
        assert told in str(error.value)


def test_a_change_of_the_network_file_changes_the_hashes_of_experiments_that_use_it(study):
    before = study.experiment("01_basic")
    (study.folder / "networks.py").write_text(NETWORKS.replace("ReLU", "ELU"))
    after = study.experiment("01_basic")
    for of in ("hash", "trajectory", "program"):
        assert getattr(before, of)() != getattr(after, of)()
    vgg = {"architecture": "vgg"}
    shipped = changed(study, "01_basic", model=vgg).experiment("01_basic")
    assert shipped.code == "" and "code_sha256" not in shipped.to_yaml()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("def basic", "def basic(: "), "networks.py, line 11: is not valid Python"),
        (("width: Width", "width: Widths"), "networks.py: basic: width: the type or default"),
        (("layers.Dense(classes", "layers.Dense(7"), "returns (None, 7). Return probabilities"),
        (("layers.Add(", "layers.Ad("), "networks.py, line 19: basic: AttributeError"),
        (
            ("return keras.Model(", "return type('Net', (keras.Model,), {})("),
            "training.l2: the kernels of stem cannot be regularised. In networks.py, return",
        ),
        (("le=512)]", "le=512)]\nimport nothing"), "networks.py, line 9: basic: ModuleNotFound"),
    ],
)
def test_a_mistake_in_the_network_file_is_reported_with_its_place(tmp_path, change, told):
    study = written(tmp_path / "mine", NETWORKS.replace(*change))
    with pytest.raises(UserError) as error:
        build(study.experiment("01_basic"), (8, 8, 3), 4, 0)
    assert told in str(error.value)


def test_layers_of_keras_are_replaced_by_equal_layers_of_the_project(study):
    network = build(study.experiment("01_basic"), (8, 8, 3), 4, 0)
    assert sum(type(layer) is layers.Conv2D for layer in network.layers) == 3
    assert all(
        type(layer).__module__.startswith("keras") for layer in building.stock(network).layers
    )
    kernel = next(layer.kernel for layer in network.layers if layer.name == "stem")
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / 27), rel=0.2)  # he_normal: sqrt(2 / fan_in)


def test_layers_of_nested_networks_are_regularised_and_replaced_too(tmp_path):
    inner = """x = keras.Sequential(
        [layers.Conv2D(4, 1, padding="same", name="deep"), layers.BatchNormalization()], name="in"
    )(x)
    x = layers.GlobalAveragePooling2D(name"""
    networks = NETWORKS.replace("x = layers.GlobalAveragePooling2D(name", inner)
    network = build(written(tmp_path / "mine", networks).experiment("01_basic"), (8, 8, 3), 4, 0)
    (deep,) = (layer for name, layer in building.leaves(network) if name == "in/deep")
    assert type(deep) is layers.Conv2D and deep.kernel_regularizer.l2 == np.float32(1e-4)


@pytest.mark.parametrize("kind", ["channel", "pixel"])
def test_standardized_images_equal_those_of_keras_s_normalization_layer(study, kind):
    dataset = bars()
    dataset.x_train[:, 0, 0] = 0  # a pixel that is the same in all images
    e = study.experiment("01_basic", overrides=[f"data.standardize={kind}"])
    network = build(e, (8, 8, 3), 4, 0, dataset.x_train)
    plain = build(study.experiment("01_basic"), (8, 8, 3), 4, 0)
    assert [v.name for v in network.weights] == [v.name for v in plain.weights]
    theirs = keras.layers.Normalization(axis=-1 if kind == "channel" else (1, 2, 3))
    theirs.adapt(dataset.x_train / np.float32(255))
    x = dataset.x_test.copy()
    x[:, 0, 0] = 0
    expected = plain.predict(theirs(x / np.float32(255)), verbose=0)
    np.testing.assert_allclose(
        network.predict(x / np.float32(255), verbose=0), expected, rtol=1e-3, atol=1e-5
    )
    model = building.served(network, 255)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-3, atol=1e-5)
    told = building.notes(network)["standardize"]
    assert told.startswith("mean [0." if kind == "channel" else "SHA-256 ")
    assert building.multiply_adds(network) == building.multiply_adds(plain) > 0


def test_runs_of_a_study_s_own_network_resume_exactly_and_can_be_restored(study, empty, tmp_path):
    dataset, e = bars(), study.experiment("01_basic")
    whole = train(e, dataset, 0, str(tmp_path / "whole"))
    assert [round(r["learning_rate"], 6) for r in whole.history] == [0.1, 0.1, 0.01, 0.001]
    assert_interrupted(37, e, dataset, 0, str(tmp_path / "parts"))
    assert_same_outcome(whole, train(e, dataset, 0, str(tmp_path / "parts")))

    for name in "ab":
        (tmp_path / name).mkdir()
        shutil.copyfile(empty, tmp_path / name / "mlflow.db")
    store = connect(f"sqlite:///{tmp_path / 'a' / 'mlflow.db'}", study)
    assert run_jobs([Job(e, 0)], dataset, store, lambda event: None, name="x")[0] == 0
    (run,) = store.search(role="rung")
    assert run.data.metrics["test_accuracy"] == whole.test_accuracy
    record = records.to_record(store, run)
    path = records.save(record, tmp_path / "results")
    assert "\n".join(records.load(path).networks) == NETWORKS
    other = records.connect_recorded(f"sqlite:///{tmp_path / 'b' / 'mlflow.db'}", study)
    records.restore(other, {path: record})
    (back,) = other.search()
    assert download(other.uri, back, "networks.py", tmp_path).read_text("utf-8") == NETWORKS
    (model,) = store.client.search_registered_models()
    assert model.name in ("mine-bars", "mine")


def test_the_settings_of_optimizers_match_the_parameters_of_keras_s_constructors():
    for name, schema in signatures.of_keras("optimizers").items():
        kind = signatures.keras_class(keras.optimizers, name)
        theirs = inspect.signature(kind.__init__).parameters
        assert {*schema.model_fields} <= {*theirs}
        for key, field in schema.model_fields.items():
            if theirs[key].default is not inspect.Parameter.empty:
                assert field.default == theirs[key].default
    assert {"sgd", "adam", "adamw", "rmsprop", "lion"} <= {*signatures.of_keras("optimizers")}
    assert {"piecewise_constant", "cosine", "exponential"} <= {*signatures.of_keras("schedules")}
