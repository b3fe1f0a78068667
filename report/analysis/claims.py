"""Reads a study's statements from ``claims.yaml`` and judges its claims by measurements."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated

import numpy as np
from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, model_validator

from report.analysis import statistics
from report.analysis.quantities import QUANTITIES, Unit
from report.analysis.runs import Run
from report.analysis.statistics import ALPHA, NO_INTERVAL, Contrast, Interval
from report.analysis.systems import System
from report.analysis.verdicts import ASSUMED, Bound, Verdict, qualified
from resnet.host.messages import count
from resnet.study import Name, Strict, Study, Text, explain, read_yaml, rungs


class Claim(Strict):
    """One statement of the study; ``against`` names the system that ``rung`` is compared with.

    A vote has ``voters`` networks. ``where`` names the claim's section in the study.
    """

    id: Annotated[str, Field(pattern=r"^[\w-]+$")]
    rung: Text
    against: str | None = None
    text: Text
    quantity: Text
    bound: Bound
    voters: Annotated[int, Field(ge=2, le=100)] | None = None
    where: Text | None = None

    @model_validator(mode="after")
    def _quantity_is_known(self) -> "Claim":
        if self.quantity not in QUANTITIES:
            allowed = ", ".join(QUANTITIES)
            raise ValueError(f"there is no quantity {self.quantity!r}; use one of: {allowed}")
        for name, value in {"against": self.against, "voters": self.voters}.items():
            if (name == QUANTITIES[self.quantity].needs) != (value is not None):
                verb = "needs" if value is None else "takes no"
                raise ValueError(f"the quantity {self.quantity} {verb} {name!r}")
        return self


class Contradiction(Strict):
    """A point on which the study is silent or contradicts itself, and this project's choice."""

    topic: Text
    study: Text
    settled: Text
    where: Text | None = None


class Statements(Strict):
    """The contents of claims.yaml. Measured accuracies may be ``tolerance`` off published ones."""

    published: dict[Name, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.01
    seeds: Annotated[int, Field(ge=1)] = 1
    credited: dict[str, list[str]] = Field(default_factory=dict)
    claims: list[Claim] = Field(default_factory=list)
    contradictions: list[Contradiction] = Field(default_factory=list)
    _ladder: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _names_agree(self, info: ValidationInfo) -> "Statements":
        known = {*(info.context or ())}
        # published rungs only, because a user's own rung is not a step of the study's ladder
        self._ladder = rungs(self.published) or rungs(known)
        if self.published and "tolerance" not in self.model_fields_set:
            raise ValueError(
                "tolerance: is missing. It says how far a reproduced accuracy may be from the "
                "published one; 0.01 is one point."
            )
        if strange := [name for name in self.published if name not in known]:
            raise ValueError(f"published: there is no experiment {strange[0]!r}")
        for claim in self.claims:
            for name in (claim.rung, claim.against):
                if name is not None and name not in known:
                    raise ValueError(f"claim {claim.id}: there is no experiment {name!r}")
            if QUANTITIES[claim.quantity].whole_ladder:
                if claim.rung not in self.ladder[1:]:
                    raise ValueError(
                        f"claim {claim.id}: no step of the ladder leads to {claim.rung!r}"
                    )
                if len(self.ladder) < 3:
                    raise ValueError(f"claim {claim.id}: comparing two steps needs three rungs")
        ids = [claim.id for claim in self.claims]
        if repeated := [name for name in ids if ids.count(name) > 1]:
            raise ValueError(f"several claims have the id {repeated[0]!r}; rename all but one")
        if strange := [rung for rung in self.credited if rung not in self.ladder[1:]]:
            raise ValueError(f"credited: no step of the ladder leads to {strange[0]!r}")
        return self

    @property
    def ladder(self) -> list[str]:
        """The published rungs in order; all rungs if the study publishes no accuracy."""
        return self._ladder


def load_statements(study: Study) -> Statements:
    """Reads a study's ``claims.yaml``.

    Raises:
        UserError: the file is missing or malformed.
    """
    try:
        return Statements.model_validate(read_yaml(study.claims), context=study.files)
    except ValidationError as error:
        raise explain(str(study.claims), error, Statements) from None


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict and its evidence; ``value`` is NaN if nothing was measured.

    ``values`` has one value per seed. It is empty if the claim is about accuracies or votes.
    """

    claim: Claim
    verdict: Verdict
    evidence: str
    runs: tuple[Run, ...] = ()
    value: float = math.nan
    interval: Interval = NO_INTERVAL
    values: tuple[float, ...] = ()

    @property
    def unit(self) -> Unit:
        return QUANTITIES[self.claim.quantity].unit


def judge(claim: Claim, systems: Mapping[str, System], ladder: list[str]) -> Judgement:
    """Judges one claim.

    Accuracies, gains and votes are judged with the systems' shared deviation. Epochs are judged by
    the share of runs whose epoch is inside the bound, other quantities by Student's interval. If a
    run lacks data, the claim is undecided, so that no verdict looks more certain than it is.
    """
    quantity = QUANTITIES[claim.quantity]
    others = ladder if quantity.whole_ladder else ()
    names = list(dict.fromkeys(filter(None, (claim.rung, claim.against, *others))))
    if waiting := [
        f"{name}: {system.waiting if system else 'not run'}"
        for name in names
        if not ((system := systems.get(name)) and system.runs)
    ]:
        return Judgement(claim, "not run", ", ".join(waiting))
    used = [systems[name] for name in names]
    if quantity.weights:
        in_order = [system for name, system in systems.items() if name in names]
        estimates = {name: system.estimate for name, system in systems.items()}
        weighed = quantity.weights(claim.rung, claim.against or "", ladder)
        contrasts = [statistics.weighted(weights, estimates) for weights in weighed]
        found = _by_accuracies(claim, in_order, contrasts)
    elif quantity.vote:
        found = _by_vote(claim, used[0], *quantity.vote)
    else:
        found = _by_seeds(claim, used)
    evidence = [found.evidence]
    assumed = "; ".join(f"{s.name}: {s.assumed}" for s in used if s.assumed)
    verdict = qualified(found.verdict, all(s.comparable for s in used), assumed)
    if verdict == ASSUMED:
        evidence.append(assumed)
    if verdict == "undecided" and not math.isnan(found.value):
        inside = claim.bound.judge(found.value, found.value) == "holds"
        evidence.append(f"the value is {'inside' if inside else 'outside'} the bound")
    evidence += _changed(claim, found.runs)
    return replace(found, verdict=verdict, evidence="; ".join(evidence))


def _changed(claim: Claim, runs: Sequence[Run]) -> list[str]:
    now = claim.model_dump(exclude={"id", "text", "where"}, exclude_none=True)
    then = [run.bounds.get(claim.id) for run in runs if run.bounds]
    if not (other := [bound for bound in then if bound != now]):
        return []
    began = f"after {count(len(other), 'run')} began"
    if not other[0]:
        return [f"the claim was added {began}"]
    return [f"the claim was changed {began}; before, it was {json.dumps(other[0])}"]


def _by_accuracies(claim: Claim, systems: Sequence[System], found: list[Contrast]) -> Judgement:
    least, interval = statistics.least(found)
    if math.isnan(interval[0]):
        evidence = "the deviation between seeds is not known"
    elif least.paired:
        evidence = "the runs are paired by seed, because the rows' accuracies are correlated"
    else:
        evidence = "the interval uses the deviation estimated from all rows' seeds"
        if own := ", ".join(s.name for s in systems if s.name in s.shared.own):
            evidence += f"; for {own}, it uses the row's own deviation"
    evidence = f"seeds per row: {', '.join(str(len(s.runs)) for s in systems)}; {evidence}"
    used = tuple(run for s in systems for run in s.runs)
    return Judgement(claim, claim.bound.judge(*interval), evidence, used, least.value, interval)


def _by_vote(claim: Claim, system: System, of_vote: float, of_one: float) -> Judgement:
    """Judges a vote with the deviation of a single network; a vote's deviation is never larger.

    Let p be the probability that a network classifies an image correctly. A vote's probability is
    at least as far from one half as p is. So a vote varies no more than a single network does.
    """
    runs, voters = system.runs, claim.voters or 0
    if len(runs) < voters:
        return Judgement(claim, "undecided", f"{len(runs)} of {voters} networks trained", runs)
    labels = runs[0].predictions["label"]
    if not len(labels) or not all(labels.equals(run.predictions["label"]) for run in runs):
        evidence = "not all runs have predictions for the same images"
        return Judgement(claim, "undecided", evidence, runs)
    predicted = np.array([run.predictions["predicted"] for run in runs])
    choices = [list(choice) for choice in combinations(range(len(runs)), voters)]
    votes = [vote(predicted[choice], labels.to_numpy()) for choice in choices]
    value = of_vote * float(np.mean(votes)) + of_one * system.accuracy
    independent = len(runs) // voters  # number of choices that share no network
    share = of_vote**2 / independent + of_one**2 / len(runs)
    error, scale = math.sqrt(share * system.estimate.variance), 1
    if QUANTITIES[claim.quantity].unit == "images":
        value, scale = len(labels) * (1 + value), len(labels)
    interval = Contrast(value, scale * error, system.estimate.freedom).interval()
    evidence = f"{count(len(choices), 'vote')} of {voters} networks from {len(runs)} seeds; "
    known = "the interval uses a single network's deviation; a vote's deviation is never larger"
    evidence += "the deviation between seeds is not known" if math.isnan(error) else known
    return Judgement(claim, claim.bound.judge(*interval), evidence, runs, value, interval)


def vote(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Returns a vote's accuracy; an image whose true class is one of c tied classes counts 1 / c.

    ``predicted`` (networks, images) and ``labels`` (images,) hold class indices.
    """
    classes = np.arange(1 + max(predicted.max(), labels.max()))
    ballots = (predicted[..., None] == classes).sum(axis=0)
    elected = ballots == ballots.max(axis=1, keepdims=True)
    return float((elected[np.arange(len(labels)), labels] / elected.sum(axis=1)).mean())


def _by_seeds(claim: Claim, systems: Sequence[System]) -> Judgement:
    quantity, bound = QUANTITIES[claim.quantity], claim.bound
    runs = {s.name: {run.seed: run for run in s.runs} for s in systems}
    common = sorted(set.intersection(*(set(by_seed) for by_seed in runs.values())))
    used = tuple(by_seed[seed] for seed in common for by_seed in runs.values())
    mine, theirs = runs[claim.rung], runs[claim.against or claim.rung]
    values = tuple(quantity.measure(mine[seed], theirs[seed]) for seed in common)
    if not values:
        return Judgement(claim, "undecided", "the rows have no seed in common")
    gone = [str(seed) for seed, v in zip(common, values, strict=True) if math.isnan(v)]
    if gone:
        evidence = f"seeds without a value: {', '.join(gone)}"
        return Judgement(claim, "undecided", evidence, used, values=values)
    seeds = count(len(values), "seed")
    if quantity.unit == "epoch":
        # Epochs have no useful mean, because some may stand for "never". So the test asks whether
        # more than half of all runs lie inside the bound.
        inside = sum(bound.judge(value, value) == "holds" for value in values)
        most, least = statistics.majority(inside, len(values))
        verdict: Verdict = "holds" if most <= ALPHA else "fails" if least <= ALPHA else "undecided"
        p = f"p = {min(most, least):.2g}"
        evidence = f"{inside} of {seeds} inside the bound (binomial test, {p})"
        return Judgement(claim, verdict, evidence, used, float(np.median(values)), values=values)
    interval = statistics.student(values)
    how = "no interval, because all values are equal" if math.isnan(interval[0]) else "t interval"
    evidence = f"{seeds}; {'an interval needs three' if len(values) < 3 else how}"
    value = float(np.mean(values))
    return Judgement(claim, bound.judge(*interval), evidence, used, value, interval, values)
