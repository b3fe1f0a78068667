"""A tracking store's address, read as SQLAlchemy, and so MLflow, reads it."""

import contextlib
import os
from pathlib import Path
from urllib.parse import quote, unquote

from resnet import ROOT, UserError


def address(path: Path) -> str:
    """Returns the address by which SQLAlchemy, and so MLflow, opens an SQLite file."""
    text = str(path)
    if "?" not in text and unquote(text) == text:
        return f"sqlite:///{text}"
    # of the shorter form MLflow takes what follows for a path, and makes that folder too
    return f"sqlite+pysqlite:///{quote(os.fsencode(path), safe='/ ')}"


DEFAULT_URI = address(ROOT / "mlflow.db")


def file_of(uri: str) -> Path | None:
    """Returns the file that MLflow opens at an SQLite address, links resolved; None for servers.

    Raises:
        UserError: MLflow could not open it, or it says more than a file's name.
    """
    if uri.partition(":")[0].partition("+")[0].lower() != "sqlite":
        return None
    from sqlalchemy.engine import make_url  # not before it is asked for: it takes a while
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


def full(uri: str | None) -> str:
    """Returns a tracking store's address, by default the project's; a file's in one spelling."""
    uri = (uri or "").strip() or DEFAULT_URI
    path = file_of(uri)
    return address(path) if path else uri
