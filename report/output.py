"""Writes a report's folder, and puts it beside the runs it is about.

folder = write(analysis.load(store.uri), Path("reports/latest"))
attach(store.uri, parent_run_id, folder)
"""

import json
import os
import shutil
from pathlib import Path

from matplotlib import rc_context
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from report import figures, formats, page, tables
from report.analysis import Content
from resnet import UserError
from resnet.figures import save
from resnet.store import mask

MANIFEST = "manifest.json"
PAGE = "report.html"


def write(content: Content, out: Path) -> Path:
    """Writes a report aside and swaps it in; a reader sees the old one or the new one.

    Args:
        content: from :func:`report.analysis.load`.
        out: the folder; an earlier report there is replaced.

    Returns:
        ``out``, which then holds ``report.html``, ``figures/``, ``tables/`` and a manifest.

    Raises:
        UserError: ``out`` cannot be written, or holds something that is no report.
    """
    out = out.resolve()
    aside = out.with_name(f".{out.name}.{os.getpid()}.new")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        aside.mkdir(parents=True)
        try:
            _fill(content, aside)
            refuse_foreign(out)
            if out.exists():
                out.rename(old)
            aside.rename(out)
        finally:
            if old.exists() and not out.exists():
                old.rename(out)
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    return out


def refuse_foreign(out: Path) -> None:
    """Refuses a folder with files that no report put there.

    Raises:
        UserError: ``out`` is a file, or holds a file that its manifest does not name.
    """
    if out.is_dir():
        try:
            manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
            own = {MANIFEST, *manifest["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            own = set()
        for path in out.rglob("*"):
            name = path.relative_to(out).as_posix()
            litter = own and path.name.startswith(".")  # the system's: .DS_Store
            if name not in own and not litter and not (path.is_dir() and not path.is_symlink()):
                raise UserError(
                    f"--out {out}: holds {name!r}, which is not part of a report; "
                    "choose another folder"
                )
    elif out.exists() or out.is_symlink():
        raise UserError(f"--out {out}: is not a folder")


def _fill(content: Content, folder: Path) -> None:
    pictures = folder / "figures"
    pictures.mkdir()
    drawn = {}
    for name, figure in figures.all_figures(content).items():
        svg = figures.to_svg(figure, name.replace("_", " "))
        (pictures / f"{name}.svg").write_text(svg, encoding="utf-8")
        drawn[name] = figure, svg
    with rc_context(fname=figures.STYLE):
        save(drawn["progression"][0], pictures / "progression.png", 200)
    made = tables.all_tables(content)
    formats.write(made, folder / "tables")
    (folder / PAGE).write_text(page.render(content, made, drawn), encoding="utf-8")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")


def attach(uri: str, run_id: str, folder: Path) -> None:
    """Logs a report as artifacts of a run, usually the parent.

    Args:
        uri: MLflow tracking URI.
        run_id: the run.
        folder: from :func:`write`.

    Raises:
        UserError: the store does not take it.
    """
    try:
        MlflowClient(uri).log_artifacts(run_id, str(folder), "report")
    except (MlflowException, OSError) as error:
        raise UserError(f"{mask(uri)}: does not take the report: {mask(error)[:300]}") from None
