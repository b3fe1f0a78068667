"""Checkpoints at a URL: a folder of this machine, or another file system of fsspec (``s3://...``).

A reader sees the old checkpoint or the new one, never a part. In a folder a checkpoint is written
aside, flushed to the disk, then renamed; an object store makes each upload visible as a whole.
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
    """Names a training's checkpoint by its epoch, from 1, and all learning rates so far."""
    return f"{len(rates):04d}-{hashlib.sha256(json.dumps(rates).encode()).hexdigest()[:16]}"


def save(url: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Writes a checkpoint in the place of the one before.

    Args:
        url: URL or path of the file; its folder is made if missing.
        arrays: the arrays by name.
        meta: anything that JSON can hold; :func:`load` returns floats bit for bit.
    """
    # a checkpoint is some MB: it is made in memory and written in one piece, whatever the storage
    buffer = io.BytesIO()
    members: dict[str, Any] = {"meta": np.frombuffer(json.dumps(meta).encode(), "uint8"), **arrays}
    np.savez(buffer, **members)
    write(url, buffer.getvalue())


def write(url: str, content: bytes) -> None:
    """Writes a file at once or not at all."""
    system, path = url_to_fs(url)
    system.makedirs(system._parent(path), exist_ok=True)
    if isinstance(system, LocalFileSystem):
        disk.write(Path(path), content)
    else:
        system.pipe_file(path, content)


def prepare(folder: str) -> str:
    """Writes an empty file and returns its URL, to check before training that files can be written.

    Raises:
        UserError: the file cannot be written.
    """
    probe = f"{folder}/probe-{uuid.uuid4().hex}"
    try:
        write(probe, b"")
    except Exception as error:  # each kind of storage has its own
        raise UserError(f"--checkpoints {folder}: cannot be written: {one_line(error)}") from None
    return probe


def visible(url: str) -> bool:
    """Checks whether this machine sees a file or folder."""
    system, path = url_to_fs(url)
    return system.exists(path)


def load(url: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Reads a checkpoint, if it exists; nothing in it is ever unpickled.

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
    except Exception as error:  # NumPy and zipfile raise many kinds
        raise UserError(
            f"{path}: the checkpoint is damaged ({one_line(error)}); --fresh starts the run anew"
        ) from None


def remove(url: str) -> None:
    """Removes a file, or a folder with all files in it, if it exists."""
    system, path = url_to_fs(url)
    with contextlib.suppress(FileNotFoundError):
        system.rm(path, recursive=True)
