"""Several trainings side by side in one program (JAX): many seeds for little more than one's time.

Each job has a thread, in which :meth:`resnet.engines.Invocation.run` does as it would alone. Only
its steps wait for those of the other lanes. After its last step a job frees its lane for the next.
"""

import math
import queue
import threading
from collections.abc import Callable

from resnet import Interrupted, UserError, events
from resnet.data import Dataset
from resnet.engines.jobs import Invocation, next_job
from resnet.network import build, keras
from resnet.study import Job
from resnet.training import Lane, Program, accelerator


def chosen(asked: int | None) -> int | None:
    """Returns the number of lanes of a program; None, as on an accelerator, for one per training.

    Raises:
        UserError: the backend has no lanes.
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
    """Counts how many of a program's jobs can train at once.

    Finished jobs count too: a command that goes on needs the number of lanes that it began with,
    because its bits depend on it.
    """
    return len({job.trajectory() for job in jobs})


def run(
    jobs: list[Job],
    invocation: Invocation,
    listener: events.Listener,
    should_stop: Callable[[], bool],
    *,
    lanes: int | None,
) -> list[events.Ended]:
    """Runs jobs side by side, program by program; an :data:`resnet.engines.jobs.Engine`.

    Raises:
        Interrupted: ``should_stop`` returned True; all checkpoints are written.
    """
    waiting = list(by_program(jobs).values())
    program: Program | None = None
    threads = _Threads(invocation, should_stop)
    ended: list[events.Ended] = []
    try:
        while waiting or threads.jobs:
            if should_stop():
                waiting.clear()
            if waiting and program is None:
                program = _program(waiting[0], invocation.dataset, lanes)
            room = waiting and program and program.free
            if program and room and (job := next_job(waiting[0], threads.jobs.values())):
                threads.begin(job, program.lane())
            elif program and waiting and not waiting[0] and program.free == program.lanes:
                waiting, program = waiting[1:], None  # the last runs are recorded meanwhile
            elif event := threads.next_event():
                listener(event)
                if isinstance(event, events.Ended):
                    ended.append(event)
    finally:
        threads.cut_off()  # after a second Ctrl-C, or if the listener fails
    if should_stop() and len(ended) < len(jobs):
        raise Interrupted
    return ended


class _Threads:
    """The running jobs, one thread each, and the queue of their events."""

    def __init__(self, invocation: Invocation, should_stop: Callable[[], bool]):
        self.jobs: dict[threading.Thread, Job] = {}
        self._invocation, self._should_stop = invocation, should_stop
        self._events: queue.Queue[events.Event | threading.Thread] = queue.Queue()
        self._cut_off = threading.Event()

    def begin(self, job: Job, lane: Lane) -> None:
        thread = threading.Thread(target=self._run, args=(job, lane), daemon=True)
        self.jobs[thread] = job
        thread.start()

    def _run(self, job: Job, lane: Lane) -> None:
        def stop() -> bool:
            return self._should_stop() or self._cut_off.is_set()

        listener = self._events.put
        try:
            listener(self._invocation.run(job, listener, stop, lane=lane))
        except Interrupted:
            pass
        except Exception as error:  # of the engine, not of the run
            listener(events.Failed(job, f"{type(error).__name__}: {error}"))
        finally:
            lane.close()
            self._events.put(threading.current_thread())  # its last item

    def next_event(self) -> events.Event | None:
        """Waits a moment for the next event."""
        try:
            item = self._events.get(timeout=0.1)
        except queue.Empty:
            return None
        if isinstance(item, threading.Thread):
            del self.jobs[item]
            return None
        return item

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
    settings = experiment.data
    scale, fill = settings.pixel_scale, settings.fill_mode
    return Program(dataset.x_train, dataset.y_train, classes, scale, lanes, fill)


def _memory(network: keras.Model, batch: int) -> int:
    """Bytes that a lane may need: the outputs of all layers, patches, and their gradients."""
    values = 0
    for layer in network.layers:
        values += math.prod(layer.output.shape[1:])
        if isinstance(layer, keras.layers.Conv2D):
            values += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape[:3])
    return 2 * 4 * batch * values
