from collections import Counter

import numpy as np
import pytest
from conftest import experiment
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.src.legacy.preprocessing.image import ImageDataGenerator  # public only in tf.keras
from scipy import stats

from resnet.network import augmentation
from resnet.study import Augmentation, Study
from resnet.training import Epochs

STUDY = Study.open().experiment("02_augmentation").data.augmentation
APPLIES = pytest.mark.parametrize("apply", [augmentation.apply, augmentation.sample])

parameters = st.fixed_dictionaries(
    {
        "theta": st.floats(-180, 180),
        "tx": st.floats(-12, 12),
        "ty": st.floats(-12, 12),
        "zx": st.floats(0.4, 1.9),
        "zy": st.floats(0.4, 1.9),
        "flip_horizontal": st.booleans(),
        "flip_vertical": st.booleans(),
    }
)


@APPLIES
@settings(max_examples=200, deadline=None)
@given(
    drawn=st.lists(parameters, min_size=1, max_size=6),
    shape=st.sampled_from([(32, 32), (16, 16), (9, 14), (20, 7)]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_affine_transforms_equal_those_of_image_data_generator(apply, drawn, shape, channels, seed):
    images = np.random.default_rng(seed).random((len(drawn), *shape, channels), "float32")
    stacked = {key: np.array([d[key] for d in drawn]) for key in drawn[0]}
    ours = np.asarray(apply(images, augmentation.projective(stacked, shape)))
    generator = ImageDataGenerator()  # defaults: bilinear interpolation, fill_mode "nearest"
    for image, own, single in zip(images, ours, drawn, strict=True):
        np.testing.assert_allclose(own, generator.apply_transform(image, single), atol=1e-3)


def test_parameters_have_the_distributions_of_image_data_generator():
    generator = ImageDataGenerator(
        rotation_range=15,
        width_shift_range=0.1,
        height_shift_range=0.1,
        zoom_range=0.1,
        horizontal_flip=True,
        vertical_flip=True,
    )
    ranges, n = STUDY.model_copy(update={"vertical_flip": True}), 4000
    np.random.seed(0)  # ImageDataGenerator uses NumPy's global generator
    theirs = [generator.get_random_transform((32, 32, 3)) for _ in range(n)]
    ours = augmentation.draw(ranges, np.random.default_rng(0), n, (32, 32))
    assert set(ours) <= set(theirs[0])
    for key, values in ours.items():
        expected = np.array([draw[key] for draw in theirs], float)
        assert stats.ks_2samp(values.astype(float), expected).pvalue > 0.001, key
    # With these settings, ImageDataGenerator makes no other transforms.
    unused = {"shear": 0, "channel_shift_intensity": None, "brightness": None}
    assert all(draw[key] == value for draw in theirs for key, value in unused.items())


def images_of(n):
    return np.random.default_rng(2).uniform(size=(n, 7, 9, 2)).astype("float32")


def transforms_of(settings, n):
    ranges, generator = Augmentation(**settings), np.random.default_rng(3)
    affine = augmentation.projective(augmentation.draw(ranges, generator, n, (7, 9)), (7, 9))
    boxes = augmentation.boxes(ranges, generator, np.zeros((n, 2), int), (7, 9))
    return np.concatenate([affine, boxes], axis=1)


@APPLIES
def test_crop_padding_crops_the_padded_image_at_every_possible_place(apply):
    images, transforms = images_of(400), transforms_of({"crop_padding": 2}, 400)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    places = set()
    for image, source, (down, right, *_) in zip(
        np.asarray(apply(images, transforms)), padded, transforms[:, 8:], strict=True
    ):
        top, left = 2 - int(down), 2 - int(right)
        np.testing.assert_allclose(image, source[top : top + 7, left : left + 9], atol=1e-6)
        places.add((top, left))
    assert places == {(top, left) for top in range(5) for left in range(5)}


@APPLIES
def test_cutout_sets_a_square_to_zero_anywhere_in_the_image(apply):
    images, transforms = images_of(300) + 1, transforms_of({"cutout": 4}, 300)
    ours = np.asarray(apply(images, transforms))
    centres = set()
    for image, source, (top, _, left, _) in zip(ours, images, transforms[:, 10:], strict=True):
        expected = source.copy()
        expected[max(int(top), 0) : int(top) + 4, max(int(left), 0) : int(left) + 4] = 0
        np.testing.assert_allclose(image, expected, atol=1e-6)
        centres.add((top + 2, left + 2))
    assert len(centres) > 55  # of the 63 possible centres


@pytest.mark.parametrize("fill_mode", ["nearest", "constant", "reflect"])
def test_apply_and_sample_fill_pixels_outside_the_image_in_the_same_way(fill_mode):
    ranges = Augmentation(rotation_range=40, width_shift_range=0.4, zoom_range=0.3)
    images = images_of(50)
    drawn = augmentation.draw(ranges, np.random.default_rng(0), 50, (7, 9))
    transforms = augmentation.projective(drawn, (7, 9))
    theirs = augmentation.apply(images, transforms, fill_mode)
    ours = augmentation.sample(images, transforms, fill_mode)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("shuffle", ["epoch", "once", "never"])
def test_expand_shifts_adds_four_shifted_copies_of_each_image(shuffle):
    changes = {"batch_size": 10, "shuffle": shuffle}
    e = experiment("01_template", data={"augmentation": {"expand_shifts": 1}}, training=changes)
    epochs = Epochs.make(e, 50, (7, 9), seed=1)
    assert epochs.training_images == 5 * 40 == 10 * epochs.steps
    images = images_of(50)
    directions = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
    orders = []
    for epoch in (0, 1):
        positions, transforms = map(np.concatenate, zip(*epochs.batches(epoch), strict=True))
        moves = transforms[:, :2].astype(int).tolist()
        orders.append([(int(p), *move) for p, move in zip(positions, moves, strict=True)])
        shown = np.asarray(augmentation.apply(images[positions], transforms))
        for image, (position, down, right) in zip(shown, orders[-1], strict=True):
            expected = np.zeros_like(image)
            expected[max(down, 0) : 7 + min(down, 0), max(right, 0) : 9 + min(right, 0)] = images[
                position, max(-down, 0) : 7 - max(down, 0), max(-right, 0) : 9 - max(right, 0)
            ]
            np.testing.assert_allclose(image, expected, atol=1e-6)
        assert Counter(orders[-1]) == {
            (int(i), *way): 1 for i in epochs.train for way in directions
        }
    assert (orders[0] == orders[1]) == (shuffle != "epoch")
    assert ([p for p, *_ in orders[0][:40]] == epochs.train.tolist()) == (shuffle == "never")


def test_the_random_validation_subset_is_stratified_and_the_same_for_all_seeds():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    e = experiment("01_template", data={"validation": {"subset": "random", "fraction": 0.2}})
    first, other = (Epochs.make(e, 100, (7, 9), seed, labels) for seed in (0, 1))
    np.testing.assert_array_equal(first.validation, other.validation)
    assert np.bincount(labels[first.validation]).tolist() == [12, 6, 2]
    assert sorted([*first.train, *first.validation]) == list(range(100))
    assert first.validation[0] > 0
