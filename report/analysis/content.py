"""Everything a report says, computed from the runs of one selection."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from report.analysis import attribution, claims, runs, selection
from report.analysis.attribution import Ablation, Varied
from report.analysis.claims import Judgement, Statements
from report.analysis.runs import Run
from report.analysis.selection import RunSet, Selection
from report.analysis.statistics import Shared
from report.analysis.systems import Step, System, compare
from report.analysis.verdicts import Verdict
from resnet.host.addresses import full
from resnet.records import Record, load_all
from resnet.store import nothing_run
from resnet.study import Experiment, Study, differences, rung_number, rungs, short


@dataclass(frozen=True, eq=False)
class Content:
    """A report's content.

    ``rivals`` compare each baseline with the last rung. ``derived_runs`` are runs of experiments
    that ``resnet.study.ablation`` derived from the ladder; ``ablations`` and ``varied`` are their
    results, empty if runs were modified. ``compared`` are the contents of other sets.
    """

    uri: str
    study: Study
    selection: Selection
    statements: Statements
    systems: tuple[System, ...]
    steps: tuple[Step, ...]
    rivals: tuple[Step, ...]
    claims: tuple[Judgement, ...]
    notes: tuple[str, ...]
    derived_runs: tuple[Run, ...]
    ablations: tuple[Ablation, ...]
    varied: tuple[Varied, ...]
    compared: tuple["Content", ...] = ()

    @property
    def run_set(self) -> RunSet:
        return self.selection.run_set

    def compare(self, other: "Content") -> list[Step]:
        """Compares every system with the same one of another set, if either was run."""
        mine, theirs = ({s.name: s for s in content.systems} for content in (self, other))
        pairs = [
            [systems.get(name, replace(s, runs=())) for systems in (mine, theirs)]
            for name, s in (mine | theirs).items()
        ]
        return [compare(a, b) for a, b in pairs if a.runs or b.runs]

    @property
    def runs(self) -> list[Run]:
        return [run for system in self.systems for run in system.runs]

    @property
    def seconds(self) -> float:
        """Training time of all runs shown; epochs that runs share count once."""
        return float(np.nansum([run.device_seconds for run in self.runs]))

    @property
    def deviation(self) -> str:
        """The shared factor and its basis, in words."""
        shared = next((s.shared for s in self.systems), Shared())
        if math.isnan(shared.factor):
            return "not known"
        own = f"; by their own {', '.join(map(short, shared.own))}" if shared.own else ""
        known = f"from {shared.freedom} seeds beyond the first of each row"
        return f"{math.sqrt(shared.factor):.2f}, {known}{own}"

    @property
    def interim(self) -> bool:
        """Whether a published row has fewer seeds than are planned."""
        published = [s for s in self.systems if s.name in self.statements.published]
        return any(len(s.runs) < self.statements.seeds for s in published)

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict on each published accuracy."""
        return [s.verdict for s in self.systems if not math.isnan(s.published)]

    @property
    def rungs(self) -> list[System]:
        return [s for s in self.systems if rung_number(s.name) is not None]

    @property
    def _best_first(self) -> list[System]:
        measured = [s for s in self.systems if s.accuracies]
        return sorted(measured, key=lambda s: (s in self.rungs, s.accuracy), reverse=True)

    @property
    def best(self) -> System | None:
        """The rung with the highest measured accuracy, a baseline if no rung was run."""
        return next(iter(self._best_first), None)

    @property
    def pictured(self) -> Run | None:
        """The run of the confusion matrix: the best system's first run with predictions."""
        return next((run for s in self._best_first for run in s.runs if run.n_test), None)

    @cached_property
    def mistakes(self) -> bytes | None:
        """The pictured run's sheet of misclassified images as PNG, None if there is none."""
        if not self.pictured or self.run_set.recorded:  # a record holds no images
            return None
        return runs.mistakes(self.uri, self.pictured)


def confusion(run: Run) -> pd.DataFrame:
    """Counts test images by true (rows) and predicted (columns) class."""
    counts = np.zeros((len(run.classes),) * 2, int)
    np.add.at(counts, (run.predictions["label"], run.predictions["predicted"]), 1)
    return pd.DataFrame(counts, list(run.classes), list(run.classes))


def load(
    uri: str | None = None,
    study: Study | None = None,
    *,
    recorded: bool = False,
    compare: Iterable[str] = (),
    **chosen: Any,
) -> Content:
    """Reads runs out of a store or the study's records, and computes a report's content.

    Args:
        uri: MLflow tracking URI, by default the project's own.
        study: the study of the runs, by default the one that comes with the project.
        recorded: whether the report is about the records, which are read without a store.
        compare: names of sets to compare with, out of the store or the records.
        **chosen: ``dataset``, ``profile``, ``modified``, as of :func:`.selection.select`.

    Raises:
        UserError: the store or a record cannot be read, or no runs match.
    """
    uri, study = full(uri), study or Study.open()
    of_record: dict[str, Run] = {}
    frames = [runs.search(uri, study)] if compare or not recorded else []
    if compare or recorded:
        of_record, frame = _recorded(load_all(study.results).values())
        frames.append(frame)
    if recorded and not of_record:
        raise nothing_run(study, f"there is no record in {study.results}", uri)
    chosen |= {"recorded": recorded, "compare": compare, "uri": uri}
    shown = selection.select(pd.concat(frames, ignore_index=True), study, **chosen)

    def content(each: Selection) -> Content:
        if each.run_set.recorded:
            measured = [of_record[run_id] for run_id in each.finished["run_id"]]
        else:
            measured = runs.load(uri, each.finished)
        return _content(uri, study, each, measured)

    first, *others = map(content, (shown, *shown.compared))
    return replace(first, compared=tuple(others))


def of_records(study: Study, found: Iterable[Record], **chosen: Any) -> Content:
    """Computes a report's content from one or more records, without a store."""
    of_record, frame = _recorded(found)
    shown = selection.select(frame, study, **chosen)
    return _content("", study, shown, [of_record[run_id] for run_id in shown.finished["run_id"]])


def _recorded(found: Iterable[Record]) -> tuple[dict[str, Run], pd.DataFrame]:
    """The runs of records by id, and their rows for :func:`report.analysis.selection.select`."""
    made = {record.run_id: runs.of_record(record) for record in found}
    rows = [runs.row(run.id, "FINISHED", run.begun, run.tags) for run in made.values()]
    return made, pd.DataFrame(rows)


def _content(uri: str, study: Study, chosen: Selection, measured: list[Run]) -> Content:
    statements = claims.load_statements(study)
    waiting = _waiting(chosen)
    known = {name: study.experiment(name, chosen.run_set.profile) for name in study.files}
    measured = _renamed(measured, known)
    whole = tuple(run for run in measured if "~" not in run.rung)
    published = statements.published
    ran = (run.rung for run in whole)
    names = list(dict.fromkeys([*statements.ladder, *published, *ran, *waiting]))
    numbers = {rung_number(name) for name in statements.ladder}
    ladder = [  # a user's own rung with a number of the study's is no step of the ladder
        name
        for name in rungs(names)
        if name in statements.ladder or rung_number(name) not in numbers
    ]
    systems = _systems(statements, chosen, known, whole, waiting, ladder, names)
    # the deviation needs all rows, and each row's verdict the deviation: hence two passes
    shared, lacking = _shared(systems)
    # the files do not describe modified runs
    known = {} if chosen.run_set.modified else known
    systems = {name: replace(s, shared=shared) for name, s in systems.items()}
    varied = attribution.varied(systems.values(), known, measured)
    assumed = {row.system.name: row.doubt for row in varied}
    systems = {name: replace(s, assumed=assumed.get(name, "")) for name, s in systems.items()}
    steps = tuple(compare(systems[a], systems[b]) for a, b in pairwise(ladder))
    rivals = [n for n in published or systems if rung_number(n) is None]
    return Content(
        uri=uri,
        study=study,
        selection=chosen,
        statements=statements,
        systems=tuple(systems.values()),
        steps=steps,
        rivals=tuple(
            compare(systems[n], systems[x]) for n in rivals for x in statements.ladder[-1:]
        ),
        claims=tuple(claims.judge(c, systems, statements.ladder) for c in statements.claims),
        notes=(*chosen.notes, *_outdated(chosen, known), *_gaps(measured), *lacking),
        derived_runs=tuple(run for run in measured if "~" in run.rung),
        ablations=tuple(attribution.ablations(steps, known, measured, statements.credited)),
        varied=tuple(varied),
    )


def _renamed(measured: list[Run], known: Mapping[str, Experiment]) -> list[Run]:
    """The runs; those of a renamed file have its new name."""
    ran = {run.rung for run in measured}
    new = {plan.hash(): plan for name, plan in known.items() if name not in ran}
    found = []
    for run in measured:
        gone = run.rung not in known and "~" not in run.rung
        plan = new.get(run.tags.get("config_hash", "")) if gone else None
        found.append(replace(run, rung=plan.name, title=plan.title) if plan else run)
    return found


def _systems(
    statements: Statements,
    chosen: Selection,
    known: Mapping[str, Experiment],
    whole: Sequence[Run],
    waiting: Mapping[str, str],
    ladder: list[str],
    names: list[str],
) -> dict[str, System]:
    """Every row by name, the ladder first; without the shared deviation."""
    systems: dict[str, System] = {}
    before: dict[str, Any] | None = None
    for name in [*ladder, *(n for n in names if n not in ladder)]:
        own, plan = [run for run in whole if run.rung == name], known.get(name)
        # the files do not describe modified runs
        files = plan.flat() if plan and not chosen.run_set.modified else {}
        params = own[0].params if own else files
        is_step = before and params and name in ladder
        systems[name] = System(
            name=name,
            title=own[0].title if own else plan.title if plan else name,
            published=statements.published.get(name, math.nan),
            tolerance=statements.tolerance,
            params=params,
            runs=tuple(own),
            waiting=waiting.get(name, "not run"),
            changes=differences(before, params) if before and is_step else (),
            comparable=not chosen.run_set.reservation,
        )
        before = params
    return systems


def _shared(systems: Mapping[str, System]) -> tuple[Shared, list[str]]:
    """The deviation of all systems; none, and the reasons, if a run's evidence is incomplete.

    Without an incomplete run, which may be the one that varies most, every row would look firmer.
    """
    why = "nothing is decided about accuracies and gains, which share one deviation between seeds"
    lacking = [
        f"{run.rung}, seed {run.seed} (run {run.id[:8]}): {run.lacks}. So {why}. A run that is "
        "deleted in MLflow no longer counts."
        for system in systems.values()
        for run in system.runs
        if run.lacks
    ]
    if lacking:
        return Shared(), lacking
    return Shared.of({name: s.sample for name, s in systems.items() if s.runs}), []


def _waiting(chosen: Selection) -> dict[str, str]:
    """The state of the newest attempt of each rung without a finished run."""
    attempts = chosen.unfinished.drop_duplicates("rung")
    attempts = attempts[~attempts["rung"].isin(chosen.finished["rung"])]
    return {
        row.rung: "still going" if row.status == "RUNNING" else row.status.lower()
        for row in attempts.itertuples(index=False)
        if "~" not in row.rung
    }


def _outdated(chosen: Selection, known: dict[str, Experiment]) -> list[str]:
    why = "was run in a configuration that its experiment file no longer describes"
    return [
        f"{row.rung}: {why} ({row.config_hash[:12]})"
        for row in chosen.finished.drop_duplicates("rung").itertuples()
        if row.rung in known and known[row.rung].hash() != row.config_hash
    ]


def _gaps(measured: list[Run]) -> list[str]:
    return [
        f"{r.rung}, seed {r.seed} (run {r.id[:8]}): {gap}"
        for r in measured
        for gap in (*r.gaps, *["diverged: its loss is not finite any more"] * bool(r.diverged))
    ]
