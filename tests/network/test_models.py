import subprocess
import sys

import keras
import numpy as np
import pytest

from resnet import UserError
from resnet.network import building, layers, models
from resnet.study import Study, change

STUDY = Study.open()


def build(name, seed=0, shape=(32, 32, 3)):
    return building.build(STUDY.experiment(name), shape, 10, seed)


@pytest.mark.parametrize(
    ("name", "parameters", "convolutions", "multiply_adds"),
    [
        ("01_template", 316_394, 36, 53_977_088),
        ("03_deeper_early_stopping", 326_058, 42, 62_889_984),
        ("05_deeper_dropout", 434_346, 51, 76_259_328),
        ("vgg", 763_530, 9, 67_224_832),
    ],
)
def test_the_study_s_networks_have_the_expected_size(name, parameters, convolutions, multiply_adds):
    network = build(name)
    assert network.count_params() == parameters
    found = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(found) == convolutions and all(layer.use_bias for layer in found)
    assert building.multiply_adds(network) == multiply_adds
    rates = {"05_deeper_dropout": [0.5], "vgg": [0.2]}
    dropout = [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)]
    assert dropout == rates.get(name, [])


def test_a_bottleneck_block_has_three_convolutions_and_a_shortcut():
    image = keras.Input((8, 8, 64))
    network = keras.Model(image, models.identity_block(image, [16, 16, 64], "b"))
    kinds = [type(layer).__name__ for layer in network.layers[1:]]
    main = ["Conv2D", "BatchNormalization", "Activation"] * 3
    assert kinds == [*main[:-1], "Add", "Activation"]
    sizes = [network.get_layer(f"b_conv{i}").kernel_size for i in (1, 2, 3)]
    assert sizes == [(1, 1), (3, 3), (1, 1)]
    shrunk = models.convolutional_block(image, [32, 32, 128], "c")
    assert shrunk.shape == (None, 4, 4, 128)


def test_images_too_small_for_the_network_are_a_user_error():
    assert build("vgg", shape=(9, 8, 3)).output_shape == (None, 10)
    with pytest.raises(UserError, match="3 groups are too many for images of 9 x 7"):
        build("vgg", shape=(9, 7, 3))


def test_initial_weights_depend_on_the_seed_alone():
    first, again, other = (build("05_deeper_dropout", seed) for seed in (0, 0, 1))
    for a, b in zip(first.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    pairs = zip(first.variables, other.variables, strict=True)
    differing = [a.path for a, b in pairs if not np.array_equal(a.numpy(), b.numpy())]
    assert len(differing) == 51 + 1 + 1  # convolutions, the classifier, dropout's state
    assert not any(layer.bias.numpy().any() for layer in first.layers if hasattr(layer, "kernel"))


def test_deeper_and_shallower_rungs_have_equal_initial_weights_in_shared_layers():
    shallow, deep = build("02_augmentation"), build("05_deeper_dropout")
    added = {layer.name for layer in deep.layers} - {layer.name for layer in shallow.layers}
    blocks = {f"stage{s}_block{b}" for s, b in ((2, 6), (2, 7), (3, 5), (3, 6), (4, 3))}
    assert {name.split("_conv")[0] for name in added if "_conv" in name} == blocks
    for layer in shallow.layers:
        for a, b in zip(layer.variables, deep.get_layer(layer.name).variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def step(layer, x, weight):
    """Calls a layer in training mode. Returns its output, gradients and moving statistics."""
    import tensorflow as tf

    x = tf.Variable(x)
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * weight)
    gradients = tape.gradient(loss, [x, layer.gamma, layer.beta])
    return [*map(np.asarray, (y, *gradients, layer.moving_mean, layer.moving_variance))]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="uses a TensorFlow kernel")
@pytest.mark.parametrize("shape", [(32, 16, 16, 8), (2, 1, 1, 3), (5, 7, 3, 1)])
def test_fused_batch_normalization_equals_the_stock_layer(shape):
    generator = np.random.default_rng(0)
    fused = layers.BatchNormalization(momentum=0.9)
    stock = keras.layers.BatchNormalization(momentum=0.9)
    for layer in (fused, stock):
        layer.build((None, *shape[1:]))
    weights = [generator.normal(1, 0.3, shape[-1]).astype("float32") for _ in range(4)]
    weights[3] = np.abs(weights[3])
    fused.set_weights(weights)
    stock.set_weights(weights)
    for _ in range(3):
        x = generator.normal(0.5, 2, shape).astype("float32")
        weight = generator.normal(size=shape).astype("float32")
        for ours, theirs in zip(step(fused, x, weight), step(stock, x, weight), strict=True):
            # The rounding error of a sum over the batch grows with the number of its summands.
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5 * np.sqrt(x.size))
    x = generator.normal(size=shape).astype("float32")
    np.testing.assert_allclose(
        fused(x, training=False), stock(x, training=False), rtol=1e-4, atol=1e-5
    )


def test_a_saved_model_loads_in_plain_keras(tmp_path):
    small = {"model": {"identity_blocks": [1, 0, 0]}}
    e = change(STUDY.experiment("05_deeper_dropout"), small, "x")
    network = building.build(e, (8, 8, 3), 10, 0)
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), "uint8")
    building.served(network, 255.0).save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    # Option -I and the working directory tmp_path prevent an accidental import of this project.
    script = (
        "import sys, keras, numpy as np; assert 'resnet' not in sys.modules;"
        "m = keras.models.load_model('model.keras');"
        "np.save('y.npy', m.predict(np.load('x.npy'), verbose=0));"
        "assert 'resnet' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True)
    expected = network.predict(x / np.float32(255), verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)


K = keras.layers
ELSEWHERE = {
    "an activation": [K.Conv2D(4, 3, padding="same", activation="relu"), K.BatchNormalization()],
    "groups": [K.Conv2D(4, 3, padding="same", groups=2), K.BatchNormalization()],
    "dilation": [K.Conv2D(4, 3, padding="same", dilation_rate=2), K.BatchNormalization()],
    "no padding": [K.Conv2D(4, 3), K.BatchNormalization()],
    "no normalization": [K.Conv2D(4, 3, padding="same"), K.Activation("relu")],
    "no scale": [K.BatchNormalization(scale=False)],
    "no centre": [K.BatchNormalization(center=False)],
    "rows": [K.BatchNormalization(axis=1)],
    "overlap": [K.MaxPooling2D(3, strides=2)],
    "padding": [K.MaxPooling2D(2, padding="same")],
}


def sequence(kinds):
    x = image = keras.Input((7, 7, 4), name="image")
    for i, layer in enumerate(kinds):
        x = type(layer).from_config(layer.get_config() | {"name": f"layer{i}"})(x)
    return keras.Model(image, x)


@pytest.mark.parametrize("why", ELSEWHERE)
@pytest.mark.parametrize("products", [False, True])
def test_a_faster_layer_replaces_a_stock_layer_only_if_the_results_are_equal(why, products):
    x = np.random.default_rng(0).normal(size=(8, 7, 7, 4)).astype("float32")
    plain = sequence(ELSEWHERE[why])
    ours = building.faster(plain)
    with layers.products(products):
        for training in (True, False):
            np.testing.assert_allclose(
                ours(x, training=training), plain(x, training=training), atol=1e-5
            )
    kinds = {type(layer) for layer in ours.layers}
    assert layers.Conv2D not in kinds and layers.MaxPooling2D not in kinds


@pytest.mark.parametrize("name", ["02_augmentation", "vgg"])
def test_a_stock_copy_has_equal_outputs_without_faster_layers(name):
    network = build(name)
    kinds = {type(layer) for layer in network.layers}
    assert {layers.Conv2D, layers.BatchNormalization} <= kinds
    assert (layers.MaxPooling2D in kinds) == (name == "vgg")
    plain = building.stock(network)
    assert not {type(layer) for layer in plain.layers} & {*layers.FASTER.values()}
    assert [layer.name for layer in plain.layers] == [layer.name for layer in network.layers]
    x = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(network(x), plain(x), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape", "counted"),
    [
        (K.Conv2D(8, 3, groups=2), (6, 6, 4), 4 * 4 * 3 * 3 * 2 * 8),
        (K.Conv2D(8, 3, dilation_rate=2, padding="same"), (6, 6, 4), 36 * 9 * 4 * 8),
        (K.DepthwiseConv2D(3, strides=2, padding="same"), (6, 6, 4), 9 * 9 * 4),
        (K.SeparableConv2D(8, 3, padding="same"), (6, 6, 4), 36 * (9 * 4 + 4 * 8)),
        (K.Conv2DTranspose(8, 3, strides=2), (6, 6, 4), 36 * 9 * 4 * 8),
        (K.Dense(5), (6, 4), 6 * 4 * 5),
        (K.EinsumDense("abc,cd->abd", (None, 3)), (6, 4), None),
        (K.LSTM(5), (6, 4), None),
        (K.MultiHeadAttention(2, 3), (6, 4), None),
        (K.GroupQueryAttention(3, 2, 1), (6, 4), None),
        (K.Embedding(9, 3), (6,), None),
        (K.BatchNormalization(), (6, 6, 4), 0),
    ],
)
def test_weights_depend_on_the_seed_and_multiply_adds_are_exact_or_nan(layer, shape, counted):
    def made():
        image = keras.Input(shape, name="image")
        fresh = type(layer).from_config(layer.get_config() | {"name": "layer"})
        attends = "Attention" in type(layer).__name__
        return keras.Model(image, fresh(image, image) if attends else fresh(image))

    def drawn(seed):
        network = made()
        building.initialize(network, seed, made)
        return [np.asarray(v) for v in network.variables]

    first, again, other = drawn(0), drawn(0), drawn(1)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    random = [not np.array_equal(a, b) for a, b in zip(first, other, strict=True)]
    assert any(random) == (counted != 0)
    found = building.multiply_adds(made())
    assert np.isnan(found) if counted is None else found == counted


@pytest.mark.parametrize(
    "initializer",
    [
        *("glorot_uniform", "glorot_normal", "he_normal", "he_uniform", "lecun_normal"),
        *("lecun_uniform", "random_normal", "random_uniform", "truncated_normal", "orthogonal"),
        *("zeros", "ones"),
        keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        keras.initializers.Constant(0.5),
    ],
)
@pytest.mark.parametrize("shape", [(3, 3, 40, 60), (500, 40)])
def test_initial_values_have_the_distribution_of_keras_s_initializer(initializer, shape):
    initializer = keras.initializers.get(initializer)
    ours = building.draw(initializer, shape, np.random.default_rng(0))
    theirs = np.asarray(initializer(shape))
    assert ours.shape == theirs.shape
    for statistic in (np.mean, np.std, np.min, np.max):
        assert statistic(ours) == pytest.approx(statistic(theirs), rel=0.25, abs=0.01)
    if isinstance(initializer, keras.initializers.Orthogonal):
        flat = ours.reshape(-1, shape[-1])
        np.testing.assert_allclose(flat.T @ flat, np.eye(shape[-1]), atol=1e-6)


def test_a_random_weight_without_a_seed_is_a_user_error():
    class Own(keras.layers.Layer):
        def build(self, shape):
            self.mine = self.add_weight(shape=(3,), initializer="random_normal", name="mine")
            self.one = self.add_weight(shape=(3,), initializer="ones", name="one")

        def call(self, x):
            return x * self.one[0]

    def made():
        image = keras.Input((4,), name="image")
        return keras.Model(image, Own(name="own")(image))

    with pytest.raises(UserError, match="the weight 'mine' of the layer own has a random"):
        building.initialize(made(), 0, made)


def test_an_unknown_initializer_is_seeded_and_the_notes_name_its_layer():
    class Halved(keras.initializers.RandomNormal):  # halves the values of the base class
        def __call__(self, shape, dtype=None):
            return super().__call__(shape, dtype) / 2

    def made():
        image = keras.Input((400,))
        dense = K.Dense(300, kernel_initializer=Halved(0, 1), name="own")(image)
        return keras.Model(image, K.Dense(2, name="known")(dense))

    networks = [made(), made()]
    for network in networks:
        building.initialize(network, 3, made)
    first, again = (network.get_layer("own").kernel for network in networks)
    np.testing.assert_array_equal(first, again)
    assert np.std(first) == pytest.approx(0.5, rel=0.05)
    assert building.notes(networks[0]) == {"drawn_by_keras": "own"}


def test_normalize_computes_an_accurate_variance_if_the_mean_is_100_standard_deviations():
    x = np.random.default_rng(0).normal(10, 0.1, (32, 16, 16, 8)).astype("float32")
    gamma, beta = np.ones(8, "float32"), np.zeros(8, "float32")
    _, _, variance = layers._normalize(x, gamma, beta, np.float32(1e-3))
    np.testing.assert_allclose(variance, x.astype("float64").var(axis=(0, 1, 2)), rtol=0.02)
