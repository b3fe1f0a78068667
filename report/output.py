"""Writes a report's folder, and puts it beside the runs it is about.

folder = build(store.uri, Path("reports/latest"), dataset=dataset.fingerprint)
attach(store.uri, parent_run_id, folder)
"""

import json
import os
import shutil
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from report import analysis, figures, page, runs, tables
from report.analysis import Content
from resnet import UserError

MANIFEST = "manifest.json"
PAGE = "report.html"


def build(
    uri: str,
    out: Path,
    *,
    dataset: str | None = None,
    profile: str | None = None,
    modified: str | None = None,
    recorded: bool | None = None,
    experiment: str = runs.EXPERIMENT,
) -> Path:
    """Reads a store and writes its report.

    Args:
        uri: MLflow tracking URI.
        out: the folder to write; an earlier report there is replaced.
        dataset: a dataset's name or the beginning of its fingerprint; by default the one with
            the most rungs, unmodified runs of the full profile first.
        profile: ``full``, ``quick``, ...
        modified: the ``--set`` overrides, separated by blanks; "" for none.
        recorded: restored records, or this store's own runs.
        experiment: MLflow experiment.

    Returns:
        ``out``, which then holds ``report.html``, ``figures/``, ``tables/`` and a manifest.

    Raises:
        UserError: the store cannot be read, nothing in it matches, or ``out`` cannot be written
            or holds something that is no report.
    """
    refuse_foreign(out)  # before the store is read
    content = analysis.load(
        uri,
        dataset=dataset,
        profile=profile,
        modified=modified,
        recorded=recorded,
        experiment=experiment,
    )
    return write(content, out)


def write(content: Content, out: Path) -> Path:
    """Writes a report aside and swaps it in; a reader sees the old one or the new one.

    Args:
        content: from :func:`report.analysis.load`.
        out: the folder.

    Returns:
        ``out``.

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
            if name not in own and not (path.is_dir() and not path.is_symlink()):
                raise UserError(
                    f"--out {out}: holds {name!r}, which is not part of a report; "
                    "choose another folder"
                )
    elif out.exists() or out.is_symlink():
        raise UserError(f"--out {out}: is not a folder")


def _fill(content: Content, folder: Path) -> None:
    pictures = folder / "figures"
    pictures.mkdir()
    drawn = {"progression": figures.progression(content)}
    for system in content.systems:
        if any(len(run.history) for run in system.runs):
            drawn[f"curves_{system.slug}"] = figures.curves(system)
    if content.pictured:
        drawn["confusion_matrix"] = figures.confusion_matrix(content)
    for name, figure in drawn.items():
        figures.save(figure, pictures, name)
    mistakes = content.pictured.mistakes if content.pictured else None
    if mistakes:
        (pictures / "mistakes.png").write_bytes(mistakes)
    made = tables.all_tables(content)
    tables.write(made, folder / "tables")
    svg = {name: pictures / f"{name}.svg" for name in drawn}
    (folder / PAGE).write_text(page.render(content, made, svg, mistakes), encoding="utf-8")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")


def attach(uri: str, run_id: str, folder: Path) -> None:
    """Logs a report's page and progression figure as artifacts of a run, usually the parent.

    Args:
        uri: MLflow tracking URI.
        run_id: the run.
        folder: from :func:`build`.

    Raises:
        UserError: the store does not take them.
    """
    client = MlflowClient(uri)
    try:
        for name in (PAGE, "figures/progression.png", "figures/progression.svg"):
            client.log_artifact(run_id, str(folder / name), "report")
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{uri}: does not take the report: {reason[:300]}") from None
