"""Which image goes where in every epoch: a function of (seed, epoch, position) and no more."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from resnet import UserError
from resnet.network import augmentation
from resnet.study import Experiment, Validation
from resnet.training.steps import EVALUATION_BATCH, Batch

# Streams of random numbers; 0 is the weights' (see resnet.network.models).
_SHUFFLE, _AUGMENT, _VALIDATION_SHUFFLE, _VALIDATION_AUGMENT = 1, 2, 3, 4


def split(n: int, validation: Validation) -> tuple[np.ndarray, np.ndarray]:
    """Splits the images into those that train and those that validate.

    ``ImageDataGenerator(validation_split=f)`` holds out the first ``int(f n)`` images;
    ``fit(validation_split=f)`` the last ``n - int(n (1 - f))``.

    Args:
        n: number of training images.
        validation: the experiment's settings.

    Returns:
        int32 positions (training, validation).
    """
    positions = np.arange(n, dtype="int32")
    if validation.subset == "first":
        held_out = int(n * validation.fraction)
        return positions[held_out:], positions[:held_out]
    kept = int(n * (1 - validation.fraction))
    return positions[:kept], positions[kept:]


@dataclass(frozen=True)
class Epochs:
    """Which image goes where in every epoch, as a function of (seed, epoch, position) alone."""

    experiment: Experiment
    seed: int
    image_shape: tuple[int, int]
    train: np.ndarray
    validation: np.ndarray

    @classmethod
    def make(
        cls, experiment: Experiment, n: int, image_shape: tuple[int, int], seed: int
    ) -> "Epochs":
        """Plans the epochs of an experiment over ``n`` training images.

        Raises:
            UserError: the images do not fill a training and a validation batch.
        """
        epochs = cls(experiment, seed, image_shape, *split(n, experiment.data.validation))
        batch = experiment.training.batch_size
        if not len(epochs.validation):
            fraction = experiment.data.validation.fraction
            raise UserError(f"data.validation.fraction: {fraction:g} of {n} images is none")
        if epochs.steps < 1 or epochs.validation_images < 1:
            raise UserError(
                f"training.batch_size: {batch} is too large for {len(epochs.train)} training and "
                f"{len(epochs.validation)} validation images; choose a smaller one, or more images"
            )
        return epochs

    def same_classes(self, labels: np.ndarray) -> bool:
        """Says whether the classes trained on, of labels (n,), are those that validate."""
        train, validation = (np.unique(labels[part]) for part in (self.train, self.validation))
        return np.array_equal(train, validation)

    @property
    def steps(self) -> int:
        """Training steps an epoch; ``n // batch_size``, or with the remainder as a last one."""
        full, rest = divmod(len(self.train), self.experiment.training.batch_size)
        return full if self.experiment.data.validation.drop_remainder else full + bool(rest)

    @property
    def validation_images(self) -> int:
        """Images in an epoch's validation figure (312 x 32 of 10,000 in the study)."""
        count, batch = len(self.validation), self.experiment.training.batch_size
        return count // batch * batch if self.experiment.data.validation.drop_remainder else count

    def batches(self, epoch: int) -> list[Batch]:
        """Makes the training batches of an epoch: positions and transforms."""
        order = self._order(epoch)
        transforms = self._transforms(epoch, _AUGMENT, len(order))
        size = self.experiment.training.batch_size
        return list(_slices(order, transforms, size))[: self.steps]

    def _order(self, epoch: int) -> np.ndarray:
        """The training images' positions as an epoch shows them."""
        shuffle = self.experiment.training.shuffle
        if shuffle == "never":
            return self.train
        return self._generator(epoch * (shuffle == "epoch"), _SHUFFLE).permutation(self.train)

    def validation_batches(self, epoch: int) -> Iterator[Batch]:
        """Makes the batches of an epoch's validation images, as large as is convenient.

        ``ImageDataGenerator.flow`` shuffles its validation images too, so which ones the study
        leaves out changes from epoch to epoch.
        """
        validation = self.experiment.data.validation
        order = self.validation
        if validation.drop_remainder:
            order = self._generator(epoch, _VALIDATION_SHUFFLE).permutation(order)
        order = order[: self.validation_images]
        transforms = (
            self._transforms(epoch, _VALIDATION_AUGMENT, len(order))
            if validation.augmented
            else None
        )
        return _slices(order, transforms, EVALUATION_BATCH)

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        # a generator of its own for each, so that no draw depends on how many came before it
        return np.random.default_rng([self.seed, epoch, stream])

    def _transforms(self, epoch: int, stream: int, n: int) -> np.ndarray | None:
        ranges = self.experiment.data.augmentation
        if ranges is None:
            return None
        generator = self._generator(epoch, stream)
        parameters = augmentation.draw(ranges, generator, n, self.image_shape)
        return augmentation.projective(parameters, self.image_shape)


def _slices(order: np.ndarray, transforms: np.ndarray | None, size: int) -> Iterator[Batch]:
    for start in range(0, len(order), size):
        part = slice(start, start + size)
        yield order[part], None if transforms is None else transforms[part]
