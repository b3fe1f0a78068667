"""Everything a report says, computed from the runs of one selection."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from report.analysis import attribution, claims, runs, selection
from report.analysis.attribution import Apart, Varied
from report.analysis.claims import Judgement, Statements
from report.analysis.runs import Run
from report.analysis.selection import RunSet, Selection
from report.analysis.statistics import Shared
from report.analysis.systems import Step, System, compare
from report.analysis.verdicts import Verdict
from resnet import UserError
from resnet.host.addresses import full
from resnet.host.shell import count
from resnet.records import Record
from resnet.study import KEYS, Experiment, Study, ablation, differences, rung_number, rungs, short


class Wasted(NamedTuple):
    """A run that is not finished: failed, interrupted, given up or still going."""

    rung: str
    epochs: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Content:
    """A report's content.

    ``said`` is what the study says. ``parts`` are runs of what ``resnet.study.ablation`` made of
    the ladder, ``apart`` and ``varied`` what they say by the experiment files as they are now,
    nothing where runs were modified. ``compared`` are other sets' contents, from which nothing of
    the rest is computed. ``behind`` are recorded validation accuracies by configuration,
    ``wasted`` runs that never finished.
    """

    uri: str
    study: Study
    selection: Selection
    said: Statements
    systems: tuple[System, ...]
    steps: tuple[Step, ...]
    rivals: tuple[Step, ...]
    claims: tuple[Judgement, ...]
    notes: tuple[str, ...]
    parts: tuple[Run, ...]
    apart: tuple[Apart, ...]
    varied: tuple[Varied, ...]
    compared: tuple["Content", ...] = ()
    behind: Mapping[str, list[pd.Series]] = field(default_factory=dict)
    wasted: tuple[Wasted, ...] = ()

    @property
    def run_set(self) -> RunSet:
        """Which runs these are."""
        return self.selection.run_set

    def beside(self, other: "Content") -> list[Step]:
        """Compares every system with the same one of another set, if either was run."""
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
    def deviation(self) -> str:
        """The shared factor and what it rests on, in words."""
        shared = next((s.shared for s in self.systems), Shared())
        if math.isnan(shared.factor):
            return "not known"
        own = f"; by their own {', '.join(map(short, shared.own))}" if shared.own else ""
        known = f"from {shared.freedom} seeds beyond the first of each row"
        return f"{math.sqrt(shared.factor):.2f}, {known}{own}"

    @property
    def interim(self) -> bool:
        """Whether a row of the study has fewer seeds than are planned."""
        published = [s for s in self.systems if s.name in self.said.published]
        return any(len(s.runs) < self.said.seeds for s in published)

    @property
    def verdicts(self) -> list[Verdict]:
        """On each accuracy that the study gives, the baseline's too."""
        return [s.verdict for s in self.systems if not math.isnan(s.published)]

    @property
    def rungs(self) -> list[System]:
        """The numbered systems."""
        return [s for s in self.systems if rung_number(s.name) is not None]

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
    """Counts test images (``images``) and ``accuracy`` by class; NaN for one without any."""
    counts = confusion(run)
    images = counts.sum(axis=1)
    right = pd.Series(np.diag(counts), counts.index)
    return pd.DataFrame({"images": images, "accuracy": right / images.replace(0, np.nan)})


def confusion(run: Run) -> pd.DataFrame:
    """Counts by true (rows) and predicted (columns) class."""
    counts = np.zeros((len(run.classes),) * 2, int)
    np.add.at(counts, (run.predictions["label"], run.predictions["predicted"]), 1)
    return pd.DataFrame(counts, list(run.classes), list(run.classes))


def load(uri: str | None = None, study: Study | None = None, **chosen: Any) -> Content:
    """Reads a store and computes a report's content.

    Args:
        uri: MLflow tracking URI, by default the project's own.
        study: whose runs; by default of the study that comes with the project.
        **chosen: ``dataset``, ``profile``, ``modified``, ``recorded`` and ``compare`` as
            :func:`report.analysis.selection.select` takes them.

    Returns:
        The content.

    Raises:
        UserError: the store cannot be read, or nothing in it matches.
    """
    uri, study = full(uri), study or Study.open()
    frame = runs.search(uri, study)
    one = selection.select(frame, study, uri=uri, **chosen)
    first, *others = (
        _content(uri, study, each, runs.load(uri, each.finished)) for each in (one, *one.compared)
    )
    behind = {}
    if not one.run_set.recorded:
        hashes = {run.tags.get("config_hash", "") for run in first.runs}
        behind = runs.recorded_curves(uri, frame, hashes, one.run_set.fingerprint)
    wasted = tuple(_wasted(uri, first))
    return replace(first, compared=tuple(others), behind=behind, wasted=wasted)


def _wasted(uri: str, content: Content) -> Iterator[Wasted]:
    """Runs of the set that never finished, those that a later one took the place of too."""
    run_set = content.run_set.runs
    for row in run_set[run_set["status"] != "FINISHED"].itertuples():
        epochs, seconds = runs.epochs_done(uri, row.run_id)
        if epochs:
            yield Wasted(row.rung, epochs, seconds)


def of_records(study: Study, found: Iterable[Record], **chosen: Any) -> Content:
    """Computes a report's content from records, without a store.

    Args:
        study: whose they are.
        found: at least one.
        **chosen: as of :func:`load`.
    """
    made = {run.id: run for run in map(runs.of_record, found)}
    rows = [
        {name: run.tags[name] for name in KEYS}
        | {"run_id": run.id, "role": "recorded", "seed": run.seed, "lacks": ""}
        | {"status": "FINISHED", "start_time": run.begun}
        for run in made.values()
    ]
    one = selection.select(pd.DataFrame(rows), study, **chosen)
    return _content("", study, one, [made[run_id] for run_id in one.finished["run_id"]])


def planned(study: Study) -> Content:
    """Makes a report's content before the first run: what was published and what would be run."""
    none = pd.DataFrame(columns=["rung", "config_hash"])
    none_yet = selection.RunSet(study, study.dataset, "", "full", "", False, none)
    return _content("", study, Selection(none_yet, none, none, (), ()), [])


def _content(uri: str, study: Study, chosen: Selection, measured: list[Run]) -> Content:
    said = claims.load_statements(study)
    waiting = _waiting(uri, chosen)
    known, broken = _known_experiments(study, chosen.run_set.profile)
    measured = _renamed(measured, known)
    parts = tuple(run for run in measured if "~" in run.rung)
    whole = tuple(run for run in measured if "~" not in run.rung)
    names = list(dict.fromkeys([*said.ladder, *said.published, *(r.rung for r in whole), *waiting]))
    numbers = {rung_number(name) for name in said.ladder}
    ladder = [  # a rung of one's own under a number of the study's stands beside it
        name for name in rungs(names) if name in said.ladder or rung_number(name) not in numbers
    ]
    systems = _systems(said, chosen, known, whole, waiting, ladder, names)
    # the deviation needs all rows, and each row's verdict the deviation: hence two passes
    shared, lacking = _shared(systems, chosen.doubtful)
    # what was modified is not in the files: they say nothing about the parts of these runs
    known = {} if chosen.run_set.modified else known
    systems = {name: replace(s, shared=shared) for name, s in systems.items()}
    varied = attribution.varied(systems.values(), known, measured)
    assumed = {name: "its experiment file is not known" for name in systems if name not in known}
    assumed |= {row.system.name: row.doubt for row in varied}
    systems = {name: replace(s, assumed=assumed.get(name, "")) for name, s in systems.items()}
    steps = tuple(compare(systems[a], systems[b]) for a, b in pairwise(ladder))
    rivals = [n for n in said.published or systems if rung_number(n) is None]
    judged = (claims.judge(c, systems, said.ladder, chosen.doubtful) for c in said.claims)
    return Content(
        uri=uri,
        study=study,
        selection=chosen,
        said=said,
        systems=tuple(systems.values()),
        steps=steps,
        rivals=tuple(compare(systems[n], systems[x]) for n in rivals for x in said.ladder[-1:]),
        claims=tuple(judged),
        notes=(*chosen.notes, *broken, *_outdated(chosen, known), *_gaps(measured), *lacking),
        parts=parts,
        apart=tuple(attribution.apart(steps, known, measured, said.credited)),
        varied=tuple(varied),
    )


def _renamed(measured: list[Run], known: Mapping[str, Experiment]) -> list[Run]:
    """The runs, those of a renamed file under the name that it has by now."""
    ran = {run.rung for run in measured}
    new = {plan.hash(): plan for name, plan in known.items() if name not in ran}

    def renamed(run: Run) -> Run:
        gone = run.rung not in known and "~" not in run.rung
        plan = new.get(run.tags.get("config_hash", "")) if gone else None
        return replace(run, rung=plan.name, title=plan.title) if plan else run

    return [renamed(run) for run in measured]


def _systems(
    said: Statements,
    chosen: Selection,
    known: Mapping[str, Experiment],
    whole: Sequence[Run],
    waiting: Mapping[str, str],
    ladder: list[str],
    names: list[str],
) -> dict[str, System]:
    """Every row by name, the ladder first; without the deviation that they will share."""
    systems: dict[str, System] = {}
    before: dict[str, Any] | None = None
    for name in [*ladder, *(n for n in names if n not in ladder)]:
        own, plan = [run for run in whole if run.rung == name], known.get(name)
        # what was modified is not in the files: they say nothing about the rungs not run
        files = plan.flat() if plan and not chosen.run_set.modified else {}
        params = own[0].params if own else files
        steps = before and params and name in ladder
        systems[name] = System(
            name=name,
            title=own[0].title if own else plan.title if plan else name,
            published=said.published.get(name, math.nan),
            tolerance=said.tolerance,
            params=params,
            runs=tuple(own),
            waiting=waiting.get(name, "not run"),
            changes=differences(before, params) if before and steps else (),
            comparable=not chosen.run_set.reservation,
        )
        before = params
    return systems


def _shared(systems: Mapping[str, System], doubtful: Collection[str]) -> tuple[Shared, list[str]]:
    """The deviation of all systems; none, and why, if evidence on any of them is incomplete.

    Left out, a run that jumps about would make every other row look firmer.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for run in (run for system in systems.values() for run in system.runs if run.lacks):
        found.setdefault((run.rung, run.lacks), []).append(f"{run.seed} (run {run.id[:8]})")
    why = "nothing is decided about accuracies and gains, which share one deviation between seeds"
    lacking = [
        f"{rung}, seed {', '.join(seeds)}: {lacks}. So {why}. A run that is deleted in MLflow no "
        "longer counts."
        for (rung, lacks), seeds in found.items()
    ]
    if lacking or doubtful:
        return Shared(), lacking
    return Shared.of({name: s.sample for name, s in systems.items() if s.runs}), []


def _known_experiments(study: Study, profile: str) -> tuple[dict[str, Experiment], list[str]]:
    """The experiment files as they are now, in the profile shown; and what is wrong with some."""
    known, broken = {}, []
    there = (study.folder / "profiles" / f"{profile}.yaml").is_file()
    for name in study.files:
        try:
            plan = study.experiment(name, profile if there else "full")
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
            epochs, _ = runs.epochs_done(uri, row.run_id)
            result[row.rung] = f"{selection.state(row.status)}, {count(epochs, 'epoch')} done"
    return result


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
