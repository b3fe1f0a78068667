"""A step taken apart, and what was assumed varied: further experiments, none written by hand.

The study credits what a step is named for; the YAML says what else changed with it. What it
leaves open is assumed; the YAML may say what else it could have been.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, combinations, pairwise
from typing import Any

from resnet import UserError
from resnet.study.resolve import change
from resnet.study.schema import Experiment, rung_number, rungs, short
from resnet.study.study import select

SETTINGS = {"model", "data", "training"}


def factors(before: Experiment, after: Experiment) -> dict[str, Any]:
    """Groups what a step changes by what belongs together.

    Args:
        before: the rung before.
        after: the rung.

    Returns:
        The rung's value of each setting that differs, by its key of two parts: all of
        ``training.reduce_lr_on_plateau`` is one factor, ``training.epochs`` another; of another
        architecture all of ``model`` is one. In the order of the schema.
    """
    old, new = (e.model_dump(include=SETTINGS) for e in (before, after))
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
    """Makes the rung before with some factors of the step.

    Args:
        before: the rung before.
        after: the rung.
        chosen: keys of :func:`factors`.

    Returns:
        The experiment. With no factor it is the rung before itself and with all of them the
        rung, so that their runs are found and not made again; any other is named like
        ``04_lr_schedule~epochs+early_stopping``, after the rung and the factors it has.
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

    def of(reasons: dict[str, str], mine: bool) -> dict[str, str]:
        return {
            key: reason
            for key, reason in reasons.items()
            if any(f"{key}.".startswith(f"{factor}.") for factor in chosen) is mine
        }

    names = [key.rpartition(".")[2] for key in chosen]
    return Experiment.model_validate(
        tree
        | {
            "name": f"{after.name}~{'+'.join(names)}",
            "title": f"{short(after.name)} with only {', '.join(names)}"[:80],
            "assumed": of(before.assumed, False) | of(after.assumed, True),
        }
    )


def subsets(before: Experiment, after: Experiment) -> dict[frozenset[str], Experiment]:
    """Makes every subset of a step's factors, the empty one first, as :func:`subset` does."""
    keys = list(factors(before, after))
    return {
        frozenset(chosen): subset(before, after, chosen)
        for size in range(len(keys) + 1)
        for chosen in combinations(keys, size)
    }


def alternatives(experiment: Experiment) -> dict[tuple[str, str], Experiment]:
    """Makes what an experiment could have been where it had to assume.

    Args:
        experiment: as its file says.

    Returns:
        By (key, reason), the experiment with that one value changed, named like
        ``01_template~epochs=50``. One whose own file does not list the key inherits it.

    Raises:
        UserError: a value is not allowed.
    """
    found = {}
    for key, values in experiment.alternatives.items():
        for alternative in values:
            tree: Any = alternative.value
            for part in reversed(key.split(".")):
                tree = {part: tree}
            value = str(alternative.value).replace(" ", "")
            leaf = key.partition(".")[2]
            name = f"{experiment.name}~{leaf}={value}"
            title = f"{short(experiment.name)} with {leaf} {alternative.value}"[:80]
            changed = change(experiment, tree, f"{experiment.name}: alternatives: {key}")
            found[key, alternative.reason] = changed.model_copy(
                update={"name": name, "title": title}
            )
    return found


def parts(text: str, names: list[str], load: Callable[[str], Experiment]) -> list[Experiment]:
    """Resolves what ``ablate`` is given to experiments.

    Args:
        text: ``all`` steps, numbers of rungs as in ``--ladder``, or ``assumed``.
        names: of all experiments, the rungs in order.
        load: resolves one by its name; asked for those alone that are needed.

    Returns:
        All subsets of the steps that lead to those rungs, each experiment once; or every
        experiment that has alternatives, with them. What stands in a file of its own comes
        first: an interrupted ablation has the ladder.

    Raises:
        UserError: the text names nothing there is, or rung 1, to which no step leads; or a file
            that is needed is broken.
    """
    if text == "assumed":
        loaded = [load(name) for name in names]
        groups = [[e, *alternatives(e).values()] for e in loaded if e.alternatives]
    else:
        numbers = Counter(map(rung_number, names))
        before = {  # of two rungs of one number neither is the one before
            after: first
            for first, after in pairwise(rungs(names))
            if numbers[rung_number(first)] == 1
        }
        chosen = select(text, names)
        if text == "all":
            chosen = chosen[1:]
        if first := [name for name in chosen if name not in before]:
            raise UserError(f"rungs {text}: no single step leads to {first[0]}")
        groups = [[*subsets(load(before[name]), load(name)).values()] for name in chosen]
    found: dict[str, Experiment] = {}
    for experiment in sorted(chain(*groups), key=lambda e: "~" in e.name):
        found.setdefault(experiment.hash(), experiment)
    return list(found.values())
