"""Files that are there whole or not at all."""

import os
import socket
from pathlib import Path


def write(path: Path, content: bytes | memoryview) -> None:
    """Writes a file aside, flushes it to the disk, and puts it in the place of the one before.

    What a killed process left aside is overwritten by the next that writes the file.
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
