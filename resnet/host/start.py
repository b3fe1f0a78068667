"""Chooses Keras's backend, and hides what TensorFlow's libraries print while loading."""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from resnet import UserError

BACKENDS = ("tensorflow", "jax")


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Chooses the backend, and hides what TensorFlow's libraries write to stderr while loading."""
    choose_backend()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def choose_backend() -> None:
    """Finds which backend Keras will load. If it is not TensorFlow, sets KERAS_BACKEND to its name.

    Raises:
        UserError: the backend is not one of ``BACKENDS``.
    """
    named = os.environ.get("KERAS_BACKEND", "")
    if not named:
        home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
        # Keras ignores a missing or malformed file
        with contextlib.suppress(OSError, ValueError, AttributeError):
            named = json.loads((home / "keras.json").read_text("utf-8")).get("backend", "")
    named = str(named or BACKENDS[0])
    if named not in BACKENDS:
        raise UserError(
            f"Keras's backend is {named!r}, but training needs {' or '.join(BACKENDS)}. Set "
            "KERAS_BACKEND, which overrides keras.json, to one of these names"
        )
    os.environ["KERAS_NNX_ENABLED"] = "false"
    if named != BACKENDS[0]:  # commands in messages repeat KERAS_BACKEND: set it only if needed
        os.environ["KERAS_BACKEND"] = named
