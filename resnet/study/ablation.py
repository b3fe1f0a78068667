"""Derives experiments from those in files: subsets of a step's changes, other assumed values."""

from collections.abc import Callable, Iterable
from itertools import chain, combinations, pairwise
from typing import Any

from resnet import UserError
from resnet.study.resolve import change, nested
from resnet.study.schema import Experiment, rungs, short
from resnet.study.study import select


def factors(before: Experiment, after: Experiment) -> dict[str, Any]:
    """Returns what a step changes: the rung's value of each factor that differs.

    A factor is a key of two parts, such as ``training.epochs``, or all of
    ``training.reduce_lr_on_plateau``; of another architecture, it is all of ``model``.
    """
    old, new = (e.model_dump(include={"model", "data", "training"}) for e in (before, after))
    found: dict[str, Any] = {}
    for section, settings in new.items():
        if settings.get("architecture") != old[section].get("architecture"):
            found[section] = settings
            continue
        for key, value in settings.items():
            if old[section].get(key) != value:
                found[f"{section}.{key}"] = value
    return found


def subset(before: Experiment, after: Experiment, chosen: Iterable[str]) -> Experiment:
    """Makes the rung before with the chosen factors of the step.

    With no factor it is the rung before and with all of them the rung, so that their runs are found
    and not made again. Any other is named like ``04_lr_schedule~epochs+early_stopping``.
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
        for experiment in (before, after)  # whichever the value of the key is from
        for key, reason in experiment.assumed.items()
        if any(f"{key}.".startswith(f"{factor}.") for factor in chosen) == (experiment is after)
    }
    names = [key.rpartition(".")[2] for key in chosen]
    title = f"{short(after.name)} with only {', '.join(names)}"[:80]
    named = {"name": f"{after.name}~{'+'.join(names)}", "title": title, "assumed": assumed}
    return Experiment.model_validate(tree | named)


def subsets(before: Experiment, after: Experiment) -> dict[frozenset[str], Experiment]:
    """Makes every subset of a step's factors, the empty one first, as :func:`subset` does."""
    keys = list(factors(before, after))
    return {
        frozenset(chosen): subset(before, after, chosen)
        for size in range(len(keys) + 1)
        for chosen in combinations(keys, size)
    }


def alternatives(experiment: Experiment) -> dict[tuple[str, str], Experiment]:
    """Makes the experiment with each alternative to an assumed value, by (key, reason).

    It is named like ``01_template~epochs=50``. A UserError names a value that is not allowed.
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
            named = changed.model_copy(update={"name": name, "title": title})
            found[key, alternative.reason] = named
    return found


def derived(text: str, names: list[str], load: Callable[[str], Experiment]) -> list[Experiment]:
    """Returns the experiments that ``ablate`` trains, each once.

    Experiments with a file of their own come first, so that an interrupted ablation has the ladder.

    Args:
        text: ``all`` or numbers of rungs, for all subsets of the steps to them; or ``assumed``, for
            every experiment that has alternatives, with them.
        names: names of all experiments, the rungs in order.
        load: resolves an experiment by its name.

    Raises:
        UserError: the text names no experiment, or one to which no step leads.
    """
    if text == "assumed":
        groups = [[e, *alternatives(e).values()] for e in map(load, names) if e.alternatives]
    else:
        before = {rung: first for first, rung in pairwise(rungs(names))}
        chosen = select(text, names)
        if text == "all":
            chosen = chosen[1:]
        if first_rung := [name for name in chosen if name not in before]:
            raise UserError(f"rungs {text}: no step leads to {first_rung[0]}")
        groups = [[*subsets(load(before[name]), load(name)).values()] for name in chosen]
    found: dict[str, Experiment] = {}
    for experiment in sorted(chain(*groups), key=lambda e: "~" in e.name):
        found.setdefault(experiment.hash(), experiment)
    return list(found.values())
