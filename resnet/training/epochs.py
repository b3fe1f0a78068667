"""Draws the order and augmentation of an epoch's images from seed and epoch number alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from resnet import UserError
from resnet.data import stratified
from resnet.network import augmentation
from resnet.study import Augmentation, Experiment, Validation
from resnet.training.steps import EVALUATION_BATCH, Batch

# These numbers identify streams of random numbers. Each stream has its own generators.
_SHUFFLE, _AUGMENT, _VALIDATION_SHUFFLE, _VALIDATION_AUGMENT = 1, 2, 3, 4
# Directions (rows, columns) in which an image's copies are shifted. The first copy is not shifted.
_DIRECTIONS = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])


def split(
    n: int, validation: Validation, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits n images into training and validation images and returns their positions, int32.

    For a fraction f, the validation subset ``first`` has the first ``int(f n)`` images, as in
    ``ImageDataGenerator(validation_split=f)``. ``last`` has the last ``n - int(n (1 - f))`` images,
    as in ``fit(validation_split=f)``. ``random`` has the share f of each class in ``labels`` (n,).
    """
    positions = np.arange(n, dtype="int32")
    if validation.subset == "first":
        held_out = int(n * validation.fraction)
        return positions[held_out:], positions[:held_out]
    if validation.subset == "random":
        labels = np.zeros(n, "uint8") if labels is None else labels
        held = stratified(labels, validation.fraction)
        return positions[~held], positions[held]
    kept = int(n * (1 - validation.fraction))
    return positions[:kept], positions[kept:]


@dataclass(frozen=True)
class Epochs:
    """The batches of each epoch, for one experiment and one seed."""

    experiment: Experiment
    seed: int
    image_shape: tuple[int, int]
    train: np.ndarray
    validation: np.ndarray

    @classmethod
    def make(
        cls,
        experiment: Experiment,
        n: int,
        image_shape: tuple[int, int],
        seed: int,
        labels: np.ndarray | None = None,
    ) -> "Epochs":
        """Plans an experiment's epochs for ``n`` images with labels (n,).

        Raises:
            UserError: there are too few images for a training or a validation batch.
        """
        parts = split(n, experiment.data.validation, labels)
        epochs = cls(experiment, seed, image_shape, *parts)
        batch = experiment.training.batch_size
        if not len(epochs.validation):
            fraction = experiment.data.validation.fraction
            raise UserError(f"data.validation.fraction: {fraction:g} is too small for {n} images")
        if epochs.steps < 1 or epochs.validation_images < 1:
            raise UserError(
                f"training.batch_size: {batch} is too large for {len(epochs.train)} training and "
                f"{len(epochs.validation)} validation images. Use smaller batches or more images."
            )
        return epochs

    def same_classes(self, labels: np.ndarray) -> bool:
        """Checks whether training and validation images have the same classes."""
        train, validation = (np.unique(labels[part]) for part in (self.train, self.validation))
        return np.array_equal(train, validation)

    @property
    def _ranges(self) -> Augmentation:
        return self.experiment.data.augmentation or Augmentation()

    @property
    def training_images(self) -> int:
        """Number of training images per epoch, copies included."""
        size, count = self.experiment.training.batch_size, len(self.train) * self._ranges.copies
        return min(self.steps * size, count)

    @property
    def steps(self) -> int:
        """Number of training steps per epoch. ``drop_remainder`` leaves out an incomplete batch."""
        count = len(self.train) * self._ranges.copies
        full, rest = divmod(count, self.experiment.training.batch_size)
        return full if self.experiment.data.validation.drop_remainder else full + bool(rest)

    @property
    def validation_images(self) -> int:
        """Number of validation images per epoch. The study uses 9,984 of 10,000 (312 batches)."""
        count, batch = len(self.validation), self.experiment.training.batch_size
        return count // batch * batch if self.experiment.data.validation.drop_remainder else count

    def batches(self, epoch: int) -> list[Batch]:
        order, moves = self._order(epoch)
        transforms = self._transforms(epoch, _AUGMENT, moves)
        size = self.experiment.training.batch_size
        return list(_slices(order, transforms, size))[: self.steps]

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the positions (n,) and shifts (n, 2) of an epoch's images in training order."""
        shuffle, images = self.experiment.training.shuffle, np.tile(self.train, self._ranges.copies)
        order = np.arange(len(images))
        if shuffle != "never":
            generator = self._generator(epoch * (shuffle == "epoch"), _SHUFFLE)
            order = generator.permutation(order)
        moves = self._ranges.expand_shifts * _DIRECTIONS[order // len(self.train)]
        return images[order], moves

    def validation_batches(self, epoch: int) -> Iterator[Batch]:
        """Makes the validation batches of an epoch.

        Validation images are shuffled only if ``drop_remainder`` is set. Then each epoch leaves
        out different images, as in the study, where ``ImageDataGenerator.flow`` shuffles them.
        """
        validation, order, transforms = self.experiment.data.validation, self.validation, None
        if validation.drop_remainder:
            order = self._generator(epoch, _VALIDATION_SHUFFLE).permutation(order)
        order = order[: self.validation_images]
        if validation.augmented:
            moves = np.zeros((len(order), 2), int)
            transforms = self._transforms(epoch, _VALIDATION_AUGMENT, moves)
        return _slices(order, transforms, EVALUATION_BATCH)

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        # Each epoch and stream has its own generator, so that no draw depends on earlier epochs.
        return np.random.default_rng([self.seed, epoch, stream])

    def _transforms(self, epoch: int, stream: int, moves: np.ndarray) -> np.ndarray | None:
        ranges = self._ranges
        generator, parts = self._generator(epoch, stream), []
        if ranges.affine:
            parameters = augmentation.draw(ranges, generator, len(moves), self.image_shape)
            parts.append(augmentation.projective(parameters, self.image_shape))
        if ranges.boxed:
            parts.append(augmentation.boxes(ranges, generator, moves, self.image_shape))
        return np.concatenate(parts, axis=1) if parts else None


def _slices(order: np.ndarray, transforms: np.ndarray | None, size: int) -> Iterator[Batch]:
    for start in range(0, len(order), size):
        part = slice(start, start + size)
        yield order[part], None if transforms is None else transforms[part]
