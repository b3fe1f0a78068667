"""Addresses of tracking stores. Like MLflow, this module uses SQLAlchemy to parse them."""

import contextlib
import os
from pathlib import Path
from urllib.parse import quote, unquote

from resnet import ROOT, UserError


def address(path: Path) -> str:
    """Returns the address with which MLflow opens an SQLite file."""
    text = str(path)
    if "?" not in text and unquote(text) == text:
        return f"sqlite:///{text}"
    # with sqlite:///, MLflow would create the parent folder under its percent-encoded name
    return f"sqlite+pysqlite:///{quote(os.fsencode(path), safe='/ ')}"


DEFAULT_URI = address(ROOT / "mlflow.db")


def file_of(uri: str) -> Path | None:
    """Returns the real path of the file that an SQLite address names; None for other addresses.

    Raises:
        UserError: the address names no file that MLflow can open, or has options.
    """
    if uri.partition(":")[0].partition("+")[0].lower() != "sqlite":
        return None
    from sqlalchemy.engine import make_url  # a slow import, which many commands do not need
    from sqlalchemy.exc import ArgumentError

    with contextlib.suppress(ArgumentError, ValueError):
        url = make_url(uri)
        if url.database and url.database != ":memory:" and not url.host and "?" not in uri:
            path = Path(os.path.realpath(url.database))
            if (make_url(address(path)).database or "").encode() == os.fsencode(path):
                return path
    raise UserError(
        f"--tracking-uri {uri!r} is not the address of a file; write sqlite:///FILE.db without "
        "options. In the file's name, write %25 for % and %3F for ?"
    )


def full(uri: str | None) -> str:
    """Returns a tracking store's address in a uniform spelling; None means the default store."""
    uri = (uri or "").strip() or DEFAULT_URI
    path = file_of(uri)
    return address(path) if path else uri
