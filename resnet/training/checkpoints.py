"""Writes and reads checkpoints in a local folder or at a URL that fsspec supports (``s3://...``).

A reader sees the old checkpoint or the new one, never a part of a checkpoint. In a local folder, a
file gets its final name only when it is complete. An object store shows only complete uploads.
"""

import contextlib
import hashlib
import io
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from resnet import UserError
from resnet.host import disk
from resnet.host.messages import one_line


def name(rates: list[float]) -> str:
    """Returns a checkpoint's name: its epoch (from 1) and a digest of all learning rates so far."""
    return f"{len(rates):04d}-{hashlib.sha256(json.dumps(rates).encode()).hexdigest()[:16]}"


def save(url: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Writes or replaces a checkpoint at a URL or path, and creates a missing folder.

    ``meta`` is a JSON object. :func:`load` returns its floats exactly.
    """
    # A checkpoint has only a few MB. So it can be made in memory and written in one piece.
    buffer = io.BytesIO()
    members: dict[str, Any] = {"meta": np.frombuffer(json.dumps(meta).encode(), "uint8"), **arrays}
    np.savez(buffer, **members)
    write(url, buffer.getvalue())


def write(url: str, content: bytes) -> None:
    """Writes a file completely or not at all."""
    system, path = url_to_fs(url)
    system.makedirs(system._parent(path), exist_ok=True)
    if isinstance(system, LocalFileSystem):
        disk.write(Path(path), content)
    else:
        system.pipe_file(path, content)


def prepare(folder: str) -> str:
    """Checks that files can be written to a folder. Writes an empty file and returns its URL.

    Raises:
        UserError: the file cannot be written.
    """
    probe = f"{folder}/probe-{uuid.uuid4().hex}"
    try:
        write(probe, b"")
    except Exception as error:  # each kind of storage raises its own exceptions
        raise UserError(f"--checkpoints {folder}: cannot be written: {one_line(error)}") from None
    return probe


def visible(url: str) -> bool:
    """Checks whether this machine can see a file or folder."""
    system, path = url_to_fs(url)
    return system.exists(path)


def load(url: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Reads a checkpoint without unpickling anything. Returns None if the file does not exist.

    Raises:
        UserError: the file is damaged or cannot be read.
    """
    system, path = url_to_fs(url)
    try:
        content = system.cat_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: the checkpoint cannot be read: {one_line(error)}") from None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays, json.loads(arrays.pop("meta").tobytes())
    except Exception as error:  # NumPy and zipfile raise many kinds of exceptions
        raise UserError(
            f"{path}: the checkpoint is damaged ({one_line(error)}). "
            "Start the run again with --fresh."
        ) from None


def remove(url: str) -> None:
    """Removes a file, or a folder with its files, if it exists."""
    system, path = url_to_fs(url)
    with contextlib.suppress(FileNotFoundError):
        system.rm(path, recursive=True)
