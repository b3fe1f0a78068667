import keras
import numpy as np
import pytest

from resnet import UserError
from resnet.network import layers, models
from resnet.study import Study
from resnet.training import probabilities

STUDY = Study.open()


def build(name, seed=0, shape=(32, 32, 3)):
    return models.build(STUDY.experiment(name).model, shape, 10, seed)


def trainable(network):
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


def test_the_template_is_the_study_s():
    network = models.residual_network()
    assert network.count_params() == 316_394
    assert trainable(network) == 311_466
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 36
    assert all(layer.use_bias for layer in convolutions)
    assert round(models.multiply_adds(network) / 1e6, 2) == 53.98


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("01_template", (5, 3, 1)),
        ("03_deeper_early_stopping", (7, 3, 1)),
        ("05_deeper_dropout", (7, 5, 2)),
    ],
)
def test_each_rung_stacks_its_blocks(name, blocks):
    network = build(name)
    names = [layer.name for layer in network.layers]
    # a stage's blocks: its identity blocks, and before them, from stage 3 on, a convolutional one
    for stage, identity in zip((2, 3, 4), blocks, strict=True):
        adds = [n for n in names if n.startswith(f"stage{stage}_") and n.endswith("_add")]
        assert len(adds) == identity + (stage > 2)
        assert (f"stage{stage}_block1_shortcut_conv" in names) == (stage > 2)
    assert ("head_dropout" in names) == (name == "05_deeper_dropout")
    assert network.get_layer("head_pool").output.shape == (None, 4, 4, 256)


def test_the_bottleneck_is_conv_bn_relu_thrice_then_add_then_relu():
    image = keras.Input((8, 8, 64))
    network = keras.Model(image, models.identity_block(image, [16, 16, 64], "b"))
    kinds = [type(layer).__name__ for layer in network.layers[1:]]
    main = ["Conv2D", "BatchNormalization", "Activation"] * 3
    assert kinds == [*main[:-1], "Add", "Activation"]
    assert [network.get_layer(f"b_conv{i}").kernel_size for i in (1, 2, 3)] == [
        (1, 1),
        (3, 3),
        (1, 1),
    ]
    shrunk = models.convolutional_block(image, [32, 32, 128], "c")
    assert shrunk.shape == (None, 4, 4, 128)


def test_the_vgg_like_network():
    network = build("vgg")
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("Conv2D") == kinds.count("BatchNormalization") == 9
    assert kinds.count("MaxPooling2D") == 3
    assert kinds[-5:] == ["Flatten", "Dense", "Dense", "Dropout", "Dense"]
    assert network.get_layer("head_dropout").rate == 0.2


def test_images_too_small_for_the_network_are_said_in_one_line():
    assert build("vgg", shape=(9, 8, 3)).output_shape == (None, 10)
    with pytest.raises(UserError, match="of images of 9 x 7 3 poolings leave none"):
        build("vgg", shape=(9, 7, 3))


def test_weights_follow_the_seed_alone_and_keras_s_default_distribution():
    first, again, other = (
        build("05_deeper_dropout"),
        build("05_deeper_dropout"),
        build("05_deeper_dropout", seed=1),
    )
    for a, b in zip(first.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    differing = [
        a.path
        for a, b in zip(first.variables, other.variables, strict=True)
        if not np.array_equal(a.numpy(), b.numpy())
    ]
    assert len(differing) == 51 + 1 + 1  # kernels of the convolutions, the classifier; dropout
    for layer in first.layers:
        if hasattr(layer, "kernel"):
            drawn = np.abs(layer.kernel.numpy())
            keras_own = np.abs(np.asarray(keras.initializers.GlorotUniform(0)(drawn.shape)))
            assert drawn.max() == pytest.approx(keras_own.max(), rel=0.05)
            assert drawn.mean() == pytest.approx(keras_own.mean(), rel=0.15)
            assert not layer.bias.numpy().any()


def test_a_deeper_rung_starts_its_other_layers_from_the_same_weights():
    shallow, deep = build("02_augmentation"), build("05_deeper_dropout")
    added = {layer.name for layer in deep.layers} - {layer.name for layer in shallow.layers}
    assert {name.split("_conv")[0] for name in added if "_conv" in name} == {
        "stage2_block6",
        "stage2_block7",
        "stage3_block5",
        "stage3_block6",
        "stage4_block3",
    }
    for layer in shallow.layers:
        for a, b in zip(layer.variables, deep.get_layer(layer.name).variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def step(layer, x, weight):
    """Output, gradients and moving statistics of one training call."""
    import tensorflow as tf

    x = tf.Variable(x)
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * weight)
    gradients = tape.gradient(loss, [x, layer.gamma, layer.beta])
    return [
        np.asarray(value) for value in (y, *gradients, layer.moving_mean, layer.moving_variance)
    ]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a kernel of TensorFlow's")
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
            # sums over the batch carry rounding of the order of the summands' magnitude
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5 * np.sqrt(x.size))
    x = generator.normal(size=shape).astype("float32")
    np.testing.assert_allclose(
        fused(x, training=False), stock(x, training=False), rtol=1e-4, atol=1e-5
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a kernel of TensorFlow's")
def test_the_fused_kernel_is_what_trains():
    import tensorflow as tf

    layer = layers.BatchNormalization()
    layer.build((None, 4, 4, 3))
    graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(
        tf.TensorSpec((None, 4, 4, 3))
    )
    assert "FusedBatchNormV3" in {operation.type for operation in graph.graph.get_operations()}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes TensorFlow's gradients")
def test_the_convolution_equals_the_stock_layer_but_for_its_bias_s_rounding():
    import tensorflow as tf

    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(32, 8, 8, 5)).astype("float32"))
    weight = generator.normal(size=(32, 8, 8, 7)).astype("float32")
    kernel = generator.normal(0, 0.2, (3, 3, 5, 7)).astype("float32")
    bias = generator.normal(size=7).astype("float32")
    results = []
    for cls in (layers.Conv2D, keras.layers.Conv2D):
        convolution, normalization = cls(7, 3, padding="same"), keras.layers.BatchNormalization()
        normalization(convolution(x))
        convolution.set_weights([kernel, bias])
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = convolution(x)
            loss = tf.reduce_sum(normalization(outputs, training=True) * weight)
        gradients = tape.gradient(loss, [x, convolution.kernel.value, convolution.bias.value])
        results.append([outputs, *gradients, normalization.moving_mean])
    for name, ours, theirs in zip(
        ("outputs", "input", "kernel", "bias", "moving mean"), *results, strict=True
    ):
        if name == "bias":
            assert not np.asarray(ours).any()
            # each summand is of order 1: what the stock layer finds is their rounding
            assert np.abs(theirs).max() < 1e-6 * weight.size
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_saved_model_loads_in_plain_keras(tmp_path):
    import subprocess
    import sys

    settings = STUDY.experiment("05_deeper_dropout").model
    settings = settings.model_copy(update={"identity_blocks": [1, 0, 0]})
    network = models.build(settings, (8, 8, 3), 10, 0)
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), "uint8")
    models.served(network, 255.0).save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    # in an empty folder and isolated mode, where this project cannot be imported by accident
    script = (
        "import sys, keras, numpy as np; assert 'resnet' not in sys.modules;"
        "m = keras.models.load_model('model.keras');"
        "np.save('y.npy', m.predict(np.load('x.npy'), verbose=0));"
        "assert 'resnet' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), probabilities(network, x, 255.0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"activation": "relu"},
        {"use_bias": False},
        {"groups": 2},
        {"dilation_rate": 2},
        {"padding": "valid"},
    ],
)
@pytest.mark.parametrize("products", [False, True])
def test_any_other_convolution_is_the_stock_layer(settings, products):
    """The activation was ignored, so that what was saved was not what was tested."""
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype("float32")
    ours = layers.Conv2D(4, 3, **{"padding": "same"} | settings)
    stock = keras.layers.Conv2D.from_config(ours.get_config())
    stock.build(x.shape)
    with layers.products(products):
        ours.build(x.shape)
        ours.set_weights(stock.get_weights())
        np.testing.assert_allclose(ours(x), stock(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.BatchNormalization(scale=False), (8, 3, 3, 4)),
        (layers.BatchNormalization(center=False), (8, 3, 3, 4)),
        (layers.BatchNormalization(axis=1), (8, 3, 3, 4)),
        (layers.BatchNormalization(), (8, 4)),
        (layers.MaxPooling2D(3, strides=2), (8, 7, 7, 4)),
        (layers.MaxPooling2D(2, strides=1), (8, 7, 7, 4)),
        (layers.MaxPooling2D(2, padding="same"), (8, 7, 7, 4)),
    ],
)
@pytest.mark.parametrize("products", [False, True])
def test_any_other_normalization_and_pooling_is_the_stock_layer(layer, shape, products):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    stock = getattr(keras.layers, type(layer).__name__).from_config(layer.get_config())
    ours = type(layer).from_config(layer.get_config())
    with layers.products(products):
        np.testing.assert_allclose(ours(x, training=True), stock(x, training=True), atol=1e-5)


def test_the_variance_of_lanes_is_right_up_to_a_mean_of_a_hundred_deviations():
    x = np.random.default_rng(0).normal(10, 0.1, (32, 16, 16, 8)).astype("float32")
    gamma, beta = np.ones(8, "float32"), np.zeros(8, "float32")
    _, _, variance = layers._normalize(x, gamma, beta, np.float32(1e-3))
    np.testing.assert_allclose(variance, x.astype("float64").var(axis=(0, 1, 2)), rtol=0.02)


def test_a_layer_whose_weights_no_seed_sets_is_refused(monkeypatch):
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Flatten()(keras.layers.DepthwiseConv2D(3, name="deep")(image))
    network = keras.Model(image, keras.layers.Dense(2, name="head")(x))
    with pytest.raises(ValueError, match="deep: nothing here draws a DepthwiseConv2D's weights"):
        models._initialize(network, 0)
    with pytest.raises(ValueError, match="deep: nothing here counts a DepthwiseConv2D"):
        models.multiply_adds(network)
