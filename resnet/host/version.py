"""Which commit of the project this is."""

import os
import subprocess
import sys
from pathlib import Path

from resnet import ROOT


def version() -> dict[str, str]:
    """Returns ``git_commit`` and ``git_dirty``, unknown outside a checkout of this project."""
    top, _, commit = (_git("rev-parse", "--show-toplevel", "HEAD") or "").rpartition("\n")
    # of a copy in another project's checkout git returns that project's commit
    if not top or Path(top).resolve() != ROOT:
        return {"git_commit": "unknown", "git_dirty": "unknown"}
    changes = _git("status", "--porcelain")
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"git_commit": commit, "git_dirty": dirty}


def _git(*arguments: str) -> str | None:
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
