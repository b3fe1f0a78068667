"""Runs that share one JAX program have the same results as runs that train alone."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import keras
import numpy as np
import pytest
from conftest import ROOT, SMALL, assert_same_outcome, experiment
from ladders import KILLED_AT, assert_identical, ladder_arguments, left_alone, record, runs_of
from services import read_until

from resnet import Interrupted, events, tracking
from resnet.engines import lanes, run_jobs
from resnet.network import building, layers
from resnet.store import connect
from resnet.study import Job, Study, change
from resnet.training import program, train

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="needs KERAS_BACKEND=jax and an environment with JAX; type  make test-jax",
)


def train_together(jobs, dataset, folder, count, stops=types.MappingProxyType({}), listener=id):
    """Trains jobs in a program of ``count`` lanes. Returns each job's outcome or interruption."""
    scale = jobs[0].experiment.data.pixel_scale
    shared = program.Program(dataset.x_train, dataset.y_train, len(dataset.classes), scale, count)

    def work(number, job, lane):
        place, stop = f"{folder}/{number}", stops.get(number, lambda: False)
        with contextlib.closing(lane):
            try:
                return train(job.experiment, dataset, job.seed, place, listener, stop, lane)
            except Interrupted as error:
                return error

    taken = [shared.lane() for _ in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [*pool.map(work, itertools.count(), jobs, taken)]


# -- the kernels --------------------------------------------------------------------------------


def of_layer(make, x, weight, products):
    """Calls a layer once in training mode. Returns its outputs, gradients and statistics."""
    layer = make()
    layer.build(x.shape)
    generator = np.random.default_rng(1)
    for variable in layer.weights:
        variable.assign(np.abs(generator.normal(1, 0.3, variable.shape)))

    def loss(trainable, inputs):
        with layers.products(products):
            outputs, others = layer.stateless_call(
                trainable,
                [v.value for v in layer.non_trainable_variables],
                inputs,
                **({"training": True} if hasattr(layer, "gamma") else {}),
            )
        return (outputs * weight).sum(), (outputs, others)

    trainable = [v.value for v in layer.trainable_variables]
    (_, (outputs, others)), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(trainable, x)
    return {"outputs": [outputs], "weights": gradients[0], "inputs": [gradients[1]]} | (
        {"statistics": others} if others else {}
    )


@pytest.mark.parametrize(
    ("shape", "filters", "window", "strides"),
    [
        ((4, 8, 8, 1), 16, 3, 1),
        ((4, 8, 8, 16), 8, 1, 1),
        ((32, 8, 8, 16), 8, 1, 2),
        ((4, 7, 5, 4), 6, 3, 2),
        ((32, 16, 16, 4), 6, 3, 1),  # the kernel's gradient is summed in parts
        ((32, 16, 16, 8), None, None, None),  # a case without filters tests batch normalisation
        ((2, 1, 1, 3), None, None, None),
        ((5, 7, 3, 1), None, None, None),
    ],
)
def test_layers_made_of_products_equal_keras_layers(shape, filters, window, strides):
    generator = np.random.default_rng(0)
    x = generator.normal(0.5, 2, shape).astype("float32")
    # the rounding error of a sum over the batch grows with the number of its summands
    name, options, bounds = "BatchNormalization", {"momentum": 0.9}, (2e-4, 2e-5 * np.sqrt(x.size))
    if filters:
        name, bounds = "Conv2D", (1e-5, None)
        options = {"kernel_size": window, "strides": strides, "padding": "same", "filters": filters}
    kinds = getattr(layers, name), getattr(keras.layers, name)
    weight = generator.normal(size=kinds[1](**options)(x).shape).astype("float32")
    ours, stock = (
        of_layer(lambda kind=kind: kind(**options), x, weight, products=kind is kinds[0])
        for kind in kinds
    )
    assert set(ours) == set(stock)
    if filters:
        assert not np.asarray(ours["weights"].pop(1)).any()  # the bias has no gradient (layers.py)
        stock["weights"].pop(1)
    for key, values in ours.items():
        for a, b in zip(values, stock[key], strict=True):
            rtol, atol = bounds[0], bounds[1] or 1e-5 * np.abs(b).max()
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=key)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 9, 5, 3)])
def test_pooling_as_a_maximum_equals_keras_pooling_of_distinct_values(shape):
    generator = np.random.default_rng(0)
    # all values are distinct, except the zeros after a ReLU, which have no gradient
    x = generator.permutation(np.arange(np.prod(shape), dtype="float32")).reshape(shape)
    rectified = np.maximum(x - x.mean(), 0)
    for values, told in ((x, slice(None)), (rectified, rectified > 0)):
        weight = generator.normal(size=keras.layers.MaxPooling2D(2)(values).shape)
        ours, stock = (
            of_layer(lambda cls=cls: cls(2), values, weight.astype("float32"), products)
            for cls, products in ((layers.MaxPooling2D, True), (keras.layers.MaxPooling2D, False))
        )
        np.testing.assert_array_equal(ours["outputs"][0], stock["outputs"][0])
        np.testing.assert_array_equal(
            np.asarray(ours["inputs"][0])[told], np.asarray(stock["inputs"][0])[told]
        )


def lowered(name, count):
    """Returns, as StableHLO text, a training step of ``name``'s full network in ``count`` lanes."""
    e = Study.open().experiment(name)
    shared = program.Program(np.zeros((64, 32, 32, 3), "uint8"), np.arange(64) % 10, 10, 255, count)
    shared.lane()(building.build(e, (32, 32, 3), 10, 0), e)
    shape = (1, count)
    transforms = np.zeros((*shape, 32, 8), "float32")
    batch = np.ones(shape, bool), np.zeros((*shape, 32), "int32"), transforms
    return shared._train.lower(shared._state, shared._data, batch).as_text()


def test_five_lanes_of_rung_2_compile_to_products_in_one_layout():
    text = lowered("02_augmentation", 5)
    assert "stablehlo.convolution" not in text
    assert text.count("stablehlo.transpose") == 1  # for the classifier's gradient
    assert "stablehlo.scatter" not in text
    normalizations, convolutions = 36, 36
    over_pixels = re.findall(
        r"stablehlo\.reduce\(.*across dimensions = \[1, 2, 3\].*tensor<5x32x\d+x\d+x\d+xf32>", text
    )
    assert len(over_pixels) == 4 * normalizations
    # Each convolution but the first has three matrix products, and so does the classifier. The
    # first convolution has two, because images need no gradient.
    assert text.count("stablehlo.dot_general") == 3 * convolutions - 1 + 3
    text = lowered("vgg", 2)
    assert "select_and_scatter" not in text and "stablehlo.convolution" not in text


# -- lanes against single runs ------------------------------------------------------------------


@pytest.fixture
def doubled():
    """Sets double precision, because training amplifies rounding errors of single precision."""

    def change(name):
        keras.config.set_floatx(name)
        keras.config.set_dtype_policy(name)  # for this thread only
        jax.config.update("jax_enable_x64", name == "float64")

    change("float64")
    yield
    change("float32")


@pytest.mark.parametrize("name", ["05_deeper_dropout", "vgg"])
def test_curves_and_weights_of_a_lane_equal_those_of_a_single_run(
    name, dataset, tmp_path, doubled, monkeypatch
):
    e = Study.open().experiment(name, "quick", ["training.epochs=2"])
    together = train_together([Job(e, 0), Job(e, 1)], dataset, tmp_path, 2)
    # avoids Keras's own batch normalisation, which always computes in single precision
    monkeypatch.setattr(program, "accelerator", lambda: jax.devices()[0])
    monkeypatch.setattr(program, "STEPS", 1)  # a loop of steps is slow on a CPU
    alone = train(e, dataset, 1, tmp_path / "alone")
    for ours, theirs in zip(together[1].history, alone.history, strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-6), key
    for a, b in zip(together[1].network.variables, alone.network.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=a.path)
    np.testing.assert_allclose(together[1].probabilities, alone.probabilities, atol=1e-5)
    assert together[0].history[0]["loss"] != together[1].history[0]["loss"]


# LONG has early stopping, a schedule, dropout and augmentation. SHORT and TURNED differ from LONG
# only in settings that a compiled program receives as data.
LONG = experiment(
    "05_deeper_dropout",
    **SMALL,
    training={
        "epochs": 6,
        "early_stopping": {"patience": 2},
        "reduce_lr_on_plateau": {"patience": 1, "min_delta": 10.0},
    },
)
SHORT = change(LONG, {"training": {"epochs": 2, "learning_rate": 0.01}}, "test")
TURNED = change(LONG, {"data": {"augmentation": {"rotation_range": 90.0}}}, "test")


def test_experiments_that_differ_only_in_data_for_a_program_share_it():
    assert LONG.program() == SHORT.program() == TURNED.program()
    others = (
        {"model": {"dropout": 0.4}},
        {"training": {"batch_size": 16}},
        {"data": {"augmentation": None}},
        {"data": {"pixel_scale": 1.0}},
        {"data": {"validation": {"fraction": 0.3}}},
    )
    programs = {change(LONG, other, "test").program() for other in others}
    assert len(programs | {LONG.program()}) == len(others) + 1


def test_results_of_a_lane_do_not_depend_on_other_lanes(dataset, tmp_path):
    """A lane's position in the program does not matter. Each lane has its own learning rate."""
    jobs = [Job(LONG, 0), Job(SHORT, 0), Job(TURNED, 5), Job(LONG, 3)]
    together = train_together(jobs, dataset, tmp_path / "together", 4)
    rates = [[record["learning_rate"] for record in together[n].history] for n in range(4)]
    assert rates[0][0] == pytest.approx(1e-3)
    assert rates[1] == pytest.approx([1e-2, 1e-2])
    assert rates[0][-1] < rates[0][0]
    for number in (0, 1, 2):
        alone = train_together(jobs[number : number + 1], dataset, tmp_path / str(number), 4)
        assert_same_outcome(together[number], alone[0])


def test_a_job_takes_the_lane_of_a_finished_job_while_others_train(dataset, tmp_path, monkeypatch):
    """Of four jobs in three lanes, the fourth begins while two others train."""
    # the longer jobs leave time to build the fourth job's network
    longer = change(LONG, {"training": {"epochs": 25, "early_stopping": {"patience": 25}}}, "test")
    jobs = [Job(longer, 0), Job(SHORT, 1), Job(longer, 2), Job(LONG, 4)]
    told, outcomes, make = [], {}, program.Program._make

    def work(job, listener, should_stop, lane):
        listener(events.Started(job, lane.program.lanes))
        folder = f"{tmp_path}/{job.seed}"
        outcome = train(job.experiment, dataset, job.seed, folder, listener, make=lane)
        outcomes[job.seed] = outcome
        return events.Finished(job, outcome.summary())

    def watched(self, calls, *, active=True):
        told.append(set(calls))
        make(self, calls, active=active)
        # _make itself waits for the device: lanes that waited for the device would count as missing
        assert all(array.is_ready() for array in self._state)

    monkeypatch.setattr(program.Program, "_make", watched)
    invocation = types.SimpleNamespace(run=work, dataset=dataset)
    lanes.run(jobs, invocation, told.append, lambda: False, lanes=3)
    assert sorted(e.job.seed for e in told if isinstance(e, events.Ended)) == [0, 1, 2, 4]
    order = [(type(e).__name__, e.job.seed) for e in told if isinstance(e, events.Event)]
    assert order.index(("Started", 4)) < max(order.index(("Finished", n)) for n in (0, 2))
    assert all(e.lanes == 3 for e in told if isinstance(e, events.Started))
    # all lanes train together after the first call, which compiles
    calls = [item for item in told if isinstance(item, set)]
    assert [len(lanes) for lanes in calls[1:10]] == [3] * 9
    fourth = order.index(("Epoch", 4))
    assert {"Epoch"} & {name for name, seed in order[fourth:] if seed in (0, 2)}
    for job in jobs:
        alone = train_together([job], dataset, tmp_path / f"alone{job.seed}", 3)
        assert_same_outcome(outcomes[job.seed], alone[0])


def test_if_a_program_fails_all_its_jobs_fail_with_the_reason(dataset, tmp_path, monkeypatch):
    def fail(self, calls, *, active=True):
        raise RuntimeError("out of memory")

    def work(job, listener, should_stop, lane):
        train(job.experiment, dataset, job.seed, f"{tmp_path}/{job.seed}", make=lane)

    monkeypatch.setattr(program.Program, "_make", fail)
    jobs, done = [Job(SHORT, seed) for seed in range(3)], []
    invocation = types.SimpleNamespace(run=work, dataset=dataset)
    lanes.run(jobs, invocation, done.append, lambda: False, lanes=2)
    assert {(event.job.seed, event.reason) for event in done} == {
        (seed, "RuntimeError: out of memory") for seed in range(3)
    }


def test_a_slow_lane_is_left_behind_and_joins_again(dataset, tmp_path, monkeypatch):
    """Both lanes give the same results as in a program where neither lane waits."""
    monkeypatch.setattr(program, "PATIENCE", 0.3)
    jobs, ended, asked = [Job(LONG, 0), Job(LONG, 1)], threading.Event(), []

    def away():  # waits in the second epoch until the other lane has finished
        asked.append(True)
        if len(asked) == 10:
            ended.wait(60)
        return False

    undisturbed = train_together(jobs, dataset, tmp_path / "undisturbed", 2)

    def listener(event):
        if event.job.seed == 0 and isinstance(event, events.Phase) and event.what == "testing":
            ended.set()

    outcomes = train_together(jobs, dataset, tmp_path / "away", 2, {1: away}, listener)
    assert ended.is_set()
    for number in (0, 1):
        assert_same_outcome(undisturbed[number], outcomes[number])


def test_a_run_that_fails_does_not_stop_other_lanes(dataset, empty, tmp_path, monkeypatch):
    """Keras's clear_session is not called, because it affects all threads."""
    shutil.copyfile(empty, tmp_path / "mlflow.db")
    store = connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    log, told, cleared = tracking.RunWriter.log_history, [], []

    def failing(self, history):
        if len(history) == 2 and self.store.client.get_run(self.run_id).data.tags["seed"] == "1":
            raise OSError("no space left on the device")
        log(self, history)

    monkeypatch.setattr(tracking.RunWriter, "log_history", failing)
    monkeypatch.setattr(keras.backend, "clear_session", lambda: cleared.append(True))
    jobs, engine = [Job(LONG, seed) for seed in range(3)], partial(lanes.run, lanes=None)
    failures, _ = run_jobs(jobs, dataset, store, told.append, name="test", engine=engine)
    assert failures == 1 and not cleared
    by_status = {run.data.tags["seed"]: run.info.status for run in store.search(role="rung")}
    assert by_status == {"0": "FINISHED", "1": "FAILED", "2": "FINISHED"}
    assert {run.data.tags["lanes"] for run in store.search(role="rung")} == {"3"}
    (failed,) = [event for event in told if isinstance(event, events.Failed)]
    assert "no space left" in failed.reason


@pytest.mark.parametrize(("lanes_that_fit", "count"), [(9, 4), (3, 3), (0.5, 1)])
def test_lanes_are_as_many_as_trainings_unless_memory_is_short(
    dataset, monkeypatch, lanes_that_fit, count
):
    """Jobs of one trajectory share a lane."""
    later = change(LONG, {"training": {"epochs": 9}}, "test")
    jobs = [Job(e, seed) for seed in range(4) for e in (LONG, later)]
    network = building.build(LONG, dataset.x_train.shape[1:], len(dataset.classes), 0)
    limit = int(lanes_that_fit * lanes._memory(network, 32)) + 1
    card = types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": limit})
    monkeypatch.setattr(lanes, "accelerator", lambda: card)
    assert lanes.chosen(None) is None
    assert lanes._program(jobs, dataset, None).lanes == count
    assert lanes._program(jobs, dataset, 7).lanes == 7  # memory does not limit --lanes


# -- the command --------------------------------------------------------------------------------


def two_lanes(image_folder):
    """Returns arguments for two seeds of rung 5, which has dropout, augmentation and a schedule."""
    arguments = [a for a in ladder_arguments(image_folder) if "seed" not in a]
    return ["--ladder=5", "--seeds=0-1", "--lanes=2", *arguments[1:]]


def by_seed(uri, tmp_path_factory):
    return {
        run.data.tags["seed"]: record(uri, run, tmp_path_factory.mktemp("record"))
        for run in runs_of(uri)
    }


def test_lanes_killed_within_an_epoch_resume_to_the_same_results(
    command, image_folder, empty, tmp_path_factory
):
    arguments = two_lanes(image_folder)
    undisturbed = by_seed(left_alone(arguments, empty, tmp_path_factory), tmp_path_factory)
    points = "step 9, validation 4, checkpoint 7, artifacts 1, never 0"
    process = command(points, *arguments, script=KILLED_AT)
    assert process.returncode == 0, process.err
    assert "resumes in epoch" in process.out
    assert "results may differ" not in process.out
    runs = by_seed(command.uri, tmp_path_factory)
    assert set(runs) == set(undisturbed) == {"0", "1"}
    for seed, run in runs.items():
        assert_identical(run, undisturbed[seed])


def test_the_plan_shows_lanes_and_times_them(command, image_folder):
    _, *options = two_lanes(image_folder)
    process = command("plan", "2,5", "--timing", *options)
    assert process.returncode == 0, process.err
    assert re.search("multiply-adds +lanes +images/s", process.out)
    assert len(re.findall(r"^ +[25] \+ .* M +2 +[1-9]\d* ", process.out, re.MULTILINE)) == 2
    assert "nothing was trained" in process.out


def test_ctrl_c_stops_all_lanes_with_checkpoints(command, image_folder):
    process = command.start(*two_lanes(image_folder), "--set=training.epochs=200")
    read_until(process, "epoch 1/200")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "stopping after this step" in out
    assert "continue with:" in out
    runs = runs_of(command.uri)
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    assert len({path.parent for path in command.checkpoints.glob("*/*.npz")}) == 2


def test_resuming_with_another_number_of_lanes_warns(command, image_folder):
    arguments = two_lanes(image_folder)
    killed = command("step 9", *arguments, script=KILLED_AT)
    assert killed.returncode == -signal.SIGKILL
    process = command("never 0", *arguments, "--lanes=1", script=KILLED_AT)
    assert process.returncode == 0, process.err
    assert "changes may alter the results' last digits: lanes 2 -> 1" in process.out
    assert "lanes: 2 -> 1" in {
        run.data.tags.get("resumed_elsewhere") for run in runs_of(command.uri)
    }


# Networks stay on the first CPU device. The second acts as a GPU: a program call makes many steps.
ELSEWHERE = """
import sys
sys.path[:0] = ["tests", "tests/engines"]
from test_lanes import *
from conftest import bars
first, second = jax.devices()
jax.config.update("jax_default_device", first)
program.accelerator = lambda: second
jobs = [Job(LONG, 0), Job(LONG, 1)]
dataset = bars()
whole = train_together(jobs, dataset, sys.argv[1] + "/whole", 2)
made = []
original = program.Program._make
def watched(self, calls, *, active=True):
    original(self, calls, active=active)
    made.append({d for array in self._state for d in array.devices()})
program.Program._make = watched
calls = iter(range(5))
folder = sys.argv[1] + "/parts"
stopped = train_together(jobs, dataset, folder, 2, stops={1: lambda: next(calls, 9) > 3})
parts = train_together(jobs, dataset, folder, 2)
assert isinstance(stopped[1], Interrupted), stopped
assert made and all(devices == {second} for devices in made)
for number in (0, 1):
    assert_same_outcome(whole[number], parts[number])
assert whole[0].network.variables[0].value.devices() == {first}
alone = train_together([jobs[0]], dataset, sys.argv[1] + "/alone", 1)
assert abs(alone[0].history[0]["loss"] - whole[0].history[0]["loss"]) < 1e-4
"""


def test_networks_and_programs_can_be_on_two_devices(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
