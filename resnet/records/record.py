"""Finished runs as text files that git can keep: the format, its checks, and nothing of MLflow.

A record is one JSON file a run, at most 60 KB: settings, provenance, every curve to the last bit,
and what became of each test image. It holds no image and no model; what can be computed from the
rest (figures, confusion matrix, model summary) is left out as well. Git guards what is in git;
a record is checked for agreeing with itself.
"""

import base64
import binascii
import hashlib
import re
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field, ValidationError, model_validator

from resnet import UserError
from resnet.host import disk
from resnet.host.shell import one_line
from resnet.records.artifacts import CURVES
from resnet.study import KEYS, Experiment, Key, Strict, explain, from_yaml

PRECISION = 10_000
"""Steps of the probability that a record gives the true class."""

Moment = Annotated[int, Field(ge=0, lt=2**53)]
"""Unix time in milliseconds."""


def pack(numbers: np.ndarray) -> str:
    """Packs an array of small whole numbers: base64 of its zlib-compressed little-endian bytes."""
    return base64.b64encode(zlib.compress(numbers.tobytes(), 9)).decode("ascii")


def unpack(text: str, dtype: str, count: int) -> np.ndarray:
    """Returns the array that :func:`pack` was given.

    Raises:
        ValueError: the text holds anything else than ``count`` numbers of that type.
    """
    size = count * np.dtype(dtype).itemsize
    unpacker = zlib.decompressobj()
    try:  # bounded, because a small file may unpack to anything
        content = unpacker.decompress(base64.b64decode(text, validate=True), size + 1)
    except (zlib.error, binascii.Error) as error:
        raise ValueError(f"an array cannot be unpacked: {error}") from None
    if len(content) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"an array does not hold {count} numbers of {dtype}")
    return np.frombuffer(content, dtype)


class DataInput(Strict):
    """A dataset as MLflow keeps it with the run."""

    name: Annotated[str, Field(min_length=1, max_length=500)]
    digest: Annotated[str, Field(min_length=1, max_length=36)]
    source_type: Annotated[str, Field(min_length=1, max_length=36)]
    source: str
    """JSON; a local file is named without its folders, which mean nothing elsewhere."""
    schema_: str | None = Field(alias="schema")
    profile: str | None
    context: str


class Predictions(Strict):
    """What became of each test image, packed by :func:`pack`."""

    images: Annotated[int, Field(ge=1, le=10_000_000)]
    label: str
    """uint8 indices of the true classes."""
    predicted: str
    """uint8 indices of the most probable classes."""
    truth_probability: str
    """uint16 multiples of 0.0001: the probability given to the true class."""

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Predictions":
        """Packs the columns ``label``, ``predicted`` and ``truth_probability``."""
        steps = (frame["truth_probability"].fillna(0) * PRECISION).round()
        return cls(
            images=len(frame),
            label=pack(frame["label"].to_numpy("uint8")),
            predicted=pack(frame["predicted"].to_numpy("uint8")),
            truth_probability=pack(steps.to_numpy("<u2")),
        )

    def frame(self) -> pd.DataFrame:
        """Returns the columns that :meth:`of` was given."""
        steps = unpack(self.truth_probability, "<u2", self.images)
        return pd.DataFrame(
            {
                "label": unpack(self.label, "uint8", self.images),
                "predicted": unpack(self.predicted, "uint8", self.images),
                "truth_probability": steps / PRECISION,
            }
        )


class Record(Strict):
    """One finished run.

    ``curves`` maps each of ``CURVES`` to one value an epoch, ``time`` says when each epoch ended,
    ``final`` holds the metrics with a single value. ``experiment`` is the resolved YAML, a list
    of lines.
    """

    # a loss may have become NaN, which would be written null
    model_config = ConfigDict(ser_json_inf_nan="constants")

    format: Literal[2] = 2
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Of the original run."""
    run_name: Annotated[str, Field(min_length=1, max_length=250)]
    start_time: Moment
    end_time: Moment
    tags: dict[str, str]
    inputs: list[DataInput]
    classes: Annotated[list[str], Field(min_length=2, max_length=256)]
    experiment: list[str]
    final: dict[str, float]
    time: Annotated[list[Moment], Field(min_length=1)]
    curves: dict[str, list[float]]
    predictions: Predictions
    networks: list[str] | None = None
    """The lines of the study's ``networks.py``, if the architecture is one of its own."""

    @property
    def key(self) -> Key:
        """What the run is."""
        return Key.read(self.tags)

    @property
    def resolved(self) -> Experiment:
        """The experiment as it was run."""
        return from_yaml("\n".join(self.experiment), "experiment")

    @property
    def history(self) -> list[dict[str, float]]:
        """One record an epoch, as :class:`resnet.training.Outcome` has it."""
        rows = zip(*self.curves.values(), strict=True)
        return [
            {"epoch": epoch} | dict(zip(self.curves, row, strict=True))
            for epoch, row in enumerate(rows, 1)
        ]

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the content."""
        return hashlib.sha256(self._json().encode()).hexdigest()

    def _json(self, **options: Any) -> str:
        left_out = {"networks"} if self.networks is None else set()
        return self.model_dump_json(exclude=left_out, **options)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Record":
        if missing := [tag for tag in KEYS if tag not in self.tags]:
            raise ValueError(f"it lacks the tag {missing[0]}")
        try:
            experiment = self.resolved
        except UserError as error:
            raise ValueError(str(error)) from None
        if experiment.hash() != self.tags["config_hash"]:
            raise ValueError("its experiment is not the one of its tag config_hash")
        own = "\n".join(self.networks or [])
        if self.networks and hashlib.sha256(own.encode()).hexdigest() != (
            experiment.model.code_sha256
        ):
            raise ValueError("its networks are not those of its experiment")
        if experiment.name != self.tags["rung"]:
            raise ValueError("its experiment is not the one of its tag rung")
        if not re.fullmatch(r"[0-9]{1,20}", self.tags["seed"]):
            raise ValueError("its tag seed is no seed")
        if sorted(self.curves) != sorted(CURVES):
            raise ValueError(f"its curves are not {', '.join(CURVES)}")
        for key, values in self.curves.items():
            if len(values) != len(self.time):
                raise ValueError(f"its curve {key} has not one value an epoch")
        self._check_predictions()
        return self

    def _check_predictions(self) -> None:
        frame = self.predictions.frame()
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("it has a class name twice")
        if frame[["label", "predicted"]].to_numpy().max() >= len(self.classes):
            raise ValueError("a label or a prediction is none of its classes")
        if frame["truth_probability"].max() > 1:
            raise ValueError("a probability is above 1")
        accuracy = float((frame["predicted"] == frame["label"]).mean())
        recorded = self.final.get("test_accuracy")
        if accuracy != recorded:
            raise ValueError(
                f"its predictions have an accuracy of {accuracy}, but it says {recorded}"
            )


def load(path: Path) -> Record:
    """Reads one record.

    Raises:
        UserError: the file cannot be read, is broken, does not agree with itself, or has the name
            of another run; the line names it.
    """
    try:
        record = Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None
    except ValidationError as error:
        raise explain(str(path), error, Record) from None
    if path.name != record.key.file:
        raise UserError(f"{path}: holds a run whose record is called {record.key.file}")
    return record


def load_all(folder: Path) -> dict[Path, Record]:
    """Reads every record of a folder by its file, in the names' order; none if there is no folder.

    Hidden files, such as ``._x.json`` of macOS, are none.

    Raises:
        UserError: a file is no sound record.
    """
    return {path: load(path) for path in files(folder)}


def files(folder: Path, digest: str = "") -> list[Path]:
    """Lists a folder's records in the names' order; those of one ``Key.digest`` if it is given."""
    paths = sorted(folder.glob(f"*{digest and f'-{digest}'}.json"))
    return [path for path in paths if not path.name.startswith(".")]


def save(record: Record, folder: Path) -> Path:
    """Writes a record.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / record.key.file
    text = record._json(indent=1, by_alias=True)
    disk.write(path, f"{text}\n".encode())
    return path
