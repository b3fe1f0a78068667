"""Compares results of TensorFlow and JAX with reference values that TensorFlow computed.

This command writes the file of reference values:

    python tests/training/test_backends.py

NumPy draws weights, images and batches, so every backend starts from the same bits.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from resnet.network import augmentation, build, keras
from resnet.study import Study, change
from resnet.training import make_steps, program

REFERENCE = Path(__file__).parent / "reference.npz"
# Only shallow networks have gradients that tests can compare between backends. With the
# template's 36 layers, gradients in float32 and float64 differ: by 0.7 % with stock Keras on
# TensorFlow, by 1.2 % with this project's layers, and by 1.8 % with JAX (see docs/log.md).
CASES = {
    "template": ("02_augmentation", {}),
    "shallow": ("02_augmentation", {"identity_blocks": [1, 0, 0]}),
    "vgg": ("vgg", {"dropout": 0.0}),  # dropout masks differ between backends
}
DEEP = {"template"}


def values(case, make=make_steps):
    """Returns a network's probabilities, and its metrics and variables after one training step."""
    name, changes = CASES[case]
    experiment = change(Study.open().experiment(name), {"model": changes}, "test")
    network = build(experiment, (16, 16, 3), 10, seed=0)
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (32, 16, 16, 3), "uint8")
    y = generator.integers(0, 10, 32)
    result = {"probabilities": network.predict(x / np.float32(255), verbose=0)}

    steps = make(network, x, y, experiment)
    parameters = augmentation.draw(experiment.data.augmentation, generator, 32, (16, 16))
    transforms = augmentation.projective(parameters, (16, 16))
    steps.train([(np.arange(32, dtype="int32"), transforms)], 0)
    result |= steps.logs()
    steps.pull()
    result["moving"] = beginnings(network.non_trainable_variables)
    if case not in DEEP:
        # After one step, Adam's first moment is a tenth of the gradient.
        first = [v for v in network.optimizer.variables if v.path.endswith("_momentum")]
        assert len(first) == len(network.trainable_variables)
        result["gradients"] = 10 * beginnings(first)
        result["trained"] = beginnings(network.trainable_variables)
    return result


def beginnings(variables):
    """Returns up to 100 values of each variable, so that the reference file stays small."""
    return np.concatenate([np.ravel(variable)[:100] for variable in variables])


def assert_equal_to_reference(case, make):
    with np.load(REFERENCE) as archive:
        expected = {
            key.removeprefix(f"{case}."): archive[key]
            for key in archive.files
            if key.startswith(f"{case}.")
        }
    got = values(case, make)
    assert set(got) == set(expected)
    for key in set(expected) - {"trained"}:
        np.testing.assert_allclose(got[key], expected[key], atol=1e-4, err_msg=key)
    if "trained" in expected:
        # Adam's first step depends only on the gradient's sign. If a gradient consists of
        # rounding errors, its sign may differ between backends.
        sure = np.abs(expected["gradients"]) > 1e-4
        assert sure.mean() > 0.5
        np.testing.assert_allclose(got["trained"][sure], expected["trained"][sure], atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_a_forward_pass_and_a_training_step_equal_the_reference(case):
    assert_equal_to_reference(case, make_steps)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX only")
@pytest.mark.parametrize("case", CASES)
def test_a_training_step_in_a_lane_equals_the_reference(case, monkeypatch):
    """In lanes, convolutions are matrix products."""

    def in_a_lane(network, images, labels, experiment):
        shared = program.Program(images, labels, 10, experiment.data.pixel_scale, 2)
        other = build(experiment, (16, 16, 3), 10, seed=1)
        shared.lane()(other, experiment)
        return shared.lane()(network, experiment)

    monkeypatch.setattr(program, "PATIENCE", 0)  # do not wait for the unused lane
    assert_equal_to_reference(case, in_a_lane)


if __name__ == "__main__":
    np.savez_compressed(
        REFERENCE, **{f"{case}.{k}": v for case in CASES for k, v in values(case).items()}
    )
