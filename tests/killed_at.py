"""The real runner, killed (SIGKILL, by itself) at a chosen point, or its disk full from then on.

    killed_at.py "POINT N" ARGS...
    killed_at.py "POINT N, POINT N, never 0" ARGS...

Of several points each has a process of its own, one after the other; all but the last are killed.
They are forked once everything is imported, which takes most of a start. A checkpoint is written
after every step, so that a kill often finds one in mid-epoch.
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
from sqlalchemy import event
from sqlalchemy.engine import Engine

import runner
from resnet import engines, training
from resnet.tracking import runs
from resnet.training import loop, program, steps

ENGINE = program._JaxSteps if keras.backend.backend() == "jax" else steps.TensorFlowSteps


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_before(owner, name, nth):
    """Makes the nth call of ``owner.name`` the last thing this process does."""
    original, calls = getattr(owner, name), count(1)

    def wrapper(*arguments, **options):
        if next(calls) == nth:
            kill()
        return original(*arguments, **options)

    setattr(owner, name, wrapper)


def half_written(nth):
    """The nth checkpoint stays half a file."""
    original, calls = os.fsync, count(1)

    def fsync(descriptor):
        # two a checkpoint: the file, then its folder
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and next(calls) == nth:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            kill()
        return original(descriptor)

    os.fsync = fsync


def full(nth):
    """No checkpoint can be written from the nth on."""
    original, calls = os.fsync, count(1)

    def fsync(descriptor):
        if next(calls) >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(descriptor)

    os.fsync = fsync


def full_artifacts(nth):
    def log_artifacts(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    mlflow.MlflowClient.log_artifacts = log_artifacts


def full_database(pages):
    """SQLite itself then says that the disk is full."""

    @event.listens_for(Engine, "connect")
    def limit(connection, record):
        connection.execute(f"PRAGMA max_page_count = {pages}")


POINTS = {
    "full": full,
    "full artifacts": full_artifacts,
    "full database": full_database,
    "step": lambda n: kill_before(ENGINE, "train", n),
    "checkpoint": half_written,
    "validation": lambda n: kill_before(ENGINE, "test", n),
    "metrics": lambda n: kill_before(runs.RunWriter, "log_history", n),
    "artifacts": lambda n: kill_before(mlflow.MlflowClient, "log_artifacts", n),
    "model": lambda n: kill_before(keras.Model, "save", n),
    "figures": lambda n: kill_before(training.Outcome, "summary", n),
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
