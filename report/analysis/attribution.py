"""Computes the gain of each change in a step, and the effect of other values of assumed settings.

Both need runs of the experiments that ``resnet.study.ablation`` derives from a study's files.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from report.analysis import statistics
from report.analysis.runs import Run
from report.analysis.statistics import Interval
from report.analysis.systems import Step, System, compare
from resnet.study import Experiment, ablation

Subset = frozenset[str]


def shapley(worth: dict[Subset, float]) -> dict[str, float]:
    """Averages each factor's gain over all orders in which the factors can be added.

    ``worth`` maps each subset of factors to a value. The averages sum to the factors' joint gain.
    """
    factors = [factor for subset in worth if len(subset) == 1 for factor in subset]
    n = len(factors)
    return {
        factor: sum(
            (worth[subset | {factor}] - value) / (n * math.comb(n - 1, len(subset)))
            for subset, value in worth.items()
            if factor not in subset
        )
        for factor in factors
    }


class Factor(NamedTuple):
    """The gain of one factor (one of a step's changes); ``shapley`` has one value per seed.

    ``leave_one_out`` compares the step's later rung without and with the factor. ``add_one_in``
    compares the step's earlier rung without and with the factor.
    """

    key: str
    credited: bool
    shapley: list[float]
    leave_one_out: Step
    add_one_in: Step

    @property
    def value(self) -> float:
        return float(np.mean(self.shapley))

    @property
    def interval(self) -> Interval:
        # rounded, because equal gains may differ in their last digits
        return statistics.student([round(value, 12) for value in self.shapley])


@dataclass(frozen=True, eq=False)
class Ablation:
    """A step, with the runs of every subset of its changes.

    ``systems`` maps subsets to systems, in order from the empty subset to the full one. ``seeds``
    lists the seeds common to all subsets. ``missing`` maps experiments' names to missing seeds.
    """

    step: Step
    systems: dict[Subset, System]
    seeds: list[int]
    missing: dict[str, list[int]]
    credited: list[str]

    @property
    def whole(self) -> Step:
        none, *_, everything = self.systems.values()
        return compare(none, everything)

    @cached_property
    def factors(self) -> list[Factor]:
        """The factors, in the order of the settings' schema; empty if ``seeds`` is empty."""
        by_seed = [
            shapley({s: system.accuracies[i] for s, system in self.systems.items()})
            for i in range(len(self.seeds))
        ]
        none, *_, everything = self.systems
        return [
            Factor(
                key,
                key in self.credited,
                [values[key] for values in by_seed],
                compare(self.systems[everything - {key}], self.systems[everything]),
                compare(self.systems[none], self.systems[frozenset({key})]),
            )
            for key in (by_seed[0] if by_seed else ())
        ]


def ablations(
    steps: Sequence[Step],
    known: Mapping[str, Experiment],
    runs: Sequence[Run],
    credited: Mapping[str, list[str]],
) -> list[Ablation]:
    """Returns the ablation of each step that has runs with only some of its changes.

    ``known`` maps names to the experiments in the study's files. ``credited`` maps a rung to the
    factors that the study names when it states the rung's gain.
    """
    begun = {run.rung.partition("~")[0] for run in runs if "~" in run.rung and "=" not in run.rung}
    found = []
    for step in steps:
        before, after = (known.get(system.name) for system in (step.before, step.after))
        if not (before and after and after.name in begun):
            continue
        made = {s: (e, _runs(runs, e)) for s, e in ablation.subsets(before, after).items()}
        between = [by_seed for _, by_seed in made.values()][1:-1]
        seeds = sorted({seed for by_seed in between for seed in by_seed})
        if not seeds:  # the runs belong to an earlier version of the rung's file
            continue
        complete = [s for s in seeds if all(s in by_seed for _, by_seed in made.values())]
        systems = {
            subset: _system(step.after, e, [by_seed[seed] for seed in complete])
            for subset, (e, by_seed) in made.items()
        }
        missing = {e.name: [s for s in seeds if s not in by_seed] for e, by_seed in made.values()}
        missing = {name: lacking for name, lacking in missing.items() if lacking}
        found.append(Ablation(step, systems, complete, missing, credited.get(after.name, [])))
    return found


class Alternative(NamedTuple):
    """Another value for an assumed setting; ``step`` compares it with the assumed value."""

    key: str
    reason: str
    step: Step


class Varied(NamedTuple):
    """A row and all alternatives to its assumed values, including alternatives without runs."""

    system: System
    alternatives: list[Alternative]

    @property
    def run(self) -> list[Alternative]:
        return [a for a in self.alternatives if a.step.after.runs]

    @property
    def doubt(self) -> str:
        """A clause naming assumed settings that may explain the row's failure; "" if none can."""

        def named(some: Iterable[Alternative]) -> str:
            return " or ".join(dict.fromkeys(_setting(a.key) for a in some))

        if holding := [a for a in self.run if a.step.after.verdict == "holds"]:
            return f"another value of {named(holding)} reproduces the published accuracy"
        if untried := [a for a in self.alternatives if not a.step.after.runs]:
            return (
                f"the study states no value for {named(untried)}, and other values may give the "
                "published accuracy"
            )
        if undecided := [a for a in self.run if a.step.after.verdict != "fails"]:
            return f"with another value of {named(undecided)}, the row is undecided"
        return ""


def _setting(key: str) -> str:
    """Writes ``training.early_stopping.min_delta`` as ``min_delta (early stopping)``."""
    block, _, name = key.partition(".")[2].rpartition(".")
    block = block.replace("_", " ")
    return f"{name} ({block})" if block and "_" in name else f"{block} {name}".strip()


def plain(factor: str) -> str:
    """Writes ``training.reduce_lr_on_plateau`` as ``reduce lr on plateau``."""
    return re.sub(r"\w+\.", "", factor).replace("_", " ")


def varied(
    systems: Iterable[System], known: Mapping[str, Experiment], runs: Sequence[Run]
) -> list[Varied]:
    """Returns each row that has alternatives; ``known`` maps names to the study's experiments."""
    found = []
    for system in systems:
        if (plan := known.get(system.name)) and plan.alternatives:
            row = _system(system, plan, _runs(runs, plan).values())
            alternatives = [
                Alternative(*why, compare(row, _system(system, e, _runs(runs, e).values())))
                for why, e in ablation.alternatives(plan).items()
            ]
            found.append(Varied(row, alternatives))
    return found


def _runs(runs: Sequence[Run], experiment: Experiment) -> dict[int, Run]:
    """Maps each seed to a run of the experiment, preferably one not made by ``ladder ablate``."""
    config_hash = experiment.hash()
    return {
        run.seed: run
        for run in sorted(runs, key=lambda run: "~" not in run.rung)
        if run.tags.get("config_hash") == config_hash
        if not math.isnan(run.metric("test_accuracy"))
    }


def _system(like: System, e: Experiment, runs: Iterable[Run]) -> System:
    return replace(like, name=e.name, title=e.title, params=e.flat(), runs=tuple(runs))
