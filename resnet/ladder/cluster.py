"""Several trainings at a time, on this machine or on a Ray cluster; nothing else imports Ray.

One task a run, in a process of its own that ends with it. A worker or node that is lost costs its
run the steps since the last checkpoint: Ray starts the task again, wherever there is room. What
happens travels through one small actor beside the driver.
"""

import logging
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

# read when Ray is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")

from resnet import ROOT, Interrupted, UserError, events
from resnet.data import Dataset
from resnet.store import connect
from resnet.study import Job, Study
from resnet.training import checkpoints

# what bits, devices and the way to the store depend on: a worker gets the driver's
_PREFIXES = ("KERAS_", "TF_", "XLA_", "JAX_", "ONEDNN_", "OMP_", "MLFLOW_")
_OURS = "CUDA_VISIBLE_DEVICES"  # unless Ray deals out the GPUs

Work = Callable[..., events.Event]
"""``work(job, dataset, listener, should_stop, lost)``, see :meth:`resnet.ladder.Ladder.run`."""


class _Post:
    """What workers tell and ask, in an actor. If it is lost, a new one knows all that matters."""

    def __init__(self) -> None:
        self._events: list[events.Event] = []
        self._begun: Counter[int] = Counter()
        self._stop = False

    def begin(self, number: int) -> int:
        """Counts how often the job was begun since its last epoch, this time not counted."""
        self._begun[number] += 1
        return self._begun[number] - 1

    def put(self, number: int, event: events.Event) -> None:
        if isinstance(event, events.Epoch):
            self._begun[number] = 1
        self._events.append(event)

    def stopped(self) -> bool:
        return self._stop

    def take(self, stop: bool) -> list[events.Event]:
        self._stop = stop
        taken, self._events = self._events, []
        return taken


def run(
    jobs: list[Job],
    dataset: Dataset,
    work: Work,
    folder: str,
    listener: events.Listener,
    should_stop: Callable[[], bool],
    *,
    processes: int | None = None,
    address: str | None = None,
    cpus: int = 1,
    gpus: float | None = None,
    study: Study | None = None,
) -> list[events.Event]:
    """Runs jobs in workers, which stop when ``should_stop`` says so; the bits are the same.

    Args:
        jobs: what to do; a free worker takes the next whose trajectory no other is at.
        dataset: copied once to each machine.
        work: does one job.
        folder: of the checkpoints, a path or URL that all nodes must see.
        listener: is told what happens, in this thread.
        should_stop: asked several times a second.
        processes: how many at a time; by default as many as there is room for.
        address: of a Ray cluster; by default Ray is started on this machine.
        cpus: which a run takes up on its node; here as many run as ``processes`` says.
        gpus: which a run takes up; by default all runs see those that this process sees.
        study: whose runs the nodes must be able to record.

    Returns:
        What became of each job, in the order in which they ended.

    Raises:
        Interrupted: ``should_stop`` said so; all checkpoints are written.
        UserError: there is no such cluster, no room for a run, or a node misses something.
    """
    ray = _start(processes, address, gpus, dataset)
    try:
        here = _node(ray, ray.get_runtime_context().get_node_id())
        cpus = cpus if address else 1
        able = _able(ray, cpus, gpus)
        if address:
            _check_nodes(ray, folder, able, gpus, study)
        dataset.fingerprint  # noqa: B018 - computed once here and not in every worker
        post = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Post).remote()
        # Ray starts a task again whose worker was lost, but not one that raised
        again = {"max_calls": 1, "max_retries": -1, "retry_exceptions": False}
        task = ray.remote(num_cpus=cpus, num_gpus=gpus or 0, **again)(_task)
        shared = ray.put(dataset), ray.cloudpickle.dumps(work), post, _environment(gpus)

        def begin(number: int, job: Job) -> Any:
            return task.remote(number, job, *shared)

        done = _serve(ray, jobs, begin, processes or len(jobs), post, listener, should_stop)
        if should_stop() and len(done) < len(jobs):
            raise Interrupted
        return done
    finally:
        ray.shutdown()


def _serve(
    ray: Any,
    jobs: list[Job],
    begin: Callable[[int, Job], Any],
    processes: int,
    post: Any,
    listener: events.Listener,
    should_stop: Callable[[], bool],
) -> list[events.Event]:
    """Keeps so many tasks going until all jobs are done; what became of them."""
    waiting, done = list(enumerate(jobs)), []
    running: dict[Any, Job] = {}
    while waiting or running:
        stop = should_stop()
        if stop:
            waiting.clear()
        while len(running) < processes:
            # a training that another can share is not done twice side by side
            busy = {job.trajectory() for job in running.values()}
            free = [(n, job) for n, job in waiting if job.trajectory() not in busy]
            if not free:
                break
            waiting.remove(free[0])
            running[begin(*free[0])] = free[0][1]
        ended, _ = ray.wait(list(running), timeout=0.1) if running else ([], [])
        for event in _ask(ray, post.take, stop) or ():
            listener(event)
        for reference in ended:
            job = running.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayError as error:  # of the machinery, not of the run
                result = events.Failed(job, " ".join(str(error).split()))
            if result is not None:
                listener(result)
                done.append(result)
    return done


def _start(processes: int | None, address: str | None, gpus: float | None, dataset: Dataset) -> Any:
    """Starts Ray here or joins a cluster; returns the module."""
    here: dict[str, Any] = {}
    if not address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # it listens on 127.0.0.1 alone
        size = sum(array.nbytes for array in (dataset.x_train, dataset.x_test))
        here = {"num_cpus": processes, "include_dashboard": False}
        here["object_store_memory"] = 2 * size + 128 * 2**20
        path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    import ray

    handler = signal.getsignal(signal.SIGTERM)  # Ray sets its own
    try:
        if address and address != "auto" and "://" not in address:  # Ray would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        what = f"--ray {address}: there is no cluster to join" if address else "Ray does not start"
        raise UserError(f"{what}: {' '.join(str(error).split())[:300]}") from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    return ray


def _node(ray: Any, node_id: str) -> Any:
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)


def _environment(gpus: float | None) -> tuple[tuple[str, ...], dict[str, str]]:
    names = _PREFIXES if gpus else (*_PREFIXES, _OURS)
    return names, {key: value for key, value in os.environ.items() if key.startswith(names)}


def _adopt(names: tuple[str, ...], environment: dict[str, str]) -> None:
    """Makes a worker's environment the driver's; Ray itself sets OMP_NUM_THREADS, for one."""
    for key in [key for key in os.environ if key.startswith(names)]:
        del os.environ[key]
    os.environ.update(environment)


def _able(ray: Any, cpus: int, gpus: float | None) -> dict[str, str]:
    """The nodes that have room for a run, and where they are."""
    needs = {"CPU": cpus, "GPU": gpus or 0}
    able = {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"] and all(node["Resources"].get(k, 0) >= n for k, n in needs.items())
    }
    if not able:
        raise UserError(
            f"no machine has {cpus} CPUs and {gpus or 0:g} GPUs for a run; --cpus-per-run and "
            "--gpus-per-run say what it takes up"
        )
    return able


def _check_nodes(
    ray: Any, folder: str, able: dict[str, str], gpus: float | None, study: Study | None
) -> None:
    """Refuses a cluster that could not train, before the first step."""
    probe = checkpoints.prepare(folder)
    look = ray.remote(num_cpus=0, max_calls=1)(_look)
    try:
        asked = {
            node: look.options(scheduling_strategy=_node(ray, node)).remote(
                probe, _environment(gpus), study
            )
            for node in able
        }
        for node, reference in asked.items():
            try:
                trouble = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                trouble = " ".join(str(error).split())[-300:]
            except ray.exceptions.RayError:
                continue  # it is gone, which Ray sees late
            if trouble:
                raise UserError(f"--ray: node {able[node]}: {trouble}")
    finally:
        checkpoints.remove(probe)


def _look(
    probe: str, environment: tuple[tuple[str, ...], dict[str, str]], study: Study | None
) -> str:
    """What keeps this node from training, in a line; nothing if all is well."""
    _adopt(*environment)
    if not checkpoints.visible(probe):
        return (
            "does not see the checkpoints; --checkpoints names a shared folder or a URL such as "
            "s3://bucket/folder"
        )
    try:
        connect(os.environ["MLFLOW_TRACKING_URI"], study)
    except UserError as error:
        return str(error)
    return ""


def _ask(ray: Any, method: Any, *arguments: Any) -> Any:
    """An answer from the post; None while it is being started anew."""
    try:
        return ray.get(method.remote(*arguments), timeout=10)
    except ray.exceptions.RayError:
        return None


def _task(
    number: int, job: Job, dataset: Dataset, work: bytes, post: Any, environment: tuple
) -> events.Event | None:
    """One run in a worker; None if it was interrupted."""
    import ray

    _adopt(*environment)
    terminated = []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    asked, stop = 0.0, False

    def should_stop() -> bool:
        nonlocal asked, stop
        if time.monotonic() - asked > 0.5:
            stop = _ask(ray, post.stopped) or stop
            asked = time.monotonic()
        return stop or bool(terminated)

    def listener(event: events.Event) -> None:
        post.put.remote(number, event)

    lost = _ask(ray, post.begin, number) or 0
    try:
        if should_stop():
            raise Interrupted
        if lost:
            listener(events.Notice(job, f"its worker was lost ({lost} in a row); it begins again"))
        return ray.cloudpickle.loads(work)(job, dataset, listener, should_stop, lost)
    except Interrupted:
        if not stop:  # it is this worker or its node alone that must go: Ray starts the run anew
            os._exit(1)
        return None
