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
        UserError: Keras does not start with its settings.
    """
    path = choose_backend()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        try:
            import keras  # noqa: F401
        except ModuleNotFoundError:
            raise  # which says what to install
        except Exception as error:  # whatever a setting makes of its import
            reason = " ".join(str(error).split())[:200]
            settings = f"KERAS_* and {path}"
            raise UserError(f"Keras does not start: {reason}; check {settings}") from None
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def choose_backend() -> str:
    """Puts the backend that Keras will load into KERAS_BACKEND, unless it is the usual one.

    Returns:
        The path of Keras's settings.

    Raises:
        UserError: the backend is none of ``BACKENDS``.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")  # noqa: PTH118
    path = os.path.expanduser(os.path.join(home, "keras.json"))  # noqa: PTH111, PTH118 - as Keras does
    named, source = os.environ.get("KERAS_BACKEND", ""), "KERAS_BACKEND is"
    if not named:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # then Keras says it
            named = json.loads(Path(path).read_text(encoding="utf-8")).get("backend", "")
        named, source = str(named or BACKENDS[0]), f"{path} says"
    if named not in BACKENDS:
        raise UserError(
            f"{source} {named!r}, but runs train on {' or '.join(BACKENDS)}: set KERAS_BACKEND to "
            "one of them, which goes before keras.json"
        )
    os.environ["KERAS_NNX_ENABLED"] = "false"
    if named != BACKENDS[0]:  # which goes without saying in the commands that are shown
        os.environ["KERAS_BACKEND"] = named
    return path
