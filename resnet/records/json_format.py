"""The record of a finished run: the JSON format of ``results/`` and its checks, without MLflow.

One file per run, at most 60 KB: settings, provenance, every curve to the last bit, and the label
and prediction of each test image. It holds no image, no model, and nothing that can be computed
from the rest. Git guards the files; a record is only checked for agreeing with itself.
"""

import base64
import binascii
import hashlib
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field, ValidationError, model_validator

from resnet import UserError
from resnet.host import disk
from resnet.records.artifacts import CURVES
from resnet.study import KEYS, Experiment, Key, Strict, explain, from_yaml

PRECISION = 10_000  # steps of the probability that a record gives the true class
Moment = Annotated[int, Field(ge=0, lt=2**53)]  # Unix time in milliseconds


def pack(numbers: np.ndarray) -> str:
    """Packs an array: base64 of its zlib-compressed little-endian bytes."""
    return base64.b64encode(zlib.compress(numbers.tobytes(), 9)).decode("ascii")


def unpack(text: str, dtype: str, count: int) -> np.ndarray:
    """Returns the array that :func:`pack` was given; ValueError if it has another length."""
    try:
        content = zlib.decompress(base64.b64decode(text, validate=True))
    except (zlib.error, binascii.Error) as error:
        raise ValueError(f"an array cannot be unpacked: {error}") from None
    if len(content) != count * np.dtype(dtype).itemsize:
        raise ValueError(f"an array does not hold {count} numbers of {dtype}")
    return np.frombuffer(content, dtype)


class DataInput(Strict):
    """A dataset as MLflow keeps it with the run."""

    name: str
    digest: str
    source_type: str
    source: str  # JSON; a local file without its folders, which mean nothing elsewhere
    schema_: str | None = Field(alias="schema")
    profile: str | None
    context: str


class Predictions(Strict):
    """Label and prediction of each test image, packed by :func:`pack`."""

    images: Annotated[int, Field(ge=1, le=10_000_000)]
    label: str  # uint8 indices of the true classes
    predicted: str  # uint8 indices of the most probable classes
    truth_probability: str  # uint16 multiples of 0.0001: the probability of the true class

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

    ``curves`` maps each of ``CURVES`` to one value per epoch, ``time`` holds the end of each epoch,
    ``final`` the metrics with a single value, ``experiment`` the lines of the resolved YAML.
    """

    # a loss may have become NaN, which would be written null
    model_config = ConfigDict(ser_json_inf_nan="constants")

    format: Literal[2] = 2
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
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
    networks: list[str] | None = None  # lines of the study's networks.py, if it is used

    @property
    def key(self) -> Key:
        return Key.read(self.tags)

    @property
    def resolved(self) -> Experiment:
        """The parsed ``experiment``."""
        return from_yaml("\n".join(self.experiment), "experiment")

    @property
    def history(self) -> list[dict[str, float]]:
        """One dictionary per epoch, as in :class:`resnet.training.Outcome`."""
        epochs = range(1, len(self.time) + 1)
        return pd.DataFrame(self.curves | {"epoch": epochs}).to_dict("records")

    @property
    def sha256(self) -> str:
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
        own = hashlib.sha256("\n".join(self.networks or []).encode()).hexdigest()
        frame = self.predictions.frame()
        accuracy = float((frame["predicted"] == frame["label"]).mean())
        stated = self.final.get("test_accuracy")
        lengths = {len(values) for values in self.curves.values()}
        highest = frame[["label", "predicted"]].to_numpy().max()
        checks = {
            "its experiment is not that of its tags": (
                (experiment.hash(), experiment.name)
                == (self.tags["config_hash"], self.tags["rung"])
            ),
            "its networks are not those of its experiment": (
                not self.networks or own == experiment.model.code_sha256
            ),
            "its tag seed is no seed": self.tags["seed"].isdecimal(),
            f"its curves are not {', '.join(CURVES)}": sorted(self.curves) == sorted(CURVES),
            "a curve does not have one value per epoch": lengths == {len(self.time)},
            "two of its classes have one name": len(set(self.classes)) == len(self.classes),
            "a label or prediction is none of its classes": highest < len(self.classes),
            f"its predictions have an accuracy of {accuracy}, but it says {stated}": (
                accuracy == stated
            ),
        }
        if wrong := [line for line, holds in checks.items() if not holds]:
            raise ValueError(wrong[0])
        return self


def load(path: Path) -> Record:
    """Reads one record.

    Raises:
        UserError: the record is damaged, or its file's name is that of another run.
    """
    try:
        record = Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise explain(str(path), error, Record) from None
    if path.name != record.key.file:
        raise UserError(f"{path}: holds a run whose record is called {record.key.file}")
    return record


def files(folder: Path, digest: str = "") -> list[Path]:
    """Lists a folder's records in the names' order; only those of a ``Key.digest`` if given."""
    return sorted(folder.glob(f"[!.]*{digest and f'-{digest}'}.json"))  # macOS leaves ._x.json


def load_all(folder: Path, digest: str = "") -> dict[Path, Record]:
    """Reads the records that :func:`files` lists, by file; UserError if one is damaged."""
    return {path: load(path) for path in files(folder, digest)}


def save(record: Record, folder: Path) -> Path:
    """Writes a record and returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / record.key.file
    text = record._json(indent=1, by_alias=True)
    disk.write(path, f"{text}\n".encode())
    return path
