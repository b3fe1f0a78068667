"""A parent run as the ladder itself: accuracy, published figure and gain by rung, and the table."""

import operator
import time
from collections.abc import Callable, Sequence

import pandas as pd
from mlflow.entities import DatasetInput, Metric, RunTag

from resnet import config
from resnet.store import Store

TAG = "ladder"
"""Of a parent run that has a ladder: the set that its runs are of."""


def table(runs: Sequence[tuple[str, str, float]]) -> pd.DataFrame:
    """The ladder that runs make.

    Args:
        runs: of each its experiment's name and title and its test accuracy.

    Returns:
        A row an experiment, by name, in the ladder's order, with the columns ``title``,
        ``number`` (NaN for a baseline), ``seeds``, ``test_accuracy`` (the seeds' mean),
        ``published`` (NaN if the study has no such rung) and ``gain`` over the rung before (NaN
        if that was not run).
    """
    frame = pd.DataFrame(runs, columns=["name", "title", "test_accuracy"]).dropna()
    by_name = frame.groupby("name")
    ladder = by_name.agg(title=("title", "last"), test_accuracy=("test_accuracy", "mean"))
    ladder["seeds"] = by_name.size()
    ladder["number"] = [config.rung_number(name) for name in ladder.index]
    published = config.read_yaml(config.CLAIMS)["published"]
    ladder["published"] = [published.get(name) for name in ladder.index]
    # of two rungs of one number neither is the one before
    numbered = ladder.dropna(subset="number").drop_duplicates("number", keep=False)
    of_number = numbered.set_index("number")["test_accuracy"]
    before = (ladder["number"] - 1).map(of_number)
    ladder["gain"] = (ladder["test_accuracy"] - before).round(10)  # equal gains are drawn equal
    return ladder.astype({"number": float, "published": float, "gain": float})


def log(
    store: Store,
    run_id: str,
    runs: Sequence[tuple[str, str, float]],
    tags: dict[str, str],
    inputs: list[DatasetInput],
    call: Callable = operator.call,
) -> None:
    """Makes a parent run show its ladder; metrics have the rung's number as their step.

    Args:
        store: where.
        run_id: the parent.
        runs: see :func:`table`.
        tags: ``dataset``, ``profile`` and ``modified`` of the runs.
        inputs: their datasets.
        call: calls its first argument with the others.
    """
    ladder = table(runs)
    if ladder.empty:
        return
    moment = int(time.time() * 1000)
    metrics = [
        Metric(key, float(value), moment, int(row["number"]))
        for _, row in ladder.dropna(subset="number").iterrows()
        for key, value in row[["test_accuracy", "published", "gain"]].dropna().items()
    ]
    text = [RunTag(TAG, about(tags)), RunTag("mlflow.note.content", markdown(ladder, tags))]
    call(store.client.log_batch, run_id, metrics, tags=text)
    call(store.client.log_inputs, run_id, inputs)


def about(tags: dict[str, str], *further: str) -> str:
    """``digits · quick``: what may be compared, in words; the full profile goes without saying."""
    profile = tags["profile"]
    parts = (tags["dataset"], profile if profile != "full" else "", tags["modified"], *further)
    return " · ".join(part for part in parts if part)


def markdown(ladder: pd.DataFrame, tags: dict[str, str]) -> str:
    """A ladder as a Markdown table, and what to make of it."""

    def percent(value: float, form: str = ".1f") -> str:
        return "" if pd.isna(value) else f"{100 * value:{form}}"

    lines = [
        f"**Test accuracy in %: {about(tags)}**",
        "",
        "| rung | measured | gain | published | seeds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in ladder.itertuples():
        number = "" if pd.isna(row.number) else f"{row.number:.0f} "
        title = row.title.replace("|", r"\|")
        lines.append(
            f"| {number}{title} | {percent(row.test_accuracy)} | {percent(row.gain, '+.1f')} | "
            f"{percent(row.published)} | {row.seeds} |"
        )
    if about(tags) != "cifar10":
        lines += ["", "Published is CIFAR-10 in full: not comparable with these runs."]
    return "\n".join(lines)
