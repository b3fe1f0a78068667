"""What produced a run: code, claims, versions, hardware."""

import functools
import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

from resnet import ROOT
from resnet.study import Study
from resnet.training import numerics


def environment(study: Study) -> dict[str, str]:
    """Tags that say what produced a run of a study."""
    # a reader sees that the bounds were there before the result
    return _here() | {"claims_sha256": study.claims_sha256}


@functools.cache
def _here() -> dict[str, str]:
    own = {"host": socket.gethostname(), "version.mlflow": metadata.version("mlflow")}
    return numerics() | own | _version()


def _version() -> dict[str, str]:
    """Tags that say which commit the code is of, unknown outside a checkout of this project."""
    top, commit, changes = (
        _git("rev-parse", "--show-toplevel"),
        _git("rev-parse", "HEAD"),
        _git("status", "--porcelain"),
    )
    # of a copy in another project's checkout git tells that one's
    if not (top and commit and Path(top).resolve() == ROOT):
        return {"git_commit": "unknown", "git_dirty": "unknown"}
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"git_commit": commit, MLFLOW_GIT_COMMIT: commit, "git_dirty": dirty}


def _git(*arguments: str) -> str | None:
    """What git says of this project's folder; None if nothing."""
    # GIT_DIR and others name another repository than the folder's: a hook has them set
    environment = {key: text for key, text in os.environ.items() if not key.startswith("GIT_")}
    try:
        return subprocess.run(  # noqa: S603 - fixed arguments
            # without a lock, on which the user's own git would fail
            ["git", "--no-optional-locks", "-C", str(ROOT), *arguments],  # noqa: S607 - the user's
            capture_output=True,
            check=True,
            env=environment,
            timeout=10,
            encoding=sys.getfilesystemencoding(),
            errors=sys.getfilesystemencodeerrors(),
        ).stdout.removesuffix("\n")
    except (OSError, subprocess.SubprocessError):
        return None
