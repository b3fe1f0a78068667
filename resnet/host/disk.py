"""Writes files atomically, so that no crash leaves a file incomplete."""

import os
import socket
from pathlib import Path


def write(path: Path, content: bytes | memoryview) -> None:
    """Writes a temporary file, flushes it to the disk, and renames it to ``path``.

    If a process is killed, the next process that writes ``path`` overwrites the temporary file.
    """
    # the name includes the host, because another machine may write the same file
    aside = path.with_name(f"{path.name}.{socket.gethostname()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)  # if the disk is full, this frees space
        raise
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)  # the rename itself must survive a power cut
    finally:
        os.close(parent)
