"""Logs a ladder, and the report of it, to a run in MLflow."""

import math
import time
from pathlib import Path

from mlflow.entities import Metric, RunTag

from report.analysis import Content, of_records
from report.presentation.formats import to_markdown
from report.presentation.tables.progression import progression
from resnet import UserError, records
from resnet.host.messages import mask
from resnet.records import DESCRIPTION, Record
from resnet.store import FAILURES, Store
from resnet.study import group, rung_number


def attach(store: Store, run_id: str, content: Content, folder: Path) -> None:
    """Logs a ladder and the report in ``folder`` to a run; raises UserError if the store fails."""
    try:
        log_ladder(store, run_id, content)
        store.client.log_artifacts(run_id, str(folder), "report")
    except FAILURES as error:
        reason = f"{mask(store.uri)}: does not take the report: {mask(error)[:300]}"
        raise UserError(reason) from None


def log_ladder(store: Store, run_id: str, content: Content) -> None:
    """Logs a ladder to a run: metrics with the rung's number as step, and its table as description.

    ``test_accuracy`` is the mean over the seeds, ``low`` and ``high`` its 95 % interval,
    ``deviation`` the deviation of one run, ``gain`` the gain over the rung before. ``published`` is
    logged only if the runs have the study's images and settings.
    """
    # MLflow draws no interval itself (its issue 3762): low and high are lines beside the mean
    moment = int(time.time() * 1000)
    run_set = content.run_set
    gains = {step.after.name: step.gain for step in content.steps}
    metrics = []
    for system in content.rungs:
        published = system.accuracies and not run_set.reservation
        values = {
            "test_accuracy": system.accuracy,
            "low": system.interval[0],
            "high": system.interval[1],
            "deviation": system.deviation,
            "seeds": len(system.accuracies) or math.nan,
            "published": system.published if published else math.nan,
            # rounded, so that equal gains are drawn equal
            "gain": round(gains.get(system.name, math.nan), 10),
        }
        rung = rung_number(system.name) or 0
        metrics += [Metric(k, v, moment, rung) for k, v in values.items() if not math.isnan(v)]
    tags = [
        RunTag("ladder", group(run_set.dataset, run_set.profile, run_set.modified)),
        RunTag(DESCRIPTION, to_markdown(progression(content), "readme")),
    ]
    store.client.log_batch(run_id, metrics, tags=tags)


def restore(store: Store, found: dict[Path, Record]) -> int:
    """Imports records into MLflow by :func:`resnet.records.restore`, and logs their ladder."""
    count = records.restore(store, found)
    shown = store.client.search_runs([store.experiment_id], "tags.ladder != ''")
    if count or not shown:
        for run in shown:
            store.client.delete_run(run.info.run_id)
        content = of_records(store.study, found.values())
        name = f"recorded runs · {content.run_set.label}"
        run_id = store.client.create_run(store.experiment_id, run_name=name).info.run_id
        log_ladder(store, run_id, content)
        store.client.set_terminated(run_id)
    return count
