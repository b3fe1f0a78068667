"""Tables of assumptions, runs, cost, data, software and hardware."""

from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter, methodcaller

import numpy as np

from report.analysis import Content, Run
from report.presentation.tables.commands import rerun_command
from report.presentation.tables.numbers import NONE, deviation, number, percent, setting, span
from report.presentation.tables.table import LONG, Field, Table, plain_table, raw
from resnet.host.messages import duration
from resnet.study import short


def assumptions(content: Content) -> Table:
    """Lists the assumed values and the rungs that use them."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for run in (run for s in content.systems for run in s.runs[:1]):
        for key, reason in run.assumed.items():
            value = setting(run.params, key)
            found.setdefault((key, value, str(reason)), []).append(short(run.rung))
    columns = {"setting": "setting", "value": "value", "why": "assumed because", "rungs": "rungs"}
    rows = [(*key, ", ".join(names)) for key, names in found.items()]
    return plain_table("assumptions", "Values the study does not state", columns, rows)


def contradictions(content: Content) -> Table:
    """Lists where the study contradicts itself or leaves something open."""
    columns = {"topic": "topic", "study": "study says", "where": "section", "settled": "our choice"}
    found = content.statements.contradictions
    rows = [(c.topic, c.study, c.where or NONE, c.settled) for c in found]
    return plain_table("contradictions", "Contradictions and gaps in the study", columns, rows)


def _code(run: Run) -> str:
    changed = " + changes" * (run.tags.get("git_dirty") == "true")
    return run.tags.get("git_commit", "unknown")[:12] + changed


def runs(content: Content) -> Table:
    """Lists each run: measurements, commit of the code, and the command that repeats the run."""
    published = {s.name: s.published for s in content.systems}

    def tag(name: str) -> Callable[[Run], str]:
        return lambda run: run.tags.get(name, "")

    metric = partial(methodcaller, "metric")
    metrics = sorted({key for run in content.runs for key in run.metrics if "/" not in key})
    tags = ("dataset", "dataset_fingerprint", "profile", "modified", "git_commit", "git_dirty")
    fields = [
        Field("run_id", "id", "run", kind="id"),
        Field("rung", "", "rung", short),
        Field("seed", "", "seed", kind="number"),
        Field("", metric("test_accuracy"), "test accuracy", percent, "number"),
        Field("images_interval", "interval", "interval (images)", span, "number"),
        Field("seed_floor", "floor", "floor", deviation, "number"),
        Field("", metric("train_seconds"), "training time", duration, "number"),
        Field("begun", "", "begun (UTC)", lambda t: f"{t:%Y-%m-%d %H:%M}", "lines"),
        Field("config_hash", tag("config_hash"), "configuration", lambda text: text[:12], "mono"),
        Field("", _code, "code (git commit)", kind="mono"),
        Field("again_with", partial(rerun_command, content.study), "repeat with", kind="copy"),
        *raw("title", published=lambda run: published[run.rung]),
        *raw(**{name: tag(name) for name in tags}, **{name: metric(name) for name in metrics}),
    ]
    return Table("runs", "Runs shown", fields, content.runs, lambda run: run.id[:8])


def cost(content: Content) -> Table:
    """Lists the device hours of each row."""
    groups = {s.heading: list(s.runs) for s in content.systems}
    groups["ablations, alternatives"] = list(content.derived_runs)
    rows = [
        (name, len(made), float(np.nansum([run.device_seconds for run in made])) / 3600)
        for name, made in groups.items()
        if made
    ]
    fields = [
        Field("what", itemgetter(0), "row", on=LONG),
        Field("runs", itemgetter(1), "runs", number("d"), "number", LONG),
        Field("device_hours", itemgetter(2), "device hours", number(",.1f"), "number", LONG),
    ]
    return Table(
        "cost", "Device hours; an epoch shared by several runs is counted once", fields, rows
    )


def curves(content: Content) -> Table:
    """Lists every run's curves by epoch; the table is written to CSV only."""
    rows = [
        (run.rung, run.seed, run.id, epoch, *values)
        for run in content.runs
        for epoch, *values in run.history.itertuples(name=None)
    ]
    keys = ["rung", "seed", "run_id", "epoch", *(content.runs[0].history if rows else ())]
    return plain_table("curves", "Curves by epoch", dict.fromkeys(keys, ""), rows)


def environment(content: Content) -> Table:
    """Lists the data, software and hardware of the runs."""
    run_set = content.run_set

    def each(values: Iterable[str | None]) -> str:
        return ", ".join(dict.fromkeys(value for value in values if value))

    def tag(name: str) -> str:
        return each(run.tags.get(name) for run in content.runs)

    versions = sorted({t for run in content.runs for t in run.tags if t.startswith("version.")})
    hardware = ("device", "threads", "lanes", "precision", "instruction_set", "backend",
                "resumed_elsewhere")  # fmt: skip
    facts = {
        "dataset": run_set.dataset,
        "fingerprint": run_set.fingerprint,
        "training and test images": each(
            f"{r.n_train:,} and {r.n_test:,}" for r in content.runs if r.n_test
        ),
        "profile": run_set.profile,
        "modified settings": run_set.modified or "none",
        "seeds": ", ".join(map(str, sorted({run.seed for run in content.runs}))),
        "total training time": duration(content.seconds),
        **{name.replace("_", " "): tag(name) for name in hardware},
        **{name.removeprefix("version."): tag(name) for name in versions},
        "code (git commit)": each(map(_code, content.runs)),
        "SHA-256 of claims.yaml when a run began": tag("claims_sha256"),
        "MLflow experiment": content.study.name,
    }
    rows = [fact for fact in facts.items() if fact[1]]
    columns = {"what": "what", "value": "value"}
    return plain_table("environment", "Data, software, hardware", columns, rows)
