"""Reads and writes the JSON files in ``results/``, which are records of finished runs.

A record holds a run's settings, origin and exact curves, and the label and prediction of each test
image. A record takes at most 60 KB. Git shows any change to the files, so :func:`load` only checks
that the parts of a record agree.
"""

import base64
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

PRECISION = 10_000  # a record rounds probabilities to multiples of 1 / PRECISION
_DTYPES = {"label": "uint8", "predicted": "uint8", "truth_probability": "<u2"}
Moment = Annotated[int, Field(ge=0, lt=2**53)]  # Unix time in milliseconds


def pack(numbers: np.ndarray) -> str:
    """Compresses the bytes of a little-endian array with zlib, and encodes them in base64."""
    return base64.b64encode(zlib.compress(numbers.tobytes(), 9)).decode("ascii")


def unpack(text: str, dtype: str, count: int) -> np.ndarray:
    """Returns the array that :func:`pack` encoded. Raises ValueError if the text is damaged."""
    try:
        content = zlib.decompress(base64.b64decode(text, validate=True))
    except (zlib.error, ValueError) as error:
        raise ValueError(f"an array cannot be unpacked: {error}") from None
    if len(content) != count * np.dtype(dtype).itemsize:
        raise ValueError(f"an array does not hold {count} numbers of type {dtype}")
    return np.frombuffer(content, dtype)


class DataInput(Strict):
    """A dataset as MLflow stores it with a run."""

    name: str
    digest: str
    source_type: str
    source: str  # JSON, with only the last part of a local path
    schema_: str | None = Field(alias="schema")
    profile: str | None
    context: str


class Predictions(Strict):
    """Labels and predictions of the test images, packed by :func:`pack`."""

    images: Annotated[int, Field(ge=1, le=10_000_000)]
    label: str  # index of the true class
    predicted: str  # index of the most probable class
    truth_probability: str  # probability of the true class, in multiples of 0.0001

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Predictions":
        steps = (frame["truth_probability"].fillna(0) * PRECISION).round()
        columns = frame.assign(truth_probability=steps)
        packed = {name: pack(columns[name].to_numpy(dtype)) for name, dtype in _DTYPES.items()}
        return cls(images=len(frame), **packed)

    def frame(self) -> pd.DataFrame:
        columns = {k: unpack(getattr(self, k), dtype, self.images) for k, dtype in _DTYPES.items()}
        steps = columns["truth_probability"]
        return pd.DataFrame(columns | {"truth_probability": steps / PRECISION})


class Record(Strict):
    """A finished run.

    ``curves`` maps each name in ``CURVES`` to one value per epoch. ``time`` has each epoch's end
    time. ``final`` has the final metrics. ``experiment`` has the lines of the resolved YAML file.
    """

    # by default, pydantic writes the value NaN (for example, of a loss) as null
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
    networks: list[str] | None = None  # lines of the study's networks.py, if the run uses it

    @property
    def key(self) -> Key:
        return Key.read(self.tags)

    @property
    def resolved(self) -> Experiment:
        return from_yaml("\n".join(self.experiment), "experiment")

    @property
    def history(self) -> list[dict[str, float]]:
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
        tags = self.tags
        if missing := [tag for tag in KEYS if tag not in tags]:
            raise ValueError(f"the tag {missing[0]!r} is missing")
        try:
            experiment = self.resolved
        except UserError as error:
            raise ValueError(str(error)) from None
        own = hashlib.sha256("\n".join(self.networks or []).encode()).hexdigest()
        same_code = not self.networks or own == experiment.model.code_sha256
        frame = self.predictions.frame()
        accuracy = float((frame["predicted"] == frame["label"]).mean())
        stated = self.final.get("test_accuracy")
        lengths = {len(values) for values in self.curves.values()}
        highest = frame[["label", "predicted"]].to_numpy().max()
        checks = {
            "config_hash does not match the experiment": experiment.hash() == tags["config_hash"],
            "the tag 'rung' does not match the experiment": experiment.name == tags["rung"],
            "the key 'networks' does not match the experiment's code_sha256": same_code,
            "the tag 'seed' must consist of digits": tags["seed"].isdecimal(),
            f"the curves must be {', '.join(CURVES)}": sorted(self.curves) == sorted(CURVES),
            "a curve does not have one value per epoch": lengths == {len(self.time)},
            "two classes have the same name": len(set(self.classes)) == len(self.classes),
            "a label or prediction is not one of the classes": highest < len(self.classes),
            f"test_accuracy is {stated}, but the predictions give {accuracy}": accuracy == stated,
        }
        if wrong := [line for line, holds in checks.items() if not holds]:
            raise ValueError(wrong[0])
        return self


def load(path: Path) -> Record:
    """Reads a record; raises UserError if the file is damaged or has the wrong name."""
    try:
        record = Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise explain(str(path), error, Record) from None
    if path.name != record.key.file:
        raise UserError(f"{path}: has the wrong name. Rename the file to {record.key.file}")
    return record


def files(folder: Path, digest: str = "") -> list[Path]:
    """Lists a folder's record files, sorted by name. ``digest`` selects files by ``Key.digest``."""
    return sorted(folder.glob(f"[!.]*{digest and f'-{digest}'}.json"))  # macOS adds ._x.json files


def load_all(folder: Path, digest: str = "") -> dict[Path, Record]:
    """Loads the records that :func:`files` lists. Raises UserError if a record is damaged."""
    return {path: load(path) for path in files(folder, digest)}


def save(record: Record, folder: Path) -> Path:
    """Writes a record into a folder and returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / record.key.file
    text = record._json(indent=1, by_alias=True)
    disk.write(path, f"{text}\n".encode())
    return path
