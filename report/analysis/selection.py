"""Chooses a report's runs, which all have the same dataset, profile and modified settings.

A set of runs (:class:`RunSet`) has either recorded runs or the store's own runs, never both.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from resnet import UserError
from resnet.host.messages import count
from resnet.store import nothing_run
from resnet.study import GROUP, Study


@dataclass(frozen=True, eq=False)
class RunSet:
    """Runs that a table may show together; ``runs`` has rows made by :func:`.runs.row`."""

    study: Study
    dataset: str
    fingerprint: str
    profile: str
    modified: str
    recorded: bool
    runs: pd.DataFrame

    @property
    def rungs(self) -> int:
        """The number of rungs with a finished run; ``ladder ablate``'s experiments do not count."""
        names = self.runs.loc[self.runs["status"] == "FINISHED", "rung"].unique()
        return sum("~" not in name for name in names)

    @property
    def label(self) -> str:
        """The set's name: ``cifar10 (9acbe397eb29), full profile, recorded runs``."""
        known = f" ({self.fingerprint[:12]})" * bool(self.fingerprint)
        modified = f", modified: {self.modified}" * bool(self.modified)
        recorded = ", recorded runs" * self.recorded
        return f"{self.dataset}{known}, {self.profile} profile{modified}{recorded}"

    def matches(self, text: str) -> bool:
        """Whether ``text`` is the dataset, profile, settings, role, label or fingerprint prefix."""
        role = "recorded" if self.recorded else "own"
        known = bool(text) and self.fingerprint.startswith(text.lower())
        return known or text in (self.label, self.dataset, self.profile, self.modified, role)

    @property
    def reservation(self) -> str:
        """Why the runs are not comparable with the study; "" if they are comparable."""
        other = f"on another dataset ({self.dataset}, not {self.study.dataset_title})"
        reasons = [
            other * (self.dataset != self.study.dataset),
            f"in the {self.profile} profile" * (self.profile != "full"),
            f"with modified settings ({self.modified})" * bool(self.modified),
        ]
        return " and ".join(filter(None, reasons))


@dataclass(frozen=True, eq=False)
class Selection:
    """A set's newest finished run of each rung and seed; ``notes`` says what was left out."""

    run_set: RunSet
    finished: pd.DataFrame
    unfinished: pd.DataFrame
    notes: tuple[str, ...]
    others: tuple[RunSet, ...]
    compared: tuple["Selection", ...] = ()


def run_sets(frame: pd.DataFrame, study: Study) -> list[RunSet]:
    """Splits runs into sets; the first is shown by default.

    Sets are sorted by five properties, the most important first: unmodified settings, full profile,
    more finished rungs, own runs instead of records, newer runs.
    """
    found = []
    for (fingerprint, profile, modified, role), runs in frame.groupby([*GROUP, "role"], sort=False):
        recorded, dataset = role == "recorded", runs["dataset"].iloc[0]
        found.append(RunSet(study, dataset, fingerprint, profile, modified, recorded, runs))
    found.sort(key=lambda s: s.runs["start_time"].max(), reverse=True)
    found.sort(key=lambda s: (bool(s.modified), s.profile != "full", -s.rungs, s.recorded))
    return found


def select(
    frame: pd.DataFrame,
    study: Study,
    dataset: str | None = None,
    profile: str | None = None,
    modified: str | None = None,
    recorded: bool | None = None,
    compare: Iterable[str] = (),
    uri: str | None = None,
) -> Selection:
    """Chooses the set to show, and its runs.

    If a rung has several configurations, the configuration of its newest finished run is shown.

    Args:
        frame: rows from :func:`report.analysis.runs.row`.
        study: study that the runs belong to.
        dataset: name of a dataset, or the beginning of its fingerprint.
        profile: name of a profile, such as ``full`` or ``quick``.
        modified: ``--set`` overrides, separated by blanks; "" for none.
        recorded: whether to show records instead of own runs; None allows both.
        compare: names of other sets; see :meth:`RunSet.matches`. If several sets match, the one
            most similar to the set shown is compared.
        uri: address of the store, for the error message.

    Raises:
        UserError: there is no set to show, or a ``compare`` name does not identify one other set.
    """
    if frame.empty:
        raise nothing_run(study, "the experiment has no runs", uri)
    everything = run_sets(frame, study)
    wanted = [
        s
        for s in everything
        if (dataset is None or s.dataset == dataset or s.fingerprint.startswith(dataset.lower()))
        and profile in (None, s.profile)
        and modified in (None, s.modified)
        and recorded in (None, s.recorded)
    ]
    if not wanted:
        labels = "; ".join(s.label for s in everything[:10])
        raise UserError(
            "no runs match --dataset, --profile, --modified and --recorded (or --own); "
            f"these sets of runs exist: {labels}"
        )
    run_set = wanted[0]
    compared = dict.fromkeys(_compared(text, run_set, everything) for text in compare)
    first, *others = (_selection(s, everything) for s in (run_set, *compared))
    return replace(first, compared=tuple(others))


def _compared(text: str, run_set: RunSet, everything: list[RunSet]) -> RunSet:
    def differences(s: RunSet) -> int:
        keys = ("fingerprint", "profile", "modified", "recorded")
        return sum(getattr(s, key) != getattr(run_set, key) for key in keys)

    found = [s for s in everything if s.matches(text) and not run_set.matches(text)]
    nearest = [s for s in found if differences(s) == min(map(differences, found))]
    if len(nearest) != 1:
        choice = nearest or [s for s in everything if s is not run_set]
        raise UserError(
            f"--compare {text!r} names {'several sets' if nearest else 'no other set'} of runs; "
            f"candidates: {'; '.join(s.label for s in choice[:10]) or 'none'}"
        )
    return nearest[0]


def _selection(run_set: RunSet, everything: list[RunSet]) -> Selection:
    others = tuple(s for s in everything if s is not run_set and s.recorded == run_set.recorded)
    runs = run_set.runs.sort_values("start_time", ascending=False, kind="stable")
    finished = runs["status"] == "FINISHED"
    done = runs[finished]
    chosen_hash = done.drop_duplicates("rung").set_index("rung")["config_hash"]
    same = done["config_hash"] == done["rung"].map(chosen_hash)
    newest = done[same].drop_duplicates(["rung", "seed"]).sort_values(["rung", "seed"])
    notes = tuple(
        f"{rung}: the report shows configuration {chosen_hash[rung][:12]} and leaves out "
        f"{count(len(older), 'older run')} whose seed was run again or whose configuration differs"
        for rung, older in done[~done["run_id"].isin(newest["run_id"])].groupby("rung")
    )
    return Selection(run_set, newest, runs[~finished], notes, others)
