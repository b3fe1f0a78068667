"""The engine that trains several runs at a time with Ray, on this machine or on a cluster.

Each run is a task in a separate process. If a worker or a node is lost, Ray starts the task again,
and the run resumes from its last checkpoint. An actor on the driver's node collects the events.
"""

import logging
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

# Ray reads these variables when it is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")

from resnet import ROOT, Interrupted, UserError, events
from resnet.data import Dataset
from resnet.engines.jobs import Invocation, next_job
from resnet.host.messages import one_line
from resnet.store import Store, connect
from resnet.study import Job
from resnet.training import checkpoints

# prefixes of variables for numerics, devices and the store; workers copy the driver's values
_PREFIXES = ("KERAS_", "TF_", "XLA_", "JAX_", "ONEDNN_", "OMP_", "MLFLOW_")
_DEVICES = "CUDA_VISIBLE_DEVICES"  # Ray sets this variable if it assigns GPUs to runs

Environment = tuple[tuple[str, ...], dict[str, str]]
"""Prefixes, and the driver's environment variables whose names begin with one of the prefixes."""


class _Messages:
    """Passes messages between workers and driver. If this actor dies, Ray starts an empty one."""

    def __init__(self) -> None:
        self._events: list[events.Event] = []
        self._begun: Counter[tuple[str, int]] = Counter()
        self._stop = False

    def begin(self, job: Job) -> int:
        """Returns how many workers the job has lost since its last complete epoch."""
        self._begun[job.row, job.seed] += 1
        return self._begun[job.row, job.seed] - 1

    def put(self, event: events.Event) -> None:
        if isinstance(event, events.Epoch):
            self._begun[event.job.row, event.job.seed] = 1
        self._events.append(event)

    def stopped(self) -> bool:
        return self._stop

    def take(self, stop: bool) -> list[events.Event]:
        self._stop = stop
        taken, self._events = self._events, []
        return taken


def run(
    jobs: list[Job],
    invocation: Invocation,
    listener: events.Listener,
    should_stop: Callable[[], bool],
    *,
    processes: int | None = None,
    address: str | None = None,
    cpus: int = 1,
    gpus: float | None = None,
) -> None:
    """Runs jobs in worker processes; see :data:`resnet.engines.jobs.Engine`.

    Up to ``processes`` jobs run at a time, on the Ray cluster at ``address`` or on this machine.
    A run occupies ``gpus`` GPUs and, on a cluster, ``cpus`` CPUs. Without ``gpus``, all runs see
    the GPUs that this process sees. Each machine gets one copy of the dataset.

    Raises:
        UserError: the cluster cannot be joined, no node has room for a run, or a node cannot train.
    """
    ray = _start(processes, address, invocation.dataset)
    try:
        cpus, environment = cpus if address else 1, _environment(gpus)
        nodes = _nodes_with_room(ray, cpus, gpus)
        if address:
            _check_nodes(ray, nodes, invocation, environment)
        invocation.dataset.fingerprint  # noqa: B018 - computed once here and not in every worker
        here = _on(ray, ray.get_runtime_context().get_node_id())
        messages = ray.remote(num_cpus=0, max_restarts=-1, **here)(_Messages).remote()
        # Ray restarts a task if its worker was lost, but not if the task raised an error
        task = ray.remote(num_cpus=cpus, num_gpus=gpus or 0, max_calls=1, max_retries=-1)(_task)
        # Ray does not resolve references inside a list, so the task calls ray.get
        given = {"shared": [ray.put(invocation)], "messages": messages, "environment": environment}
        begin = partial(task.remote, **given)
        _serve(ray, jobs, begin, processes or len(jobs), messages, listener, should_stop)
    finally:
        ray.shutdown()


def _serve(
    ray: Any,
    jobs: list[Job],
    begin: Callable[[Job], Any],
    processes: int,
    messages: Any,
    listener: events.Listener,
    should_stop: Callable[[], bool],
) -> None:
    waiting = list(jobs)
    running: dict[Any, Job] = {}
    while waiting or running:
        if stop := should_stop():
            waiting.clear()
        while len(running) < processes and (job := next_job(waiting, running.values())):
            running[begin(job)] = job
        over, _ = ray.wait(list(running), timeout=0.1) if running else ([], [])
        for event in _ask(ray, messages.take, stop) or ():
            listener(event)
        for reference in over:
            job = running.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayError as error:  # Ray failed, not the run
                result = events.Failed(job, one_line(error))
            if result is not None:
                listener(result)


def _start(processes: int | None, address: str | None, dataset: Dataset) -> Any:
    here: dict[str, Any] = {}
    if not address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # then Ray uses 127.0.0.1 only
        size = sum(array.nbytes for array in (dataset.x_train, dataset.x_test))
        here = {"num_cpus": processes, "include_dashboard": False}
        here["object_store_memory"] = 2 * size + 128 * 2**20
        path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    import ray

    handler = signal.getsignal(signal.SIGTERM)  # Ray replaces the handler
    try:
        if address and address != "auto" and "://" not in address:  # Ray would retry for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:  # Ray raises a bare Exception if it does not start in time
        problem = f"--ray {address}: cannot join a cluster" if address else "Ray does not start"
        raise UserError(f"{problem}: {one_line(error)[:300]}") from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    return ray


def _on(ray: Any, node_id: str) -> dict[str, Any]:
    strategies = ray.util.scheduling_strategies
    return {"scheduling_strategy": strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)}


def _environment(gpus: float | None) -> Environment:
    prefixes = _PREFIXES if gpus else (*_PREFIXES, _DEVICES)
    return prefixes, {key: value for key, value in os.environ.items() if key.startswith(prefixes)}


def _adopt(environment: Environment) -> None:
    """Gives a worker the driver's environment variables, because Ray changes the worker's."""
    prefixes, variables = environment
    for key in [key for key in os.environ if key.startswith(prefixes)]:
        del os.environ[key]
    os.environ.update(variables)


def _nodes_with_room(ray: Any, cpus: int, gpus: float | None) -> dict[str, str]:
    """Returns {node id: address} for the nodes that are large enough for a run."""
    needs = {"CPU": cpus, "GPU": gpus or 0}
    nodes = {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"] and all(node["Resources"].get(k, 0) >= n for k, n in needs.items())
    }
    if not nodes:
        raise UserError(
            f"no machine has {cpus} CPUs and {gpus or 0:g} GPUs for a run; give smaller numbers "
            "with --cpus-per-run and --gpus-per-run"
        )
    return nodes


def _check_nodes(
    ray: Any, nodes: dict[str, str], invocation: Invocation, environment: Environment
) -> None:
    probe = checkpoints.prepare(invocation.checkpoints)
    check = ray.remote(num_cpus=0, max_calls=1)(_check_node)
    arguments = probe, environment, invocation.store
    try:
        checks = {node: check.options(**_on(ray, node)).remote(*arguments) for node in nodes}
        for node, reference in checks.items():
            try:
                ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                reason = one_line(error.cause or error)[-300:]
                raise UserError(f"--ray: node {nodes[node]}: {reason}") from None
            except ray.exceptions.RayError:
                continue  # the node was lost after Ray listed it
    finally:
        checkpoints.remove(probe)


def _check_node(probe: str, environment: Environment, store: Store) -> None:
    """Raises an error if this node cannot read the checkpoints or the store."""
    _adopt(environment)
    if not checkpoints.visible(probe):
        raise UserError(
            "cannot read the checkpoints; give a shared folder or a URL such as "
            "s3://bucket/folder with --checkpoints"
        )
    connect(store.uri, store.study)


def _ask(ray: Any, method: Any, *arguments: Any) -> Any:
    try:
        return ray.get(method.remote(*arguments), timeout=10)
    except ray.exceptions.RayError:
        return None


def _task(
    job: Job, shared: list[Any], messages: Any, environment: Environment
) -> events.Ended | None:
    """Runs one job in a worker; returns None if it was interrupted."""
    import ray

    _adopt(environment)
    terminated = []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    asked, stop = 0.0, False

    def should_stop() -> bool:
        nonlocal asked, stop
        if time.monotonic() - asked > 0.5:
            stop = _ask(ray, messages.stopped) or stop
            asked = time.monotonic()
        return stop or bool(terminated)

    listener = messages.put.remote
    losses = _ask(ray, messages.begin, job) or 0
    try:
        if should_stop():
            raise Interrupted
        if losses:
            text = f"its worker was lost (workers lost in this epoch: {losses}); the run resumes"
            listener(events.Notice(job, text))
        invocation: Invocation = ray.get(shared[0])
        return invocation.run(job, listener, should_stop, losses)
    except Interrupted:
        if not stop:  # only this worker was told to stop, and its exit makes Ray restart the run
            os._exit(1)
        return None
