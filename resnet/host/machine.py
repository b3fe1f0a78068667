"""Facts about the machine and the commit. Exact results depend on them."""

import contextlib
import os
import platform
import subprocess
from pathlib import Path

from resnet import ROOT


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def instruction_set() -> str:
    """Returns the newest vector instructions that NumPy found on this machine."""
    import numpy as np  # the command line starts faster without this import

    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found")
    return found[-1] if found else platform.machine()


def processor() -> str:
    """Returns the processor's name, or its architecture if the name is unknown."""
    with contextlib.suppress(OSError):  # only Linux has this file
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version() -> dict[str, str]:
    """Returns ``git_commit`` and ``git_dirty``, both "unknown" outside the project's checkout."""
    unknown = {"git_commit": "unknown", "git_dirty": "unknown"}
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD")
        dirty = str(bool(_git("status", "--porcelain"))).lower()
    except (OSError, ValueError, subprocess.SubprocessError):
        return unknown
    # a copy of the project may lie in another project's checkout
    return {"git_commit": commit, "git_dirty": dirty} if Path(top).resolve() == ROOT else unknown


def _git(*arguments: str) -> list[str]:
    # a lock could make the user's own git commands fail
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    return subprocess.check_output(  # noqa: S603 - fixed arguments
        command, stderr=subprocess.DEVNULL, timeout=10, text=True
    ).splitlines()
