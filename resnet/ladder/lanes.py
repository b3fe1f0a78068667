"""Several trainings side by side in one program (JAX): many seeds for little more than one's time.

Each job is done as if alone, by :meth:`resnet.ladder.Ladder.run` in a thread of its own: it finds
its run, holds its lease, keeps its states, records what came of it. Only its steps meet those of
the others. A job that has done its last step makes room for the next that waits.
"""

import math
import queue
import threading
from collections.abc import Callable

from resnet import Interrupted, UserError, events
from resnet.data import Dataset
from resnet.network import build, keras
from resnet.study import Job
from resnet.training import Lane, Program, accelerator

Work = Callable[..., events.Event]
"""``work(job, dataset, listener, should_stop, lane=lane)``, :meth:`resnet.ladder.Ladder.run`."""


def chosen(asked: int | None) -> int | None:
    """Decides how many lanes programs have; None for as many as there are trainings for one.

    Args:
        asked: by the user; by default 1 on a CPU, and None on an accelerator.

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


def by_program(jobs: list[Job]) -> dict[str, list[Job]]:
    """Groups the jobs by :meth:`resnet.study.Experiment.program`, in order."""
    programs: dict[str, list[Job]] = {}
    for job in jobs:
        programs.setdefault(job.experiment.program(), []).append(job)
    return programs


def trainings(jobs: list[Job]) -> int:
    """Counts how many of a program's jobs can train at once, finished ones included.

    That a command goes on with as many lanes as it began with, whatever is done by then, is what
    its bits depend on.
    """
    return len({job.trajectory() for job in jobs})


def run(
    jobs: list[Job],
    dataset: Dataset,
    work: Work,
    folder: str,
    listener: events.Listener,
    should_stop: Callable[[], bool],
    *,
    lanes: int | None,
) -> list[events.Event]:
    """Runs jobs side by side, program by program; see :func:`resnet.ladder.cluster.run`.

    Args:
        jobs: what to do.
        dataset: on which images.
        work: does one job.
        folder: of the checkpoints, which every lane sees.
        listener: is told what happens, in this thread.
        should_stop: asked several times a second.
        lanes: of each program, from :func:`chosen`.

    Returns:
        What became of each job, in the order in which they ended.

    Raises:
        Interrupted: ``should_stop`` said so; all checkpoints are written.
    """
    waiting = list(by_program(jobs).values())
    program: Program | None = None
    threads = _Threads(dataset, work, should_stop)
    done: list[events.Event] = []
    try:
        while waiting or threads.jobs:
            if should_stop():
                waiting.clear()
            if waiting and program is None:
                program = _program(waiting[0], dataset, lanes)
            # a job that shares another's states waits for them, as on a cluster
            busy = {job.trajectory() for job in threads.jobs.values()}
            free = [job for jobs in waiting[:1] for job in jobs if job.trajectory() not in busy]
            if program and free and program.free:
                waiting[0].remove(free[0])
                threads.begin(free[0], program.lane())
            elif program and waiting and not waiting[0] and program.free == program.lanes:
                waiting, program = waiting[1:], None  # the last ones are recorded meanwhile
            elif event := threads.hear():
                listener(event)
                if isinstance(event, events.Finished | events.Skipped | events.Failed):
                    done.append(event)
    finally:
        threads.cut_off()  # by a second Ctrl-C, or a failing listener
    if should_stop() and len(done) < len(jobs):
        raise Interrupted
    return done


class _Threads:
    """The jobs that are at work, a thread each, and what they tell."""

    def __init__(self, dataset: Dataset, work: Work, should_stop: Callable[[], bool]):
        self.jobs: dict[threading.Thread, Job] = {}
        self._dataset, self._work, self._should_stop = dataset, work, should_stop
        self._heard: queue.Queue[events.Event | threading.Thread] = queue.Queue()
        self._cut_off = threading.Event()

    def begin(self, job: Job, lane: Lane) -> None:
        thread = threading.Thread(target=self._do, args=(job, lane), daemon=True)
        self.jobs[thread] = job
        thread.start()

    def _do(self, job: Job, lane: Lane) -> None:
        def stop() -> bool:
            return self._should_stop() or self._cut_off.is_set()

        put = self._heard.put
        try:
            put(self._work(job, self._dataset, put, stop, lane=lane))
        except Interrupted:
            pass
        except Exception as error:  # of the machinery, not of the run
            put(events.Failed(job, f"{type(error).__name__}: {error}"))
        finally:
            lane.close()
            put(threading.current_thread())

    def hear(self) -> events.Event | None:
        """Waits a moment for what happens next."""
        try:
            event = self._heard.get(timeout=0.1)
        except queue.Empty:
            return None
        if isinstance(event, threading.Thread):
            del self.jobs[event]
            return None
        return event

    def cut_off(self) -> None:
        self._cut_off.set()
        for thread in self.jobs:
            thread.join(timeout=5)


def _program(jobs: list[Job], dataset: Dataset, lanes: int | None) -> Program:
    """The program of some jobs, none of which has begun."""
    experiment, classes = jobs[0].experiment, len(dataset.classes)
    if lanes is None:
        lanes = trainings(jobs)
        device = accelerator()
        memory = device.memory_stats() if device else None
        if lanes > 1 and memory:
            network = build(experiment, dataset.x_train.shape[1:], classes, seed=0)
            each = _memory(network, experiment.training.batch_size)
            lanes = max(min(lanes, memory["bytes_limit"] // each), 1)
    scale = experiment.data.pixel_scale
    fill = experiment.data.fill_mode
    return Program(dataset.x_train, dataset.y_train, classes, scale, lanes, fill)


def _memory(network: keras.Model, batch: int) -> int:
    """Bytes that a lane may need: what all layers put out, patches too, and its gradients."""
    values = 0
    for layer in network.layers:
        values += math.prod(layer.output.shape[1:])
        if isinstance(layer, keras.layers.Conv2D):
            values += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape[:3])
    return 2 * 4 * batch * values
