"""Several trainings side by side in one program (JAX): many seeds for little more than one's time.

Each job is done as if alone, by :meth:`resnet.ladder.Ladder.run` in a thread of its own: it finds
its run, holds its lease, keeps its states, records what came of it. Only its steps meet those of
the others. A job that has done its last step makes room for the next that waits.
"""

import math
import queue
import threading
from collections.abc import Callable

import keras

from resnet import Interrupted, UserError, events, models
from resnet.config import Job
from resnet.data import Dataset
from resnet.numerics import accelerator
from resnet.program import Lane, Program

Work = Callable[..., events.Event]
"""``work(job, dataset, listener, should_stop, lane=lane)``, :meth:`resnet.ladder.Ladder.run`."""


def most(asked: int | None) -> int | None:
    """How many lanes a program may have; None for as many as there are runs and memory for.

    Args:
        asked: by the user; by default a CPU has one, and an accelerator is not limited.

    Raises:
        UserError: the backend has none.
    """
    if keras.backend.backend() != "jax":
        if (asked or 1) > 1:
            raise UserError(
                f"--lanes {asked}: TensorFlow trains one run at a time; JAX has lanes: set "
                "KERAS_BACKEND=jax, in the environment of make gpu or make jax"
            )
        return 1
    return asked or (None if accelerator() else 1)


def count(jobs: list[Job], limit: int | None) -> int:
    """How many lanes the program of some jobs has, those included that are finished by now.

    Args:
        jobs: all that share the program; of those that share a trajectory one trains at a time.
        limit: from :func:`most`.
    """
    trainings = len({job.training() for job in jobs})
    return trainings if limit is None else min(trainings, limit)


def run(
    jobs: list[Job],
    dataset: Dataset,
    work: Work,
    folder: str,
    listener: events.Listener,
    should_stop: Callable[[], bool],
    *,
    limit: int | None,
) -> list[events.Event]:
    """Runs jobs side by side, program by program; see :func:`resnet.engine.run`.

    Args:
        jobs: what to do.
        dataset: on which images.
        work: does one job.
        folder: of the checkpoints, which every lane sees.
        listener: is told what happens, in this thread.
        should_stop: asked several times a second.
        limit: of lanes, from :func:`most`.

    Returns:
        What became of each job, in the order in which they ended.

    Raises:
        Interrupted: ``should_stop`` said so; all checkpoints are written.
    """
    programs: dict[str, list[Job]] = {}
    for job in jobs:
        programs.setdefault(job.experiment.program(), []).append(job)
    waiting = list(programs.values())
    program: Program | None = None
    running: dict[threading.Thread, Job] = {}
    told: queue.Queue[events.Event | threading.Thread] = queue.Queue()
    done: list[events.Event] = []
    cut_off = threading.Event()

    def do(job: Job, lane: Lane) -> None:
        try:
            told.put(work(job, dataset, told.put, stop, lane=lane))
        except Interrupted:
            pass
        except Exception as error:  # of the machinery, not of the run
            told.put(events.Failed(job, f"{type(error).__name__}: {error}"))
        finally:
            lane.close()
            told.put(threading.current_thread())

    def stop() -> bool:
        return should_stop() or cut_off.is_set()

    try:
        while waiting or running:
            if should_stop():
                waiting.clear()
            if waiting and program is None:
                program = _program(waiting[0], dataset, limit)
            busy = {job.training() for job in running.values()}
            free = [job for jobs in waiting[:1] for job in jobs if job.training() not in busy]
            if program and free and (lane := program.lane()):
                waiting[0].remove(free[0])
                thread = threading.Thread(target=do, args=(free[0], lane), daemon=True)
                running[thread] = free[0]
                thread.start()
                continue
            if program and waiting and not waiting[0] and program.idle:
                waiting, program = waiting[1:], None  # the last ones are recorded meanwhile
                continue
            try:
                event = told.get(timeout=0.1)
            except queue.Empty:
                continue
            if isinstance(event, threading.Thread):
                del running[event]
                continue
            listener(event)
            if isinstance(event, events.Finished | events.Skipped | events.Failed):
                done.append(event)
    finally:
        cut_off.set()  # by a second Ctrl-C, or a failing listener
        for thread in running:
            thread.join(timeout=5)
    if should_stop() and len(done) < len(jobs):
        raise Interrupted
    return done


def _program(jobs: list[Job], dataset: Dataset, limit: int | None) -> Program:
    experiment = jobs[0].experiment
    lanes = count(jobs, limit)
    if lanes > 1 and (device := accelerator()):
        network = models.build(
            experiment.model, dataset.x_train.shape[1:], len(dataset.classes), seed=0
        )
        memory = (device.memory_stats() or {}).get("bytes_limit", math.inf)
        need = _memory(network, experiment.training.batch_size)
        lanes = max(min(lanes, int(memory // need)), 1) if memory < math.inf else lanes
    return Program(
        dataset.x_train,
        dataset.y_train,
        len(dataset.classes),
        experiment.data.pixel_scale,
        lanes,
    )


def _memory(network: keras.Model, batch: int) -> int:
    """Bytes that a lane needs at most: what all layers put out, patches too, and its gradients."""
    values = 0
    for layer in network.layers:
        values += math.prod(layer.output.shape[1:])
        if isinstance(layer, keras.layers.Conv2D):
            seen = math.prod(layer.kernel.shape[:3])
            values += math.prod(layer.output.shape[1:3]) * seen
    return 2 * 4 * batch * values
