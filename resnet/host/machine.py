"""What this machine is: on its processor and the number of its cores bits depend."""

import contextlib
import os
import platform
from pathlib import Path


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def instruction_set() -> str:
    """Returns the newest vector instructions that NumPy found here."""
    import numpy as np  # not before it is asked for: the command line starts without

    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found")
    return found[-1] if found else platform.machine()


def processor() -> str:
    """Returns the processor's name."""
    with contextlib.suppress(OSError):  # Linux keeps it there
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
