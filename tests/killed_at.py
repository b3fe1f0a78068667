"""Runs the real runner and kills it (SIGKILL) at chosen points.

    killed_at.py "POINT N, POINT N, never 0" ARGS...

``POINT N`` kills a process at the Nth occurrence of a point in ``POINTS``; ``never 0`` kills none.
Each point has a process of its own. The processes run one after another, and each but the last
must be killed at its point. They are forked after the imports, because imports take most of the
time. A checkpoint is written after every step, so that many kills happen within an epoch.
"""

import errno
import os
import signal
import stat
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
import mlflow

import runner
from resnet import engines
from resnet.tracking import runs
from resnet.training import loop, program, steps

ENGINE = program._JaxSteps if keras.backend.backend() == "jax" else steps.TensorFlowSteps


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name, action):
    """Makes each call of ``owner.name`` begin with ``action(n, *arguments)``; n counts calls."""
    original, calls = getattr(owner, name), count(1)

    def wrapper(*arguments, **options):
        action(next(calls), *arguments)
        return original(*arguments, **options)

    setattr(owner, name, wrapper)


def kill_before(owner, name, nth):
    before(owner, name, lambda number, *_: kill() if number == nth else None)


def half_written(nth):
    """Cuts the nth flushed file to half its size and then kills this process."""
    files = count(1)

    def halve(_, descriptor):
        # counts only files, because several lanes flush files and folders in any order
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and next(files) == nth:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            kill()

    before(os, "fsync", halve)


def full(nth):
    """Makes the nth flush to the disk and all later flushes fail, as if the disk were full."""

    def fail(number, *_):
        if number >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before(os, "fsync", fail)


POINTS = {
    "step": lambda n: kill_before(ENGINE, "train", n),
    "checkpoint": half_written,
    "validation": lambda n: kill_before(ENGINE, "test", n),
    "metrics": lambda n: kill_before(runs.RunWriter, "log_history", n),
    "artifacts": lambda n: kill_before(mlflow.MlflowClient, "log_artifacts", n),
    "model": lambda n: kill_before(keras.Model, "save", n),
    "end": lambda n: kill_before(runs, "end", n + 1),
    "between": lambda n: kill_before(engines.Invocation, "run", n),
    "never": lambda n: None,
}

if __name__ == "__main__":
    *killed, last = [part.rsplit(maxsplit=1) for part in sys.argv.pop(1).split(",")]
    loop.CHECKPOINT_SECONDS = 0
    for point, nth in killed:
        if not (child := os.fork()):
            last = point, nth
            break
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended == -signal.SIGKILL, (point, nth, ended)
    POINTS[last[0].strip()](int(last[1]))
    runner.entry()
