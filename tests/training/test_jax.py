"""Runs the ladder on JAX, in an environment without TensorFlow."""

import importlib.util

import keras
import pytest
from ladders import KILLED_AT, assert_identical, ladder_arguments, record, runs_of

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="needs KERAS_BACKEND=jax and an environment with JAX; type  make test-jax",
)


def test_tensorflow_is_not_installed():
    assert importlib.util.find_spec("tensorflow") is None


def test_rungs_1_and_4_train_in_the_quick_profile(command):
    process = command("--ladder=1,4", "--profile=quick")
    assert process.returncode == 0, process.err
    runs = runs_of(command.uri)
    assert len(runs) == 2
    for run in runs:
        assert run.data.tags["backend"] == "jax"
        assert "version.tensorflow" not in run.data.tags
        assert run.data.metrics["test_accuracy"] > 0.8


@pytest.mark.slow
def test_resume_after_a_kill_is_exact(command, image_folder):
    arguments = ladder_arguments(image_folder)[1:]
    for points, *further in (("step 3, model 1, never 0",), ("never 0", "--fresh")):
        process = command(points, "--ladder=5", *arguments, *further, script=KILLED_AT)
        assert process.returncode == 0, process.err
    killed, undisturbed = (
        record(command.uri, run, command.checkpoints.parent) for run in runs_of(command.uri)
    )
    assert_identical(killed, undisturbed)
