"""Finished runs as text files that git can keep: the format, its checks, and nothing of MLflow.

A record is one JSON file a run: params, tags, every metric's history, the test probabilities and
labels, the resolved experiment, the model summary and where the data came from. It holds no image
and no model: images are never committed, and so neither is the picture of the surest mistakes.
What can be computed from the rest (the figures, the confusion matrix) is left out as well.

Keys are sorted and a metric's history is one line, so that git shows what changed. An array is
base64 of the LZMA-compressed bytes, exact to the last bit. The last line's ``sha256`` is of
everything before it: a file that is not exactly what :func:`dumps` wrote is refused.
"""

import base64
import binascii
import hashlib
import json
import lzma
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from resnet import UserError, config

FOLDER = Path(__file__).resolve().parent.parent / "results"
CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
"""Metrics with one value an epoch."""
TAGS = (
    "rung",
    "title",
    "seed",
    "config_hash",
    "dataset",
    "dataset_fingerprint",
    "profile",
    "modified",
    "backend",
)
"""What a run of a rung is told apart by."""

Moment = Annotated[int, Field(ge=0, lt=2**53)]
"""Unix time in milliseconds."""
Step = Annotated[int, Field(ge=0, lt=2**31)]
Size = Annotated[int, Field(ge=1, le=10_000_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Array(_Strict):
    """An array's exact bytes."""

    dtype: Literal["<f4", "|u1", "<i4", "<i8"]
    shape: Annotated[list[Size], Field(min_length=1, max_length=2)]
    lzma: str
    """Base64; all first bytes of the numbers, then all second ones and so on: packs better."""

    @classmethod
    def pack(cls, array: np.ndarray) -> "Array":
        """Packs an array of up to two dimensions."""
        array = np.ascontiguousarray(array)
        planes = array.reshape(-1, 1).view("uint8").T.tobytes()
        packed = base64.b64encode(lzma.compress(planes)).decode("ascii")
        return cls(dtype=array.dtype.str, shape=list(array.shape), lzma=packed)

    def unpack(self) -> np.ndarray:
        """The array.

        Raises:
            ValueError: it is not what its dtype and shape say.
        """
        dtype, count = np.dtype(self.dtype), math.prod(self.shape)
        try:
            # bounded, because a small file may unpack to anything
            unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=64 * 2**20)
            packed = base64.b64decode(self.lzma, validate=True)
            planes = unpacker.decompress(packed, max_length=count * dtype.itemsize + 1)
        except (lzma.LZMAError, binascii.Error, EOFError) as error:
            raise ValueError(f"an array cannot be unpacked: {error}") from None
        if len(planes) != count * dtype.itemsize or not unpacker.eof or unpacker.unused_data:
            raise ValueError(f"an array does not hold {count} numbers of {dtype}")
        numbers = np.frombuffer(planes, "uint8").reshape(dtype.itemsize, count).T
        return np.ascontiguousarray(numbers).view(dtype).reshape(self.shape)


class DataInput(_Strict):
    """A dataset as MLflow keeps it with the run."""

    name: Annotated[str, Field(min_length=1, max_length=500)]
    digest: Annotated[str, Field(min_length=1, max_length=36)]
    source_type: Annotated[str, Field(min_length=1, max_length=36)]
    source: str
    """JSON; a local file is named without its folders, which mean nothing elsewhere."""
    schema_: Annotated[str | None, Field(alias="schema")]
    profile: str | None
    context: str


class Record(_Strict):
    """One finished run.

    ``metrics`` maps a name to its history, a list of [step, time in ms, value] in that order;
    the step of a curve is the epoch, from 1. ``probabilities`` is float32 (images, classes),
    ``labels`` the true class indices (images,). Texts are lists of lines.
    """

    format: Literal[1] = 1
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Of the original run."""
    run_name: Annotated[str, Field(min_length=1, max_length=250)]
    start_time: Moment
    end_time: Moment
    params: dict[str, str]
    tags: dict[str, str]
    inputs: list[DataInput]
    classes: Annotated[list[str], Field(min_length=2)]
    metrics: dict[str, Annotated[list[tuple[Step, Moment, float]], Field(min_length=1)]]
    experiment: list[str]
    model_summary: list[str]
    labels: Array
    probabilities: Array

    @property
    def resolved(self) -> config.Experiment:
        """The experiment as it was run."""
        return config.from_yaml("\n".join(self.experiment), "experiment")

    @property
    def history(self) -> list[dict[str, float]]:
        """One record an epoch, as :class:`resnet.training.Outcome` has it."""
        epochs = [step for step, _, _ in self.metrics["loss"]]
        curves = {key: [value for _, _, value in self.metrics[key]] for key in CURVES}
        return [
            {"epoch": epoch} | {key: values[i] for key, values in curves.items()}
            for i, epoch in enumerate(epochs)
        ]

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the content."""
        return hashlib.sha256(_text(self).encode()).hexdigest()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Record":
        if missing := [tag for tag in TAGS if tag not in self.tags]:
            raise ValueError(f"it lacks the tag {missing[0]}")
        self._check_experiment()
        self._check_metrics()
        self._check_predictions()
        return self

    def _check_experiment(self) -> None:
        try:
            experiment = self.resolved
        except UserError as error:
            raise ValueError(str(error)) from None
        if experiment.hash() != self.tags["config_hash"]:
            raise ValueError("its experiment is not the one of its tag config_hash")
        if experiment.name != self.tags["rung"]:
            raise ValueError("its experiment is not the one of its tag rung")
        if {k: json.dumps(v) for k, v in experiment.flat().items()} != self.params:
            raise ValueError("its params are not those of its experiment")
        if not re.fullmatch(r"[0-9]{1,18}", self.tags["seed"]):
            raise ValueError("its tag seed is no seed")

    def _check_metrics(self) -> None:
        if missing := [key for key in (*CURVES, "test_accuracy") if key not in self.metrics]:
            raise ValueError(f"it lacks the metric {missing[0]}")
        epochs = [step for step, _, _ in self.metrics["loss"]]
        for key in CURVES:
            steps = [step for step, _, _ in self.metrics[key]]
            if steps != epochs or steps != list(range(1, len(steps) + 1)):
                raise ValueError(f"its metric {key} has not one value an epoch")

    def _check_predictions(self) -> None:
        labels, probabilities = self.labels.unpack(), self.probabilities.unpack()
        if probabilities.dtype != np.float32 or probabilities.ndim != 2:
            raise ValueError("its probabilities are no table of float32")
        if labels.dtype == np.float32 or labels.shape != probabilities.shape[:1]:
            raise ValueError("it has not one label for each row of probabilities")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) != len(
            probabilities[0]
        ):
            raise ValueError("it has not one class name for each column of probabilities")
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise ValueError("a label is none of its classes")
        accuracy = float((probabilities.argmax(axis=1) == labels).mean())
        recorded = self.metrics["test_accuracy"][-1][2]
        if accuracy != recorded:
            raise ValueError(
                f"its predictions have an accuracy of {accuracy:.6f}, but it says {recorded:.6f}"
            )


def name(tags: dict[str, str]) -> str:
    """A record's file name: what the run is of, and a short hash of configuration and data.

    Args:
        tags: the run's, with all of ``TAGS``.

    Returns:
        ``01_template-seed0-cifar10-jpeg-tensorflow-1a2b3c4d.json``.
    """
    identity = tags["config_hash"] + tags["dataset_fingerprint"]
    short = hashlib.sha256(identity.encode()).hexdigest()[:8]
    parts = (tags["rung"], f"seed{tags['seed']}", tags["dataset"], tags["backend"], short)
    return re.sub(r"[^\w.-]", "_", "-".join(parts)) + ".json"


def explain(source: str, error: ValidationError) -> UserError:
    """One line for the first thing that is wrong with a record."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = "".join(f"{part}: " for part in first["loc"])
    return UserError(
        config.one_line(f"{source}: {where}{first['msg'].removeprefix('Value error, ')}")
    )


def _text(record: Record) -> str:
    """The content as JSON without the closing brace: what is hashed."""
    tree = record.model_dump(by_alias=True)

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)

    def block(key: str, value: Any) -> str:
        if key == "metrics":
            lines = [f"  {compact(k)}: {compact(value[k])}" for k in sorted(value)]
            return f" {compact(key)}: {{\n" + ",\n".join(lines) + "\n }"
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1)
        return f" {compact(key)}: " + text.replace("\n", "\n ")

    return "{\n" + ",\n".join(block(key, tree[key]) for key in sorted(tree))


def dumps(record: Record) -> str:
    """A record's text; equal records have equal texts."""
    return f'{_text(record)},\n "sha256": "{record.sha256}"\n}}\n'


def loads(text: str, source: str) -> Record:
    """Reads what :func:`dumps` wrote.

    Args:
        text: a file's content.
        source: what to call it in an error.

    Returns:
        The record.

    Raises:
        UserError: the text is broken, was edited, or does not agree with itself.
    """
    body, comma, end = text.rpartition(",\n")
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    if not comma or end != f' "sha256": "{sha256}"\n}}\n':
        raise UserError(f"{source}: is broken or was edited: its content has another SHA-256")
    try:
        record = Record.model_validate_json(f"{body}\n}}")
        same = dumps(record) == text
    except ValidationError as error:
        raise explain(source, error) from None
    if not same:  # a key twice, other blanks: git would show changes where there are none
        raise UserError(f"{source}: is not written as a record is")
    return record


def load(path: Path) -> Record:
    """Reads one record.

    Raises:
        UserError: the file cannot be read, is broken or was edited, does not agree with itself,
            or has the name of another run; the line names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    record = loads(text, str(path))
    if path.name != name(record.tags):
        raise UserError(f"{path}: holds a run whose record is called {name(record.tags)}")
    return record


def load_all(folder: Path) -> dict[Path, Record]:
    """Every record of a folder by its file, in the names' order; none if there is no folder.

    Raises:
        UserError: a file is no sound record.
    """
    return {path: load(path) for path in sorted(folder.glob("*.json"))}


def save(record: Record, folder: Path) -> Path:
    """Writes a record aside, then renames it into place.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name(record.tags)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(dumps(record), encoding="utf-8", newline="\n")
    aside.replace(path)
    return path
