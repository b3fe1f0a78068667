"""What a person at a shell is told: commands that work as they stand, durations, what is missing.

It imports the standard library alone (but for :func:`file_of`), so that it can speak where
nothing is installed.
"""

import contextlib
import math
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from resnet import UserError

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = "resnet-ladder"
"""The MLflow experiment of all runs."""
OWN = ROOT / ".venv"
"""The environment that the Makefile makes."""


def address(path: Path) -> str:
    """The address by which SQLAlchemy, and so MLflow, opens an SQLite file."""
    text = str(path)
    if "?" not in text and unquote(text) == text:
        return f"sqlite:///{text}"
    # of the shorter form MLflow takes what follows for a path, and makes that folder too
    return f"sqlite+pysqlite:///{quote(os.fsencode(path), safe='/ ')}"


DEFAULT_URI = address(ROOT / "mlflow.db")


def file_of(uri: str) -> Path | None:
    """The file that MLflow opens at an SQLite address, links resolved; None of any other address.

    Raises:
        UserError: MLflow could not open it, or it says more than a file's name.
    """
    if uri.partition(":")[0].partition("+")[0].lower() != "sqlite":
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    with contextlib.suppress(ArgumentError, ValueError):
        url = make_url(uri)
        if url.database and url.database != ":memory:" and not url.host and "?" not in uri:
            path = Path(os.path.realpath(url.database))
            if (make_url(address(path)).database or "").encode() == os.fsencode(path):
                return path
    raise UserError(
        f"--tracking-uri {uri!r}: is no file's address; write sqlite:///FILE.db, without options, "
        "and in the file's name %25 for % and %3F for ?"
    )


def tracking(uri: str | None) -> str:
    """A tracking store's address, by default the project's own; a file's in one spelling.

    Raises:
        UserError: see :func:`file_of`.
    """
    uri = (uri or "").strip() or DEFAULT_URI
    path = file_of(uri)
    return address(path) if path else uri


def duration(seconds: float) -> str:
    """``3 h 05 min``, ``4 min 12 s`` or ``8 s``; ``-`` for NaN."""
    if math.isnan(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def count(n: float, what: str) -> str:
    """``1 epoch``, ``2 epochs``."""
    return f"{n:g} {what}{'s' * (n != 1)}"


def hide(text: str) -> str:
    """A text in which no address shows its password."""
    text = re.sub(r"(://[^:/@\s]*:)\S+@", r"\1***@", text)
    return re.sub(r"((?:password|pwd)=)[^&;\s]+", r"\1***", text, flags=re.IGNORECASE)


def typed(path: str | Path, start: Path | None = None) -> str:
    """A path as it is typed in ``start`` (by default here), whichever is shorter."""
    return min(str(Path(path).absolute()), os.path.relpath(path, start), key=len)


def command(*words: str, uri: str | None = None, python: str | Path = sys.executable) -> str:
    """A command that works as it stands: in a fresh shell in this folder, nothing activated.

    Args:
        *words: what the interpreter is given: ``runner.py``, or ``-m`` and a module, and the rest.
        uri: the tracking store, named unless it is the default one; its password is hidden.
        python: the interpreter.

    Returns:
        The line, quoted for ``sh``.
    """
    here = Path.cwd()
    # Python finds the package report in the folder where it is started
    of_report = words[0] == "-m" and words[1].partition(".")[0] == "report"
    start = ROOT if of_report else here
    first = typed(python, start)
    line = [first if os.sep in first else f"./{first}", *words]
    if words[:1] == ("runner.py",):
        line[1] = typed(ROOT / "runner.py", start)
    if uri not in (None, DEFAULT_URI):
        line += ["--tracking-uri", uri]
    text = shlex.join(line)
    if (backend := os.environ.get("KERAS_BACKEND")) and not of_report:
        text = f"KERAS_BACKEND={shlex.quote(backend)} {text}"
    return hide(text if start == here else f"cd {shlex.quote(typed(ROOT, here))} && {text}")


def again(uri: str | None = None) -> str:
    """The command that started this process, to go on with what it began."""
    words = [word for word in sys.orig_argv[1:] if word != "--fresh"]
    named = any(word.startswith("--tracking-uri") for word in words)
    return command(*words, uri=None if named else uri)


def browse(uri: str) -> str:
    """How a store is looked at: a server's address, or the command that starts one."""
    if uri.startswith("http"):
        return hide(uri)
    made = Path(sys.prefix).resolve() == OWN.resolve() and (OWN / "ready").exists()  # by make
    if uri == DEFAULT_URI and made:
        return "make ui" if Path.cwd() == ROOT else f"make -C {shlex.quote(str(ROOT))} ui"
    return command("-m", "report.ui", uri=uri)


@contextlib.contextmanager
def packages() -> Iterator[None]:
    """Makes of a package that is not installed one line with the way out, and exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not name or any((ROOT / own).exists() for own in (name, f"{name}.py")):
            raise
        python = OWN / "bin" / "python"
        if python.exists() and Path(sys.prefix).resolve() != OWN.resolve():
            way = command(*sys.orig_argv[1:], python=python)
        elif sys.prefix != sys.base_prefix:
            way = command("-m", "pip", "install", "-e", typed(ROOT))
        else:
            way = "make quick" if Path.cwd() == ROOT else f"make -C {shlex.quote(str(ROOT))} quick"
        print(f"error: {name} is not installed for {sys.executable}; try  {way}", file=sys.stderr)
        sys.exit(2)
