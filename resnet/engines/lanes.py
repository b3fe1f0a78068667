"""The engine that trains several runs side by side in one JAX program.

Each job has a thread that calls :meth:`resnet.engines.Invocation.run`. A job waits for other lanes
only in training and validation steps. After its last step, it frees its lane for the next job.
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
    """Returns the number of lanes, or None for one lane per trajectory, the default on a GPU.

    Raises:
        UserError: more than one lane is asked for, but the backend has no lanes.
    """
    if keras.backend.backend() != "jax":
        if (asked or 1) > 1:
            raise UserError(
                f"--lanes {asked}: TensorFlow trains one run at a time. To use lanes, "
                "install JAX ('make gpu' or 'make jax') and set KERAS_BACKEND=jax"
            )
        return 1
    return asked or (None if accelerator() else 1)


def by_program(jobs: list[Job]) -> dict[str, list[Job]]:
    """Groups the jobs by :meth:`resnet.study.Experiment.program` and keeps their order."""
    programs: dict[str, list[Job]] = {}
    for job in jobs:
        programs.setdefault(job.experiment.program(), []).append(job)
    return programs


def trainings(jobs: list[Job]) -> int:
    """Counts how many of a program's jobs can train at once.

    Finished jobs count too, so that a resumed command has the same number of lanes as before.
    Exact results depend on this number.
    """
    return len({job.trajectory() for job in jobs})


def run(
    jobs: list[Job],
    invocation: Invocation,
    listener: events.Listener,
    should_stop: Callable[[], bool],
    *,
    lanes: int | None,
) -> None:
    """Runs jobs side by side, one program after another; see :data:`resnet.engines.jobs.Engine`."""
    waiting = list(by_program(jobs).values())
    program: Program | None = None
    threads = _Threads(invocation, should_stop)
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
                # the last runs of a program are recorded while the next program trains
                waiting, program = waiting[1:], None
            elif event := threads.next_event():
                listener(event)
    finally:
        threads.cut_off()  # after a second Ctrl-C or a listener's error, threads still run


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
        except Exception as error:  # the engine failed, not the run
            listener(events.Failed(job, f"{type(error).__name__}: {error}"))
        finally:
            lane.close()
            self._events.put(threading.current_thread())  # tells next_event that the thread ends

    def next_event(self) -> events.Event | None:
        """Returns the next event, or None if a thread ended or no event arrives within 0.1 s."""
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
    experiment, classes = jobs[0].experiment, len(dataset.classes)
    if lanes is None:
        lanes = trainings(jobs)
        if lanes > 1 and (device := accelerator()) and (memory := device.memory_stats()):
            network = build(experiment, dataset.x_train.shape[1:], classes, seed=0)
            each = _memory(network, experiment.training.batch_size)
            lanes = max(min(lanes, memory["bytes_limit"] // each), 1)
    settings = experiment.data
    scale, fill = settings.pixel_scale, settings.fill_mode
    return Program(dataset.x_train, dataset.y_train, classes, scale, lanes, fill)


def _memory(network: keras.Model, batch: int) -> int:
    """Returns how many bytes a lane may need for outputs, convolution patches and gradients."""
    values = 0
    for layer in network.layers:
        values += math.prod(layer.output.shape[1:])
        if isinstance(layer, keras.layers.Conv2D):
            values += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape[:3])
    return 2 * 4 * batch * values
