"""Several trainings at a time, each in a process of its own, told of in one place.

This module imports nothing heavy, so that a worker can start quietly and a parent need not.
"""

import os
import threading
from collections.abc import Callable
from multiprocessing import Manager
from typing import Any

from joblib import Parallel, delayed

from resnet import UserError
from resnet.config import Job
from resnet.data import Dataset
from resnet.quiet import quiet_start


class _Sender:
    """Stands for the display in a worker: every call travels to the parent."""

    def __init__(self, queue: Any):
        self._queue = queue

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self._queue.put((name, arguments))


def run(
    jobs: list[Job],
    dataset: Dataset,
    uri: str,
    tags: dict[str, str],
    parent_id: str,
    fresh: bool,
    processes: int,
    display: Any,
    should_stop: Callable[[], bool],
) -> list[bool]:
    """Runs jobs in worker processes; the arguments are those of ``ladder.Ladder``.

    A worker uses as many threads as a training alone would, so that results are the same bits.

    Args:
        jobs: what to do; a free worker takes the next.
        dataset: joblib maps its arrays into the workers' memory, it is not copied.
        uri: of the tracking store.
        tags: of the runs.
        parent_id: the invocation's run.
        fresh: begin anew what is finished or begun.
        processes: number of workers.
        display: a ``ladder.Display``, called from one thread of this process.
        should_stop: asked several times a second.

    Returns:
        For each job whether it succeeded.

    Raises:
        training.Interrupted: ``should_stop`` said so, all checkpoints are written.
        UserError: as in ``ladder.Ladder.run``.
    """
    dataset.fingerprint  # noqa: B018 - computed once here and not in every worker
    with Manager() as manager:
        queue, stop = manager.Queue(), manager.Event()
        ended = threading.Event()

        def listen() -> None:
            while not (ended.is_set() and queue.empty()):
                if should_stop() and not stop.is_set():
                    stop.set()
                if not queue.empty():
                    name, arguments = queue.get()
                    getattr(display, name)(*arguments)
                else:
                    ended.wait(0.05)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            results = Parallel(n_jobs=processes, inner_max_num_threads=os.cpu_count())(
                delayed(_work)(job, dataset, uri, tags, parent_id, fresh, queue, stop)
                for job in jobs
            )
        finally:
            ended.set()
            listener.join()
    stopped = [result for result in results if isinstance(result, Exception)]
    if stopped:  # a mistake stops the others too, but is what must be told
        raise next((error for error in stopped if isinstance(error, UserError)), stopped[0])
    return results


def _work(job, dataset, uri, tags, parent_id, fresh, queue, stop) -> bool | Exception:
    """One job in a worker.

    What stops the ladder is returned: raised here, it would cost the other workers their time to
    write a checkpoint.
    """
    import signal

    # Ctrl-C reaches the whole process group; the parent decides and says so through ``stop``
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with quiet_start():
        from resnet import UserError, ladder, tracking, training
    shared = ladder.Ladder(dataset, tracking.connect(uri), tags, parent_id, fresh)
    try:
        if stop.is_set():
            raise training.Interrupted
        return shared.run(job, _Sender(queue), stop.is_set)
    except UserError as error:
        stop.set()
        return error
    except training.Interrupted as error:
        return error
