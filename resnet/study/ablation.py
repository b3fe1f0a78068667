"""Derives the experiments for ``ladder ablate`` from a study's own experiments."""

from collections.abc import Callable, Iterable
from itertools import chain, combinations, pairwise
from typing import Any

from resnet import UserError
from resnet.study.resolve import change, nested
from resnet.study.schema import Experiment, rungs, short
from resnet.study.study import select


def factors(before: Experiment, after: Experiment) -> dict[str, Any]:
    """Returns the factors in which two experiments differ, with each factor's value in ``after``.

    A factor is a key of two parts, such as ``training.epochs``. If the architectures differ, the
    whole block ``model`` is one factor.
    """
    old, new = (e.model_dump(include={"model", "data", "training"}) for e in (before, after))
    found: dict[str, Any] = {}
    for section, settings in new.items():
        if settings.get("architecture") != old[section].get("architecture"):
            found[section] = settings
        else:
            found |= {f"{section}.{k}": v for k, v in settings.items() if old[section].get(k) != v}
    return found


def subset(before: Experiment, after: Experiment, chosen: Iterable[str]) -> Experiment:
    """Returns ``before`` with the values that ``after`` gives to the chosen factors.

    With no factor, the result is ``before``; with all factors, ``after``. In both cases, existing
    runs are reused. Any other result has a name like ``04_lr_schedule~epochs+early_stopping``.
    """
    values = factors(before, after)
    chosen = [key for key in values if key in set(chosen)]
    if not chosen:
        return before
    if len(chosen) == len(values):
        return after
    tree = before.model_dump() | {"alternatives": {}}
    for key in chosen:
        section, _, name = key.partition(".")
        tree[section] = tree[section] | {name: values[key]} if name else values[key]
    assumed = {
        key: reason
        for experiment in (before, after)  # a reason comes from the experiment that gives the value
        for key, reason in experiment.assumed.items()
        if any(f"{key}.".startswith(f"{factor}.") for factor in chosen) == (experiment is after)
    }
    names = [key.rpartition(".")[2] for key in chosen]
    title = f"{short(after.name)} with only {', '.join(names)}"[:80]
    named = {"name": f"{after.name}~{'+'.join(names)}", "title": title, "assumed": assumed}
    return Experiment.model_validate(tree | named)


def subsets(before: Experiment, after: Experiment) -> dict[frozenset[str], Experiment]:
    """Returns an experiment for each subset of the factors, beginning with the empty subset."""
    keys = list(factors(before, after))
    return {
        frozenset(chosen): subset(before, after, chosen)
        for size in range(len(keys) + 1)
        for chosen in combinations(keys, size)
    }


def alternatives(experiment: Experiment) -> dict[tuple[str, str], Experiment]:
    """Maps (key, reason) to an experiment, for each alternative value of an assumed key.

    Experiments get names like ``01_template~epochs=50``. An invalid value raises a UserError.
    """
    found = {}
    for key, values in experiment.alternatives.items():
        leaf = key.partition(".")[2]
        for alternative in values:
            tree = nested(key.split("."), alternative.value)
            changed = change(experiment, tree, f"{experiment.name}: alternatives: {key}")
            value = str(alternative.value)
            name = f"{experiment.name}~{leaf}={value.replace(' ', '')}"
            title = f"{short(experiment.name)} with {leaf} {value}"[:80]
            update = {"name": name, "title": title}
            found[key, alternative.reason] = changed.model_copy(update=update)
    return found


def derived(text: str, names: list[str], load: Callable[[str], Experiment]) -> list[Experiment]:
    """Returns the experiments that ``ladder ablate`` trains, without duplicates.

    ``names`` has all experiments' names, and ``load`` resolves a name. If ``text`` selects rungs,
    the result has all :func:`subsets` of their changes. If ``text`` is ``assumed``, the result has
    all :func:`alternatives`. Experiments with files come first, so rungs are trained before derived
    experiments. If no rung precedes a selected rung, a UserError names the selected rung.
    """
    if text == "assumed":
        groups = [[e, *alternatives(e).values()] for e in map(load, names) if e.alternatives]
    else:
        before = {rung: first for first, rung in pairwise(rungs(names))}
        chosen = select(text, names)
        if text == "all":
            chosen = chosen[1:]
        if first_rung := [name for name in chosen if name not in before]:
            raise UserError(f"rungs {text}: no rung precedes {first_rung[0]}; choose later rungs")
        groups = [[*subsets(load(before[name]), load(name)).values()] for name in chosen]
    found: dict[str, Experiment] = {}
    for experiment in sorted(chain(*groups), key=lambda e: "~" in e.name):
        found.setdefault(experiment.hash(), experiment)
    return list(found.values())
