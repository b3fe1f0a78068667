"""Everything a report says, computed from the runs of one selection."""

import hashlib
import math
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from report import claims, runs, selection, statistics
from report.claims import Evidence, Judgement, Study, Verdict
from report.runs import Run
from report.selection import Selection
from report.statistics import Interval
from resnet import config

STATED_DEVIATIONS = (0.003, 0.005)
"""Seed deviations for the power line beside the observed one: usual for networks of this kind."""
NO_INTERVAL = (math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class System:
    """A rung or a baseline: what was published and what was measured, NaN where nothing was."""

    name: str
    title: str
    published: float
    runs: tuple[Run, ...]
    waiting: str
    changes: tuple[str, ...]
    tolerance: float

    @property
    def slug(self) -> str:
        """The name as part of a file's name; no two names share one."""
        if re.fullmatch(r"\w{1,60}", self.name, re.ASCII):
            return self.name
        safe = re.sub(r"\W", "_", self.name, flags=re.ASCII)[:40]
        return f"{safe}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"

    @cached_property
    def accuracies(self) -> list[float]:
        """Test accuracies by seed, of the runs that recorded one."""
        values = [run.metrics.get("test_accuracy", math.nan) for run in self.runs]
        return [value for value in values if not math.isnan(value)]

    @property
    def accuracy(self) -> float:
        """Mean test accuracy over seeds."""
        return float(np.mean(self.accuracies)) if self.accuracies else math.nan

    @property
    def epochs(self) -> list[float]:
        """Epochs run, by seed."""
        return [run.metrics["epochs_run"] for run in self.runs if "epochs_run" in run.metrics]

    @cached_property
    def interval(self) -> Interval:
        """95 %: of the mean over seeds, or of one run's accuracy on a finite test set."""
        if len(self.accuracies) > 1:
            return statistics.t_interval(self.accuracies)
        n = self.runs[0].n_test if self.accuracies else 0
        return statistics.wilson(round(self.accuracy * n), n) if n else NO_INTERVAL

    @property
    def basis(self) -> str:
        """What the interval is of."""
        if not self.runs:
            return self.waiting
        if len(self.accuracies) > 1:
            return f"{len(self.accuracies)} seeds, t interval"
        if math.isnan(self.interval[0]):
            return "1 seed, no interval"
        return f"1 seed, binomial ({self.runs[0].n_test:,} images)"

    @property
    def verdict(self) -> Verdict:
        """Whether the accuracy lies within the tolerance of the published one."""
        if math.isnan(self.published) or math.isnan(self.interval[0]):
            return "undecided"
        bound = claims.Bound(
            min=self.published - self.tolerance, max=self.published + self.tolerance
        )
        return bound.judge(*self.interval)

    def mean(self, metric: str) -> float:
        """A metric's mean over seeds."""
        values = [run.metrics[metric] for run in self.runs if metric in run.metrics]
        return float(np.mean(values)) if values else math.nan


@dataclass(frozen=True, eq=False)
class Step:
    """Two systems on the same test images, seed by seed."""

    before: System
    after: System

    @cached_property
    def pairs(self) -> list[tuple[Run, Run]]:
        """The runs of the seeds that both have, in the seeds' order."""
        after = {run.seed: run for run in self.after.runs}
        return [(run, after[run.seed]) for run in self.before.runs if run.seed in after]

    @cached_property
    def predicted(self) -> list[tuple[Run, Run]]:
        """Those pairs whose predictions on the same images are still there."""
        return [
            (a, b)
            for a, b in self.pairs
            if a.labels is not None and b.labels is not None and np.array_equal(a.labels, b.labels)
        ]

    @property
    def published(self) -> float:
        """The published gain."""
        return self.after.published - self.before.published

    @cached_property
    def gains(self) -> list[float]:
        """Gain in test accuracy by seed."""
        values = [
            b.metrics.get("test_accuracy", math.nan) - a.metrics.get("test_accuracy", math.nan)
            for a, b in self.pairs
        ]
        return [value for value in values if not math.isnan(value)]

    @property
    def gain(self) -> float:
        """Mean gain over seeds."""
        return float(np.mean(self.gains)) if self.gains else math.nan

    @cached_property
    def interval(self) -> Interval:
        """95 %: bootstrap over seeds, or over the test images of the one pair."""
        if len(self.gains) > 1:
            return statistics.bootstrap_interval(self.gains)
        if len(self.gains) == 1 and self.predicted:
            a, b = self.predicted[0]
            return statistics.paired_interval(b.correct.astype(int) - a.correct)
        return NO_INTERVAL

    @property
    def basis(self) -> str:
        """What the interval and the p value rest on."""
        if not self.pairs:
            missing = [f"{s.name}: {s.waiting}" for s in (self.before, self.after) if not s.runs]
            return ", ".join(missing) or "no seed in common"
        if len(self.gains) > 1:
            return f"{len(self.gains)} seeds: bootstrap; t-test"
        if self.predicted:
            return f"1 seed (seed {self.pairs[0][0].seed}): paired by image; McNemar"
        return "1 seed; predictions are gone, so no paired comparison"

    @cached_property
    def p(self) -> float:
        """Over seeds the t-test that the gain is zero, else McNemar's test of the one pair."""
        if len(self.gains) > 1:
            return statistics.gain_p(self.gains)
        return self.mcnemar[0][1] if self.mcnemar else math.nan

    @cached_property
    def mcnemar(self) -> list[tuple[int, float]]:
        """(seed, p) of McNemar's exact test."""
        return [(a.seed, statistics.mcnemar(a.correct, b.correct)) for a, b in self.predicted]

    @property
    def mcnemar_p(self) -> float:
        """Median of McNemar's p over seeds."""
        return float(np.median([p for _, p in self.mcnemar])) if self.mcnemar else math.nan

    @property
    def agreement(self) -> float:
        """Share of test images that both put into the same class; mean over seeds."""
        shares = [(a.predicted == b.predicted).mean() for a, b in self.predicted]
        return float(np.mean(shares)) if shares else math.nan

    @cached_property
    def turned(self) -> tuple[float, float]:
        """Images that only the later one gets right, and only the earlier one; mean over seeds."""
        pairs = [(a.correct, b.correct) for a, b in self.predicted]
        if not pairs:
            return NO_INTERVAL
        return (
            float(np.mean([(~a & b).sum() for a, b in pairs])),
            float(np.mean([(a & ~b).sum() for a, b in pairs])),
        )

    @cached_property
    def classes(self) -> pd.Series:
        """Gain in accuracy by class, largest first; mean over seeds."""
        if not self.predicted:
            return pd.Series(dtype="float64")
        gains = [class_accuracy(b) - class_accuracy(a) for a, b in self.predicted]
        return pd.concat(gains, axis=1).mean(axis=1).sort_values(ascending=False, kind="stable")

    @cached_property
    def deviation(self) -> float:
        """Standard deviation over seeds, pooled over the two systems; NaN from one seed each."""
        groups = [s.accuracies for s in (self.before, self.after) if len(s.accuracies) > 1]
        if not groups:
            return math.nan
        squares = sum((len(g) - 1) * np.var(g, ddof=1) for g in groups)
        return math.sqrt(squares / sum(len(g) - 1 for g in groups))

    def seeds_needed(self, deviation: float) -> int | None:
        """Seeds a rung to tell a gain of the published size from seed noise."""
        if math.isnan(deviation) or math.isnan(self.published):
            return None
        return statistics.seeds_needed(self.published, deviation)


@dataclass(frozen=True, eq=False)
class Content:
    """A report's content."""

    uri: str
    experiment: str
    selection: Selection
    study: Study
    systems: tuple[System, ...]
    steps: tuple[Step, ...]
    rivals: tuple[Step, ...]
    claims: tuple[Judgement, ...]
    notes: tuple[str, ...]

    @property
    def runs(self) -> list[Run]:
        """Every run shown."""
        return [run for system in self.systems for run in system.runs]

    @property
    def rungs(self) -> list[System]:
        """The numbered systems."""
        return [s for s in self.systems if config.rung_number(s.name) is not None]

    @cached_property
    def corrected(self) -> dict[str, float]:
        """Holm-corrected p by the later rung's name, over the steps that have a p."""
        measured = [step for step in self.steps if not math.isnan(step.p)]
        p_values = statistics.holm([step.p for step in measured])
        return {step.after.name: p for step, p in zip(measured, p_values, strict=True)}

    @property
    def best(self) -> System | None:
        """The rung with the highest measured accuracy, a baseline if no rung was run."""
        measured = [s for s in self.systems if s.accuracies]
        rungs = [s for s in measured if s in self.rungs]
        return max(rungs or measured, key=lambda s: s.accuracy, default=None)

    @property
    def pictured(self) -> Run | None:
        """The best system's first run with predictions: the confusion matrix is of this one."""
        candidates = self.best.runs if self.best else ()
        return next((run for run in candidates if run.labels is not None), None)

    @property
    def seconds(self) -> float:
        """Training time of all runs shown."""
        return sum(run.metrics.get("train_seconds", 0.0) for run in self.runs)


def class_accuracy(run: Run) -> pd.Series:
    """Accuracy by class name, NaN for a class without test images."""
    frame = confusion(run)
    return pd.Series(np.diag(frame), frame.index) / frame.sum(axis=1).replace(0, np.nan)


def confusion(run: Run) -> pd.DataFrame:
    """Counts by true (rows) and predicted (columns) class."""
    size = len(run.classes)
    counts = np.zeros((size, size), int)
    np.add.at(counts, (run.labels, run.predicted), 1)
    return pd.DataFrame(counts, list(run.classes), list(run.classes))


def changes(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """The difference of two flat configurations, one line a setting or a block of them."""
    lines: list[str] = []
    blocks: dict[str, list[str]] = {}
    for key in [*after, *(key for key in before if key not in after)]:
        if before.get(key) == after.get(key):
            continue
        block, _, leaf = key.rpartition(".")
        if key not in before and before.get(block, "") is None:
            blocks.setdefault(block, []).append(f"{leaf} {_text(after[key])}")
        elif key not in after and after.get(block, "") is None:
            blocks[block] = ["off"]
        else:
            lines.append(f"{key}: {_text(before.get(key))} -> {_text(after.get(key))}")
    return (*lines, *(f"{block}: {', '.join(parts)}" for block, parts in blocks.items()))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def load(
    uri: str,
    *,
    dataset: str | None = None,
    profile: str | None = None,
    modified: str | None = None,
    recorded: bool | None = None,
    experiment: str = runs.EXPERIMENT,
) -> Content:
    """Reads a store and computes a report's content.

    Args:
        uri: MLflow tracking URI.
        dataset: a dataset's name or the beginning of its fingerprint.
        profile: ``full``, ``quick``, ...
        modified: the ``--set`` overrides, separated by blanks; "" for none.
        recorded: restored records, or this store's own runs.
        experiment: MLflow experiment.

    Returns:
        The content.

    Raises:
        UserError: the store cannot be read, or nothing in it matches.
    """
    study = claims.load_study()
    chosen = selection.select(runs.search(uri, experiment), dataset, profile, modified, recorded)
    measured = runs.load(uri, chosen.finished)
    waiting = _waiting(uri, chosen)
    by_rung: dict[str, list[Run]] = {}
    for run in measured:
        by_rung.setdefault(run.rung, []).append(run)

    known = _known_experiments(chosen.shown.profile)
    # what was modified is not in the files: they say nothing about the rungs not run
    planned = {} if chosen.shown.modified else {n: e.flat() for n, e in known.items()}
    names = dict.fromkeys([*study.ladder, *study.published, *by_rung, *waiting])
    ladder = sorted((n for n in names if config.rung_number(n) is not None), key=config.rung_number)
    systems, before = [], None
    for name in [*ladder, *(n for n in names if n not in ladder)]:
        own = by_rung.get(name, [])
        flat = own[0].params if own else planned.get(name)
        comparable = before is not None and flat is not None and name in ladder
        systems.append(
            System(
                name=name,
                title=own[0].title if own else known[name].title if name in known else name,
                published=study.published.get(name, math.nan),
                runs=tuple(own),
                waiting=waiting.get(name, "not run"),
                changes=changes(before, flat) if comparable else (),
                tolerance=study.tolerance,
            )
        )
        before = flat
    by_name = {system.name: system for system in systems}
    evidence = Evidence(measured, study.ladder)
    return Content(
        uri=uri,
        experiment=experiment,
        selection=chosen,
        study=study,
        systems=tuple(systems),
        steps=tuple(Step(by_name[a], by_name[b]) for a, b in pairwise(ladder)),
        rivals=tuple(
            Step(by_name[name], by_name[study.ladder[-1]])
            for name in study.published
            if name not in study.ladder
        ),
        claims=tuple(claims.judge(claim, evidence, waiting) for claim in study.claims),
        notes=(*chosen.notes, *_outdated(chosen, known), *_gaps(measured)),
    )


def _known_experiments(profile: str) -> dict[str, config.Experiment]:
    """The experiment files as they are now, in the profile shown: what is not run yet."""
    known = {name: config.load(path) for name, path in config.find().items()}
    if not (config.EXPERIMENTS / "profiles" / f"{profile}.yaml").is_file():
        return known
    changed = config.load_profile(profile).changes
    return {name: config.change(e, changed, f"profile {profile}") for name, e in known.items()}


def _waiting(uri: str, chosen: Selection) -> dict[str, str]:
    """What became of rungs without a finished run, of the newest attempt each."""
    done, result = set(chosen.finished["rung"]), {}
    for row in chosen.unfinished.itertuples(index=False):
        if row.rung not in done and row.rung not in result:
            epochs = runs.epochs_done(uri, row.run_id)
            result[row.rung] = f"{selection.state(row.status)}, {epochs} epochs done"
    return result


def _outdated(chosen: Selection, known: dict[str, config.Experiment]) -> list[str]:
    if chosen.shown.modified:
        return []
    return [
        f"{rung}: was run in a configuration ({value[:12]}) that its experiment file no longer "
        "describes"
        for rung, value in chosen.finished.drop_duplicates("rung")
        .set_index("rung")["config_hash"]
        .items()
        if rung in known and known[rung].hash() != value
    ]


def _gaps(measured: list[Run]) -> list[str]:
    return [
        f"{run.rung}, seed {run.seed} (run {run.id[:8]}): {gap}"
        for run in measured
        for gap in run.gaps
    ]
