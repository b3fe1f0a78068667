"""Writes a report's folder, and what an invocation's own run in MLflow shows of its ladder."""

import glob
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from matplotlib import rc_context
from mlflow.entities import Metric, RunTag

from report.analysis import Content, of_records
from report.presentation import figures, formats, page
from report.presentation.tables import all_tables
from report.presentation.tables.progression import progression
from resnet import UserError, records
from resnet.host.messages import mask
from resnet.records import DESCRIPTION, Record
from resnet.store import FAILURES, Store
from resnet.study import group, rung_number

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
        _clear(out)
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


def _clear(out: Path) -> None:
    """Removes what killed processes left beside a report."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.*"):
        of = re.fullmatch(r"([0-9]{1,9})\.(new|old)", path.name.removeprefix(f".{out.name}."))
        if of and not psutil.pid_exists(int(of[1])):
            shutil.rmtree(path, ignore_errors=True)


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
        records.figures.save(drawn["progression"][0], pictures / "progression.png", 200)
    made = all_tables(content)
    formats.write(made, folder / "tables")
    (folder / PAGE).write_text(page.render(content, made, drawn), encoding="utf-8")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")


def attach(store: Store, run_id: str, content: Content, folder: Path) -> None:
    """Makes an invocation's run show its ladder, with the report among its artifacts.

    Args:
        store: where it is.
        run_id: the run.
        content: whose runs are the ladder.
        folder: from :func:`write`.

    Raises:
        UserError: the store does not take it.
    """
    try:
        log_ladder(store, run_id, content)
        store.client.log_artifacts(run_id, str(folder), "report")
    except FAILURES as error:
        raise _refused(store, "the report", error) from None


def log_ladder(store: Store, run_id: str, content: Content) -> None:
    """Logs a ladder to a run: figures with the rung's number as step, and its table in words.

    ``test_accuracy`` is the seeds' mean, ``low`` and ``high`` its 95 % interval, ``deviation`` that
    of one run, ``gain`` that over the rung before. ``published`` is there only if the runs are on
    the study's images, with its settings.
    """
    # MLflow draws no interval itself (its issue 3762): low and high are lines beside the mean
    moment = int(time.time() * 1000)
    comparable = not content.run_set.reservation
    gains = {step.after.name: step.gain for step in content.steps}
    metrics = []
    for system in content.rungs:
        low, high = system.interval
        figures_ = {
            "test_accuracy": system.accuracy,
            "low": low,
            "high": high,
            "deviation": system.deviation,
            "seeds": len(system.accuracies) or math.nan,
            "published": system.published if system.accuracies and comparable else math.nan,
            "gain": gains.get(system.name, math.nan),
        }
        metrics += [
            # equal gains are drawn equal
            Metric(
                key,
                round(value, 10) if key == "gain" else value,
                moment,
                rung_number(system.name) or 0,
            )
            for key, value in figures_.items()
            if not math.isnan(value)
        ]
    run_set = content.run_set
    tags = [
        RunTag("ladder", group(run_set.dataset, run_set.profile, run_set.modified)),
        RunTag(DESCRIPTION, formats.to_markdown(progression(content), "readme")),
    ]
    store.client.log_batch(run_id, metrics, tags=tags)


def restore(
    store: Store, found: dict[Path, Record], tell: Callable[[Path], None] = lambda path: None
) -> int:
    """Imports records into MLflow, with a run that shows their ladder.

    Arguments, result and errors as of :func:`resnet.records.restore`.
    """
    count = records.restore(store, found, tell)
    try:
        shown = store.client.search_runs([store.experiment_id], "tags.ladder != ''")
        if count or not shown:
            for run in shown:
                store.client.delete_run(run.info.run_id)
            content = of_records(store.study, found.values())
            name = f"recorded runs · {content.run_set.label}"
            run_id = store.client.create_run(store.experiment_id, run_name=name).info.run_id
            log_ladder(store, run_id, content)
            store.client.set_terminated(run_id)
    except FAILURES as error:
        raise _refused(store, "the records' ladder", error) from None
    return count


def _refused(store: Store, what: str, error: Exception) -> UserError:
    return UserError(f"{mask(store.uri)}: does not take {what}: {mask(error)[:300]}")
