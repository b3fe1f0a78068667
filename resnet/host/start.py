"""A start without the chatter of TensorFlow's libraries, and with a backend that can train."""

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
    """Hides what TensorFlow's libraries write to stderr while they load; Python's errors stay.

    Raises:
        UserError: the backend is none of ``BACKENDS``.
    """
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
    """Puts the backend that Keras will load into KERAS_BACKEND, unless it is TensorFlow.

    Raises:
        UserError: the backend is none of ``BACKENDS``.
    """
    named = os.environ.get("KERAS_BACKEND", "")
    if not named:
        home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
        with contextlib.suppress(OSError, ValueError, AttributeError):  # Keras ignores such a file
            named = json.loads((home / "keras.json").read_text("utf-8")).get("backend", "")
    named = str(named or BACKENDS[0])
    if named not in BACKENDS:
        raise UserError(
            f"Keras's backend is {named!r}, but runs train on {' or '.join(BACKENDS)}: set "
            "KERAS_BACKEND to one of them, which goes before keras.json"
        )
    os.environ["KERAS_NNX_ENABLED"] = "false"
    if named != BACKENDS[0]:  # commands that are shown need not name the default
        os.environ["KERAS_BACKEND"] = named
