import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from resnet.network import augmentation
from resnet.study import Study

STUDY = Study.open().experiment("02_augmentation").data.augmentation


def generator_of_keras(**options):
    # the public name is tf.keras's, which needs TensorFlow
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    return ImageDataGenerator(**options)


def reals(low, high):
    return st.floats(low, high, allow_nan=False)


parameters = st.fixed_dictionaries(
    {
        "theta": reals(-180, 180),
        "tx": reals(-12, 12),
        "ty": reals(-12, 12),
        "zx": reals(0.4, 1.9),
        "zy": reals(0.4, 1.9),
        "flip_horizontal": st.booleans(),
    }
)


@pytest.mark.parametrize("apply", [augmentation.apply, augmentation.sample])
@settings(max_examples=200, deadline=None)
@given(
    drawn=st.lists(parameters, min_size=1, max_size=6),
    shape=st.sampled_from([(32, 32), (16, 16), (9, 14), (20, 7)]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_pixels_equal_image_data_generator_s(apply, drawn, shape, channels, seed):
    images = np.random.default_rng(seed).random((len(drawn), *shape, channels), "float32")
    stacked = {key: np.array([d[key] for d in drawn]) for key in drawn[0]}
    ours = np.asarray(apply(images, augmentation.projective(stacked, shape)))
    keras_own = generator_of_keras()  # its defaults: fill nearest, bilinear
    for image, own, single in zip(images, ours, drawn, strict=True):
        np.testing.assert_allclose(own, keras_own.apply_transform(image, single), atol=1e-3)


def test_parameters_have_image_data_generator_s_distributions():
    keras_own = generator_of_keras(
        rotation_range=15,
        width_shift_range=0.1,
        height_shift_range=0.1,
        zoom_range=0.1,
        horizontal_flip=True,
    )
    n = 4000
    np.random.seed(0)  # what ImageDataGenerator draws from
    theirs = [keras_own.get_random_transform((32, 32, 3)) for _ in range(n)]
    ours = augmentation.draw(STUDY, np.random.default_rng(0), n, (32, 32))
    assert set(ours) <= set(theirs[0])
    for key, values in ours.items():
        expected = np.array([draw[key] for draw in theirs], float)
        assert stats.ks_2samp(values.astype(float), expected).pvalue > 0.001, key
    # Keras transforms by nothing else
    unused = {
        "shear": 0,
        "flip_vertical": False,
        "channel_shift_intensity": None,
        "brightness": None,
    }
    assert all(draw[key] == value for draw in theirs for key, value in unused.items())


def test_parameters_are_drawn_independently():
    drawn = augmentation.draw(STUDY, np.random.default_rng(1), 4000, (32, 32))
    correlation = np.corrcoef(np.stack([values.astype(float) for values in drawn.values()]))
    assert np.abs(correlation - np.eye(len(drawn))).max() < 0.06
