"""Files that are there whole or not at all."""

import os
import socket
from pathlib import Path


def write(path: Path, content: bytes | memoryview) -> None:
    """Writes a file beside the old one, flushes it to the disk, and renames it.

    The next process that writes the file overwrites what a killed one left beside it.
    """
    # another machine may be at it too
    aside = path.with_name(f"{path.name}.{socket.gethostname()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)  # a full disk needs the room
        raise
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)  # the rename itself must survive a power cut
    finally:
        os.close(parent)
