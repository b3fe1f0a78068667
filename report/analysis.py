"""Everything a report says, computed from the runs of one selection."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from report import claims, runs, selection, statistics
from report.claims import Bound, Evidence, Judgement, Study, Verdict
from report.runs import Run
from report.selection import Selection
from report.statistics import NO_INTERVAL, Interval
from resnet import UserError, ablation, config


@dataclass(frozen=True, eq=False)
class System:
    """A rung or a baseline: what was published and what was measured, NaN where nothing was.

    ``params`` are the first run's, or what the experiment file says where nothing was run.
    """

    name: str
    title: str
    published: float
    tolerance: float
    params: dict[str, Any]
    runs: tuple[Run, ...] = ()
    waiting: str = "not run"
    changes: tuple[str, ...] = ()
    doubtful: bool = False
    comparable: bool = True

    @property
    def slug(self) -> str:
        """The name as part of a file's name or an address; no two names share one."""
        if re.fullmatch(r"\w{1,60}", self.name, re.ASCII):
            return self.name
        safe = re.sub(r"\W", "_", self.name, flags=re.ASCII)[:40]
        return f"{safe}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"

    @property
    def short(self) -> str:
        """:func:`resnet.config.short` of the name."""
        return config.short(self.name)

    @property
    def heading(self) -> str:
        """``3 + deeper + early stopping``."""
        return f"{self.short} {self.title}"

    def values(self, metric: str) -> list[float]:
        """A metric by seed, of the runs that recorded it."""
        return [value for run in self.runs if not math.isnan(value := run.metric(metric))]

    def mean(self, metric: str) -> float:
        """A metric's mean over seeds."""
        values = self.values(metric)
        return float(np.mean(values)) if values else math.nan

    @cached_property
    def accuracies(self) -> list[float]:
        """Test accuracies by seed."""
        return self.values("test_accuracy")

    @property
    def accuracy(self) -> float:
        """Mean test accuracy over seeds."""
        return self.mean("test_accuracy")

    @property
    def difference(self) -> float:
        """Measured less published accuracy."""
        return self.accuracy - self.published

    @property
    def complete(self) -> bool:
        """Whether every run is known and says its accuracy: the rest alone may look firmer."""
        return not self.doubtful and len(self.accuracies) == len(self.runs) > 0

    @cached_property
    def interval(self) -> Interval:
        """95 %: of the mean over seeds, or of one run's accuracy on a finite test set."""
        if len(self.accuracies) > 1:
            return statistics.t_interval(self.accuracies)
        return self.runs[0].interval if self.runs else NO_INTERVAL

    @cached_property
    def further(self) -> Interval:
        """95 % prediction interval for one further run; takes two seeds."""
        if len(self.accuracies) < 2:
            return NO_INTERVAL
        return statistics.prediction_interval(self.accuracies)

    @property
    def place(self) -> str:
        """Where the published accuracy, which is one run's, lies in ``further``."""
        low, high = self.further
        if math.isnan(low) or math.isnan(self.published):
            return ""
        return "below" if self.published < low else "above" if self.published > high else "inside"

    @property
    def band(self) -> Bound:
        """Where an accuracy counts as reproduced."""
        return Bound(min=self.published - self.tolerance, max=self.published + self.tolerance)

    @cached_property
    def equivalence(self) -> float:
        """P of the two one-sided tests that the accuracy lies outside of ``band``."""
        if not self.comparable or math.isnan(self.published) or math.isnan(self.interval[0]):
            return math.nan
        if len(self.accuracies) > 1:
            return statistics.equivalent_over_seeds(self.accuracies, *self.band.ends)
        run = self.runs[0]
        return statistics.equivalent_of_one(int(run.correct.sum()), run.n_test, *self.band.ends)

    @property
    def floor(self) -> float:
        """Deviation over seeds that independent errors alone would give; root mean square."""
        floors = [run.floor for run in self.runs if not math.isnan(run.floor)]
        return float(np.sqrt(np.mean(np.square(floors)))) if floors else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of the accuracy over seeds; NaN from one seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else math.nan

    @property
    def basis(self) -> str:
        """What the interval is of."""
        if not self.runs:
            return self.waiting
        if not self.complete:
            return "incomplete"
        if len(self.accuracies) > 1:
            return f"{len(self.accuracies)} seeds, t interval"
        if math.isnan(self.interval[0]):
            return "1 seed, no predictions"
        return "1 seed, binomial"

    @property
    def verdict(self) -> Verdict:
        """Whether the accuracy lies within the tolerance of the published one."""
        if not self.runs:
            return "not run"
        if not self.comparable or math.isnan(self.published):
            return "not comparable"
        return self.band.judge(*self.interval) if self.complete else "undecided"


@dataclass(frozen=True, eq=False)
class Step:
    """Two systems on the same test images, seed by seed; NaN where nothing can be said.

    ``gain`` is the mean of ``gains``, one a seed in common. ``interval`` (95 %) and ``p`` (that
    the gain is zero) are Student's over seeds; of one seed they are paired by test image, and p is
    McNemar's. ``mcnemar_p`` is the median over seeds; ``agreement`` (share of images put into the
    same class), ``newly_right`` and ``newly_wrong`` (images that only the later or only the
    earlier one gets right) are means.
    """

    before: System
    after: System
    gains: list[float]
    gain: float
    interval: Interval
    p: float
    basis: str
    mcnemar_p: float
    agreement: float
    newly_right: float
    newly_wrong: float

    @property
    def title(self) -> str:
        """``2 → 3 + deeper + early stopping``."""
        return f"{self.before.short} → {self.after.heading}"

    @property
    def published(self) -> float:
        """The published gain."""
        return self.after.published - self.before.published

    def pooled(self, values: str) -> float:
        """``deviation`` or ``floor`` of both systems, pooled; NaN if neither has one."""
        known = [s for s in (self.before, self.after) if not math.isnan(getattr(s, values))]
        squares = [getattr(s, values) ** 2 for s in known]
        weights = [max(len(s.runs) - 1, 1) for s in known]
        return math.sqrt(np.average(squares, weights=weights)) if known else math.nan


def compare(before: System, after: System) -> Step:
    """What the step from one system to another brought; paired by image only on the same data."""
    earlier, later = (
        {run.seed: run for run in s.runs if not math.isnan(run.metric("test_accuracy"))}
        for s in (before, after)
    )
    pairs = [(run, later[seed]) for seed, run in earlier.items() if seed in later]
    gains = [b.metric("test_accuracy") - a.metric("test_accuracy") for a, b in pairs]
    same_images = len({run.tags.get("dataset_fingerprint") for pair in pairs for run in pair}) < 2
    by_image = []
    for a, b in pairs if same_images else ():
        if a.n_test and b.n_test and a.predictions["label"].equals(b.predictions["label"]):
            same = a.predictions["predicted"] == b.predictions["predicted"]
            won, lost = (~a.correct & b.correct).sum(), (a.correct & ~b.correct).sum()
            by_image.append((mcnemar([[0, lost], [won, 0]]).pvalue, same.mean(), won, lost))
    median = np.median(by_image, axis=0)[0] if by_image else math.nan
    means = np.mean(by_image, axis=0)[1:] if by_image else [math.nan] * 3
    interval, p = NO_INTERVAL, math.nan
    if not pairs:
        missing = [f"{s.name}: {s.waiting}" for s in (before, after) if not s.runs]
        basis = ", ".join(missing) or "no seed in common"
    elif len(gains) > 1:
        interval, p = statistics.t_interval(gains), statistics.gain_p(gains)
        basis = f"{len(gains)} seeds: paired t"
    elif by_image:
        a, b = pairs[0]
        interval, p = DescrStatsW(b.correct.astype(int) - a.correct).zconfint_mean(), median
        basis = f"1 seed (seed {a.seed}): paired by image; McNemar"
    else:
        basis = "1 seed" + "; its predictions are gone" * same_images
    basis += "; other images" * (not same_images)
    gain = float(np.mean(gains)) if gains else math.nan
    return Step(before, after, gains, gain, interval, p, basis, median, *means)


def holm(steps: Sequence[Step]) -> dict[str, float]:
    """Holm-corrected p by the later system's name, over the steps that have a p."""
    measured = [step for step in steps if not math.isnan(step.p)]
    if not measured:
        return {}
    p_values = multipletests([step.p for step in measured], method="holm")[1]
    return {step.after.name: p for step, p in zip(measured, p_values, strict=True)}


@dataclass(frozen=True, eq=False)
class Content:
    """A report's content.

    ``parts`` are runs of what :mod:`resnet.ablation` made of the ladder; ``known`` are the
    experiment files as they are now, in the profile shown, none where runs were modified.
    ``compared`` are other sets' contents, from which nothing of the rest is computed.
    """

    uri: str
    experiment: str
    selection: Selection
    study: Study
    systems: tuple[System, ...]
    steps: tuple[Step, ...]
    rivals: tuple[Step, ...]
    claims: tuple[Judgement, ...]
    notes: tuple[str, ...]
    parts: tuple[Run, ...]
    known: dict[str, config.Experiment]
    compared: tuple["Content", ...] = ()

    def beside(self, other: "Content") -> list[Step]:
        """From every system to the same one of another set, if either was run."""
        mine, theirs = ({s.name: s for s in content.systems} for content in (self, other))
        pairs = [
            [systems.get(name, replace(s, runs=())) for systems in (mine, theirs)]
            for name, s in (mine | theirs).items()
        ]
        return [compare(a, b) for a, b in pairs if a.runs or b.runs]

    @property
    def runs(self) -> list[Run]:
        """Every run of a system."""
        return [run for system in self.systems for run in system.runs]

    @property
    def seconds(self) -> float:
        """Training time of all runs shown; epochs that one shares with another count once."""
        return float(np.nansum([run.device_seconds for run in self.runs]))

    @property
    def rungs(self) -> list[System]:
        """The numbered systems."""
        return [s for s in self.systems if config.rung_number(s.name) is not None]

    @property
    def best(self) -> System | None:
        """The rung with the highest measured accuracy, a baseline if no rung was run."""
        measured = [s for s in self.systems if s.accuracies]
        rungs = [s for s in measured if s in self.rungs]
        return max(rungs or measured, key=lambda s: s.accuracy, default=None)

    @property
    def pictured(self) -> Run | None:
        """The best rung's first run with predictions, or the next best's: of it is the matrix."""
        measured = [s for s in self.systems if s.accuracies]
        best = sorted(measured, key=lambda s: (s in self.rungs, s.accuracy), reverse=True)
        return next((run for s in best for run in s.runs if run.n_test), None)

    @cached_property
    def mistakes(self) -> bytes | None:
        """The pictured run's sheet of wrong images, if it left one."""
        return runs.mistakes(self.uri, self.pictured) if self.pictured else None


def by_class(run: Run) -> pd.DataFrame:
    """Test images (``images``) and ``accuracy`` by class name, NaN for a class without any."""
    counts = confusion(run)
    images = counts.sum(axis=1)
    right = pd.Series(np.diag(counts), counts.index)
    return pd.DataFrame({"images": images, "accuracy": right / images.replace(0, np.nan)})


def confusion(run: Run) -> pd.DataFrame:
    """Counts by true (rows) and predicted (columns) class."""
    counts = np.zeros((len(run.classes),) * 2, int)
    np.add.at(counts, (run.predictions["label"], run.predictions["predicted"]), 1)
    return pd.DataFrame(counts, list(run.classes), list(run.classes))


def load(uri: str, *, experiment: str = runs.EXPERIMENT, **chosen: Any) -> Content:
    """Reads a store and computes a report's content.

    Args:
        uri: MLflow tracking URI.
        experiment: MLflow experiment.
        **chosen: ``dataset``, ``profile``, ``modified``, ``recorded`` and ``compare`` as
            :func:`report.selection.select` takes them.

    Returns:
        The content.

    Raises:
        UserError: the store cannot be read, or nothing in it matches.
    """
    one = selection.select(runs.search(uri, experiment), **chosen)
    shown, *others = (
        _content(uri, experiment, each, runs.load(uri, each.finished))
        for each in (one, *one.compared)
    )
    return replace(shown, compared=tuple(others))


def planned() -> Content:
    """A report's content before the first run: what was published and what would be run."""
    none = pd.DataFrame(columns=["rung", "config_hash"])
    shown = selection.RunSet("cifar10", "", "full", "", False, none)
    return _content("", "", Selection(shown, none, none, (), ()), [])


def _content(uri: str, experiment: str, chosen: Selection, measured: list[Run]) -> Content:
    study = claims.load_study()
    waiting = _waiting(uri, chosen)
    parts = tuple(run for run in measured if "~" in run.rung)
    whole = tuple(run for run in measured if "~" not in run.rung)
    known, broken = _known_experiments(chosen.shown.profile)
    comparable = not chosen.shown.reservation
    names = dict.fromkeys([*study.ladder, *study.published, *(r.rung for r in whole), *waiting])
    numbers = {config.rung_number(name) for name in study.ladder}
    ladder = [  # a rung of one's own under a number of the study's stands beside it
        name
        for name in config.rungs(names)
        if name in study.ladder or config.rung_number(name) not in numbers
    ]
    systems: dict[str, System] = {}
    before = None
    for name in [*ladder, *(n for n in names if n not in ladder)]:
        own, plan = [run for run in whole if run.rung == name], known.get(name)
        # what was modified is not in the files: they say nothing about the rungs not run
        files = plan.flat() if plan and not chosen.shown.modified else {}
        params = own[0].params if own else files
        systems[name] = System(
            name=name,
            title=own[0].title if own else plan.title if plan else name,
            published=study.published.get(name, math.nan),
            tolerance=study.tolerance,
            params=params,
            runs=tuple(own),
            waiting=waiting.get(name, "not run"),
            changes=config.changes(before, params) if before and params and name in ladder else (),
            doubtful=bool(chosen.doubtful & {"", name}),
            comparable=comparable,
        )
        before = params
    evidence = Evidence(whole, study.ladder, waiting, chosen.doubtful, comparable)
    rivals = [name for name in study.published if name not in study.ladder]
    return Content(
        uri=uri,
        experiment=experiment,
        selection=chosen,
        study=study,
        systems=tuple(systems.values()),
        steps=tuple(compare(systems[a], systems[b]) for a, b in pairwise(ladder)),
        rivals=tuple(compare(systems[name], systems[study.ladder[-1]]) for name in rivals),
        claims=tuple(claims.judge(claim, evidence) for claim in study.claims),
        notes=(*chosen.notes, *broken, *_outdated(chosen, known), *_gaps(measured)),
        parts=parts,
        known={} if chosen.shown.modified else known,
    )


def _known_experiments(profile: str) -> tuple[dict[str, config.Experiment], list[str]]:
    """The experiment files as they are now, in the profile shown; and what is wrong with some."""
    known, broken = {}, []
    there = (config.EXPERIMENTS / "profiles" / f"{profile}.yaml").is_file()
    for name, path in config.find().items():
        try:
            plan = config.apply_profile(config.load(path), profile if there else "full")
            ablation.alternatives(plan)  # whose values are read nowhere else
            known[name] = plan
        except UserError as error:  # finished runs can be told about all the same
            broken.append(str(error))
    return known, broken


def _waiting(uri: str, chosen: Selection) -> dict[str, str]:
    """What became of rungs without a finished run, of the newest attempt each."""
    done, result = set(chosen.finished["rung"]), {}
    for row in chosen.unfinished.itertuples(index=False):
        if row.rung not in done and row.rung not in result and "~" not in row.rung:
            epochs = runs.epochs_done(uri, row.run_id)
            result[row.rung] = f"{selection.state(row.status)}, {epochs} epochs done"
    return result


def _outdated(chosen: Selection, known: dict[str, config.Experiment]) -> list[str]:
    told = "was run in a configuration that its experiment file no longer describes"
    return [
        f"{row.rung}: {told} ({row.config_hash[:12]})"
        for row in chosen.finished.drop_duplicates("rung").itertuples()
        if row.rung in known and known[row.rung].hash() != row.config_hash
        if not chosen.shown.modified
    ]


def _gaps(measured: list[Run]) -> list[str]:
    return [f"{r.rung}, seed {r.seed} (run {r.id[:8]}): {gap}" for r in measured for gap in r.gaps]
