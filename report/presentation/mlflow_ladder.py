"""Logs a ladder and its report to a run in MLflow."""

import math
import time
from pathlib import Path

from mlflow.entities import Metric, RunTag

from report.analysis import Content, of_records
from report.presentation.formats import to_markdown
from report.presentation.tables.message import message
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
        reason = f"{mask(store.uri)}: cannot store the report: {mask(error)[:300]}"
        raise UserError(reason) from None


def log_ladder(store: Store, run_id: str, content: Content) -> None:
    """Logs a ladder to a run: a table as the run's description, and metrics for each rung.

    A metric's step is the rung's number. ``test_accuracy`` is the mean over the seeds, and ``low``
    and ``high`` are the ends of the mean's 95 % interval. ``gain`` is the gain over the previous
    rung. ``published``, the study's accuracy, is logged only if runs are comparable with the study.
    """
    # MLflow cannot draw intervals (MLflow issue 3762), so both ends are metrics of their own
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
            # rounded, so that MLflow draws equal gains at the same height
            "gain": round(gains.get(system.name, math.nan), 10),
        }
        rung = rung_number(system.name) or 0
        metrics += [Metric(k, v, moment, rung) for k, v in values.items() if not math.isnan(v)]
    tags = [
        RunTag("ladder", group(run_set.dataset, run_set.profile, run_set.modified)),
        RunTag(DESCRIPTION, to_markdown(progression(content), "readme")),
    ]
    store.client.log_batch(run_id, metrics, tags=tags)
    if not run_set.reservation:
        about = f"{message(content).lead}\n\n{store.study.about}"
        store.client.set_experiment_tag(store.experiment_id, DESCRIPTION, about)


def restore(store: Store, found: dict[Path, Record]) -> int:
    """Imports records into MLflow, logs their ladder, and returns the number of new runs."""
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
