"""Computes the content of a report from selected runs."""

import math
from collections.abc import Iterable, Mapping
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
    """Everything that one report shows.

    ``rivals`` compares each baseline with the last rung. ``derived_runs`` has the runs of
    ``ladder ablate``. ``ablations`` and ``varied`` are computed from these runs. Both are empty if
    the report shows runs with modified settings.
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
        """Compares each system with its namesake in ``other``, if either of the two has runs."""
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
        """The device time of the runs shown, in seconds; epochs shared by runs are counted once."""
        return float(np.nansum([run.device_seconds for run in self.runs]))

    @property
    def deviation(self) -> str:
        """The shared deviation and its degrees of freedom; the unit is a row's ``Sample.scale``."""
        shared = next((s.shared for s in self.systems), Shared())
        if math.isnan(shared.factor):
            return "not known"
        own = f"; rows left out: {', '.join(map(short, sorted(shared.own)))}" if shared.own else ""
        known = f"estimated from {shared.freedom} seeds, not counting the first of each row"
        return f"{math.sqrt(shared.factor):.2f}, {known}{own}"

    @property
    def interim(self) -> bool:
        published = [s for s in self.systems if s.name in self.statements.published]
        return any(len(s.runs) < self.statements.seeds for s in published)

    @property
    def verdicts(self) -> list[Verdict]:
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
        """The rung with the highest measured accuracy; the best baseline if no rung was run."""
        return next(iter(self._best_first), None)

    @property
    def pictured(self) -> Run | None:
        """The run whose confusion matrix is shown, from the best system with predictions."""
        return next((run for s in self._best_first for run in s.runs if run.n_test), None)

    @cached_property
    def mistakes(self) -> bytes | None:
        """A PNG of images that the ``pictured`` run misclassified; None if there is no PNG."""
        if not self.pictured or self.run_set.recorded:  # records hold no images
            return None
        return runs.mistakes(self.uri, self.pictured)


def confusion(run: Run) -> pd.DataFrame:
    """Counts test images by true class (rows) and predicted class (columns)."""
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
    """Reads runs from a store or from the study's records, and computes a report's content.

    Args:
        uri: MLflow tracking URI; by default the project's own.
        study: study that the runs belong to; by default the one that comes with the project.
        recorded: whether to report on the records instead of the store's runs.
        compare: names of other sets of runs, from the store or the records, for comparison.
        **chosen: ``dataset``, ``profile`` and ``modified`` for :func:`.selection.select`.

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
    first, *others = (_content(uri, study, each, of_record) for each in (shown, *shown.compared))
    return replace(first, compared=tuple(others))


def of_records(study: Study, found: Iterable[Record], **chosen: Any) -> Content:
    """Computes a report's content from one or more records, without a store."""
    of_record, frame = _recorded(found)
    return _content("", study, selection.select(frame, study, **chosen), of_record)


def _recorded(found: Iterable[Record]) -> tuple[dict[str, Run], pd.DataFrame]:
    """Maps run ids to the records' runs; also returns a frame for :func:`.selection.select`."""
    made = {record.run_id: runs.of_record(record) for record in found}
    rows = [runs.row(run.id, "FINISHED", run.begun, run.tags) for run in made.values()]
    return made, pd.DataFrame(rows)


def _content(uri: str, study: Study, chosen: Selection, of_record: Mapping[str, Run]) -> Content:
    statements = claims.load_statements(study)
    known = {name: study.experiment(name, chosen.run_set.profile) for name in study.files}
    if chosen.run_set.recorded:
        measured = [of_record[run_id] for run_id in chosen.finished["run_id"]]
    else:
        measured = runs.load(uri, chosen.finished)
    measured = _renamed(measured, known)
    whole = [run for run in measured if "~" not in run.rung]
    systems, ladder = _systems(statements, chosen, known, whole)
    # The shared deviation needs all systems. It is added here, before the verdicts, which need it.
    shared, lacking = _shared(systems)
    known = {} if chosen.run_set.modified else known
    systems = {name: replace(s, shared=shared) for name, s in systems.items()}
    varied = attribution.varied(systems.values(), known, measured)
    assumed = {row.system.name: row.doubt for row in varied}
    systems = {name: replace(s, assumed=assumed.get(name, "")) for name, s in systems.items()}
    steps = tuple(compare(systems[a], systems[b]) for a, b in pairwise(ladder))
    rivals = [n for n in statements.published or systems if rung_number(n) is None]
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
    ran = {run.rung for run in measured}
    new = {plan.hash(): plan for name, plan in known.items() if name not in ran}
    found = []
    for run in measured:
        gone = run.rung not in known and "~" not in run.rung
        plan = new.get(run.tags.get("config_hash", "")) if gone else None
        found.append(replace(run, rung=plan.name, title=plan.title) if plan else run)
    return found


def _systems(
    statements: Statements, chosen: Selection, known: Mapping[str, Experiment], whole: list[Run]
) -> tuple[dict[str, System], list[str]]:
    """Returns the rows by name, and the ladder's rung names. The shared deviation is not set yet.

    The ladder's rows come first. A user's rung with a published rung's number is not on the ladder.
    """
    waiting = _waiting(chosen)
    ran = (run.rung for run in whole)
    names = list(dict.fromkeys([*statements.ladder, *statements.published, *ran, *waiting]))
    taken = {rung_number(name) for name in statements.ladder}
    own = [name for name in rungs(names) if rung_number(name) not in taken]
    ladder = rungs([*statements.ladder, *own])
    systems: dict[str, System] = {}
    before: dict[str, Any] = {}
    for name in dict.fromkeys([*ladder, *names]):
        runs, plan = tuple(run for run in whole if run.rung == name), known.get(name)
        # modified runs do not have the settings of the experiment files
        files = plan.flat() if plan and not chosen.run_set.modified else {}
        params = runs[0].params if runs else files
        is_step = before and params and name in ladder
        systems[name] = System(
            name=name,
            title=runs[0].title if runs else plan.title if plan else name,
            published=statements.published.get(name, math.nan),
            tolerance=statements.tolerance,
            params=params,
            runs=runs,
            waiting=waiting.get(name, "not run"),
            changes=differences(before, params) if is_step else (),
            comparable=not chosen.run_set.reservation,
        )
        before = params
    return systems, ladder


def _shared(systems: Mapping[str, System]) -> tuple[Shared, list[str]]:
    """Returns the deviation that all systems share, and a note on each run that lacks data.

    If any run lacks data, the deviation stays unknown, so that no result looks too certain.
    """
    why = "All rows share one deviation between seeds. It cannot be estimated with this run"
    lacking = [
        f"{run.rung}, seed {run.seed} (run {run.id[:8]}): {run.lacks}. {why}, so no "
        "accuracy or gain is decided. Delete the run in MLflow to leave it out."
        for system in systems.values()
        for run in system.runs
        if run.lacks
    ]
    if lacking:
        return Shared(), lacking
    return Shared.of({name: s.sample for name, s in systems.items() if s.runs}), []


def _waiting(chosen: Selection) -> dict[str, str]:
    """Maps each rung without a finished run to the state of its newest run."""
    attempts = chosen.unfinished.drop_duplicates("rung")
    attempts = attempts[~attempts["rung"].isin(chosen.finished["rung"])]
    return {
        row.rung: "still running" if row.status == "RUNNING" else row.status.lower()
        for row in attempts.itertuples(index=False)
        if "~" not in row.rung
    }


def _outdated(chosen: Selection, known: dict[str, Experiment]) -> list[str]:
    return [
        f"{row.rung}: the experiment file has changed since the report's runs were trained; "
        f"the runs' configuration hash is {row.config_hash[:12]}"
        for row in chosen.finished.drop_duplicates("rung").itertuples()
        if row.rung in known and known[row.rung].hash() != row.config_hash
    ]


def _gaps(measured: list[Run]) -> list[str]:
    return [
        f"{r.rung}, seed {r.seed} (run {r.id[:8]}): {gap}"
        for r in measured
        for gap in (*r.gaps, *["it diverged; its loss is not finite any more"] * bool(r.diverged))
    ]
