"""Command lines for messages. Users can copy each line and run it in the current folder."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from resnet import ROOT
from resnet.host.addresses import DEFAULT_URI
from resnet.host.messages import hide

OWN = ROOT / ".venv" / "bin" / "python"
"""The interpreter of the environment that the Makefile makes."""
READERS = {"record", "report", "restore", "ui"}
"""Commands that need no backend, because they train nothing."""


def typed(path: str | Path) -> str:
    """Returns the path, absolute or relative to the current folder, whichever is shorter."""
    return min(str(Path(path).absolute()), os.path.relpath(path), key=len)


def command(*words: str, uri: str | None = None, python: str | Path = sys.executable) -> str:
    """Returns a line for ``sh`` that works in the current folder without an activated environment.

    ``words`` begin with ``ladder`` or are the interpreter's arguments (``-m``, a module, ...). The
    line names the tracking store ``uri``, unless this is the default store, and hides passwords.
    """
    own = Path(sys.argv[0])
    if words[:1] != ("ladder",):
        line = [typed(python), *words]
    elif own.name == "ladder" and own.exists() and python == sys.executable:
        line = [typed(own), *words[1:]]
    else:
        line = [typed(python), typed(ROOT / "runner.py"), *words[1:]]
    if os.sep not in line[0]:
        line[0] = f"./{line[0]}"
    if uri not in (None, DEFAULT_URI):
        line += ["--tracking-uri", uri]
    text = shlex.join(line)
    if (backend := os.environ.get("KERAS_BACKEND")) and not READERS & {*words[1:2]}:
        text = f"KERAS_BACKEND={shlex.quote(backend)} {text}"
    return hide(text)


def again(uri: str | None = None) -> str:
    """Returns the command that continues the work of this process."""
    words = [word for word in _started() if word != "--fresh"]
    named = any(word.startswith("--tracking-uri") for word in words)
    return command(*words, uri=None if named else uri)


def _started() -> list[str]:
    script, *words = sys.orig_argv[1:] or [""]
    return ["ladder" if Path(script).name in ("ladder", "runner.py") else script, *words]


@contextlib.contextmanager
def packages() -> Iterator[None]:
    """Exits with a one-line message if a package is missing, and with code 130 after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:  # imports take seconds, so the user may press Ctrl-C here
        sys.exit(130)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not name or any((ROOT / own).exists() for own in (name, f"{name}.py")):
            raise
        there = OWN.exists() and Path(sys.prefix).resolve() != OWN.parents[1].resolve()
        way = command(*_started(), python=OWN) if there else f"make -C {typed(ROOT)} quick"
        print(f"error: {name} is not installed for {sys.executable}; try  {way}", file=sys.stderr)
        sys.exit(2)
