"""Which commit of the project this is."""

import subprocess
from pathlib import Path

from resnet import ROOT


def version() -> dict[str, str]:
    """Returns ``git_commit`` and ``git_dirty``, unknown outside a checkout of this project."""
    unknown = {"git_commit": "unknown", "git_dirty": "unknown"}
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD")
        dirty = str(bool(_git("status", "--porcelain"))).lower()
    except (OSError, ValueError, subprocess.SubprocessError):
        return unknown
    # of a copy in another project's checkout git returns that project's commit
    return {"git_commit": commit, "git_dirty": dirty} if Path(top).resolve() == ROOT else unknown


def _git(*arguments: str) -> list[str]:
    """Returns git's output by line."""
    # without a lock, on which the user's own git would fail
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    return subprocess.check_output(  # noqa: S603 - fixed arguments
        command, stderr=subprocess.DEVNULL, timeout=10, text=True
    ).splitlines()
