"""Which runs stand in one report: one dataset, one profile, one set of modifications.

Recorded runs, which came with the project, and runs of one's own are kept apart as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from resnet import UserError
from resnet.store import nothing_run
from resnet.study import GROUP, Study

STATES = {"RUNNING": "still going", "SCHEDULED": "still going"}


@dataclass(frozen=True, eq=False)
class RunSet:
    """Runs that may stand in one table; ``runs`` is a frame of ``report.analysis.runs.search``."""

    study: Study
    dataset: str
    fingerprint: str
    profile: str
    modified: str
    recorded: bool
    runs: pd.DataFrame

    @property
    def rungs(self) -> int:
        """How many different rungs have a finished run; parts of their steps do not count."""
        names = self.runs.loc[self.runs["status"] == "FINISHED", "rung"].unique()
        return sum("~" not in name for name in names)

    @property
    def label(self) -> str:
        """``cifar10 (9acbe397eb29), full profile, recorded runs``."""
        known = f" ({self.fingerprint[:12]})" * bool(self.fingerprint)
        label = f"{self.dataset}{known}, {self.profile} profile"
        label = f"{label}, modified: {self.modified}" if self.modified else label
        return f"{label}, recorded runs" if self.recorded else label

    def named(self, text: str) -> bool:
        """Says whether a text is the label, or one of the things in which sets differ."""
        role = "recorded" if self.recorded else "own"
        known = bool(text) and self.fingerprint.startswith(text.lower())
        return known or text in (self.label, self.dataset, self.profile, self.modified, role)

    @property
    def reservation(self) -> str:
        """Why the published figures are no like-for-like comparison; empty if they are."""
        reasons = []
        if self.dataset != self.study.dataset:
            reasons.append(f"on another dataset ({self.dataset}, not {self.study.dataset_title})")
        if self.profile != "full":
            reasons.append(f"in the {self.profile} profile")
        if self.modified:
            reasons.append(f"with modified settings ({self.modified})")
        return " and ".join(reasons)


@dataclass(frozen=True, eq=False)
class Selection:
    """The set shown: its newest finished run a (rung, seed), and what was left out and why.

    ``doubtful`` are rungs of which a finished run may be missing here, because it lacks a tag
    that says where it belongs; an empty name stands for any rung. ``compared`` are selections of
    other sets, which were asked for by name.
    """

    run_set: RunSet
    finished: pd.DataFrame
    unfinished: pd.DataFrame
    notes: tuple[str, ...]
    others: tuple[RunSet, ...]
    doubtful: frozenset[str] = frozenset()
    compared: tuple["Selection", ...] = ()


def run_sets(frame: pd.DataFrame, study: Study) -> list[RunSet]:
    """Splits runs into sets, the one to show by default first.

    Unmodified before modified, the full profile before others, then by the number of rungs
    finished, own before recorded ones, then the newest.
    """
    found = []
    for (fingerprint, profile, modified, role), runs in frame.groupby([*GROUP, "role"], sort=False):
        of = runs["dataset"].iloc[0], fingerprint, profile, modified
        found.append(RunSet(study, *of, role == "recorded", runs))
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

    Args:
        frame: from :func:`report.analysis.runs.search`.
        study: whose runs they are.
        dataset: a dataset's name or the beginning of its fingerprint.
        profile: ``full``, ``quick``, ...
        modified: the ``--set`` overrides, separated by blanks; "" for none.
        recorded: restored records, or this store's own runs.
        compare: names other sets to set beside: an override text, a profile, a dataset as above,
            ``recorded``, ``own`` or a whole label; of several sets the one most like the one shown.
        uri: of the store, to be named where it has no runs.

    Returns:
        The selection. Where a rung was run in several configurations under one name, the one of
        its newest finished run counts, and a note says so.

    Raises:
        UserError: there is no such set, or ``compare`` does not name one alone; the line names
            those there are.
    """
    if frame.empty or frame["lacks"].all():
        raise nothing_run(study, "the experiment has no runs", uri)
    # a run that lost a tag is not left out silently: the runs that are left would look firmer
    stray = frame[(frame["lacks"] != "") & (frame["status"] == "FINISHED")]
    everything = run_sets(frame[frame["lacks"] == ""], study)
    wanted = [
        s
        for s in everything
        if (dataset is None or s.dataset == dataset or s.fingerprint.startswith(dataset.lower()))
        and profile in (None, s.profile)
        and modified in (None, s.modified)
        and recorded in (None, s.recorded)
    ]
    if not wanted:
        there = "; ".join(s.label for s in everything[:10])
        raise UserError(
            "no runs match --dataset, --profile, --modified and --recorded or --own; "
            f"there are: {there}"
        )
    run_set = wanted[0]
    beside = dict.fromkeys(_beside(text, run_set, everything) for text in compare)
    first, *others = (_selection(s, everything, stray) for s in (run_set, *beside))
    return replace(first, compared=tuple(others))


def _beside(text: str, run_set: RunSet, everything: list[RunSet]) -> RunSet:
    def unlike(s: RunSet) -> int:
        keys = ("fingerprint", "profile", "modified", "recorded")
        return sum(getattr(s, key) != getattr(run_set, key) for key in keys)

    found = [s for s in everything if s.named(text) and not run_set.named(text)]
    nearest = [s for s in found if unlike(s) == min(map(unlike, found))]
    if len(nearest) != 1:
        there = nearest or [s for s in everything if s is not run_set]
        raise UserError(
            f"--compare {text!r} names {'several sets' if nearest else 'no other set'} of runs; "
            f"name one of: {'; '.join(s.label for s in there[:10]) or 'none, there is no other'}"
        )
    return nearest[0]


def _selection(run_set: RunSet, everything: list[RunSet], stray: pd.DataFrame) -> Selection:
    finished, unfinished, notes = _newest(run_set.runs)
    notes += [
        f"run {row.run_id[:8]} lacks the tag {row.lacks!r}: it may belong here, so nothing is "
        f"decided about {row.rung or 'any rung'}, nor about any accuracy or gain"
        for row in stray.itertuples()
    ]
    others = tuple(s for s in everything if s is not run_set)
    return Selection(run_set, finished, unfinished, tuple(notes), others, frozenset(stray["rung"]))


def _newest(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    runs = runs.sort_values("start_time", ascending=False, kind="stable")
    done, notes = runs[runs["status"] == "FINISHED"], []
    chosen_hash = done.drop_duplicates("rung").set_index("rung")["config_hash"]
    same = done["config_hash"] == done["rung"].map(chosen_hash)
    for rung, others in done[~same].groupby("rung"):
        hashes = ", ".join(sorted({value[:12] for value in others["config_hash"]}))
        notes.append(
            f"{rung}: {len(others)} finished run(s) of another configuration ({hashes}) left out; "
            f"the newest configuration, {chosen_hash[rung][:12]}, is shown"
        )
    newest = done[same].drop_duplicates(["rung", "seed"])
    for rung, again in done[same & ~done["run_id"].isin(newest["run_id"])].groupby("rung"):
        notes.append(f"{rung}: {len(again)} older run(s) of the same seed left out")
    rest = runs[runs["status"] != "FINISHED"]
    identity = ["rung", "config_hash", "seed"]
    superseded = pd.MultiIndex.from_frame(rest[identity]).isin(
        pd.MultiIndex.from_frame(newest[identity])
    )
    return newest.sort_values(["rung", "seed"]), rest[~superseded], notes


def state(status: str) -> str:
    """MLflow's status in words: still going, failed, killed."""
    return STATES.get(status, status.lower())
