"""Makes runs with known results in a real MLflow store, as ``ladder run`` would."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from PIL import Image

from resnet import records
from resnet.store import connect
from resnet.study import Experiment, Study, change

STUDY = Study.open()
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINGERPRINT = "ab" * 32
TRUTH = (0.9, 0.05)
"""The predicted probability of the true class in correct and in wrong predictions."""
LADDER = (
    "01_template",
    "02_augmentation",
    "03_deeper_early_stopping",
    "04_lr_schedule",
    "05_deeper_dropout",
)


def labels(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, len(CLASSES), n).astype("uint8")


def right(n: int, count: int, seed: int = 0) -> np.ndarray:
    """Draws which ``count`` of ``n`` images are classified correctly.

    With the same seed, a larger count includes all images of a smaller count.
    """
    return np.argsort(np.argsort(np.random.default_rng([1, seed]).random(n))) < count


def predictions(correct: np.ndarray, classes: int = len(CLASSES)) -> pd.DataFrame:
    """Makes a network's test predictions; a wrong prediction is the class after the true class."""
    truth = labels(len(correct))
    predicted = np.where(correct, truth, (truth + 1) % classes)
    frame = {"label": truth, "predicted": predicted, "truth_probability": np.where(correct, *TRUTH)}
    return pd.DataFrame(frame)


def curve(epochs: int, train: float, val: float, drops: tuple[int, ...] = ()) -> pd.DataFrame:
    """Makes curves that end at these accuracies; each drop divides the learning rate by five."""
    epoch = np.arange(1, epochs + 1)
    rise = (1 - np.exp(-4 * epoch / epochs)) / (1 - np.exp(-4))
    rate = 0.001 * 0.2 ** np.sum([epoch >= drop for drop in drops], axis=0)
    frame = pd.DataFrame(
        {
            "accuracy": 0.3 + (train - 0.3) * rise,
            "val_accuracy": 0.3 + (val - 0.3) * rise,
            "learning_rate": np.float32(rate) * np.ones(epochs, "float32"),
        },
        index=epoch,
    )
    frame["loss"] = -np.log(frame["accuracy"])
    frame["val_loss"] = -np.log(frame["val_accuracy"])
    frame["images_per_second"], frame["epoch_seconds"] = 655.0, 61.0
    return frame


@dataclass
class Store:
    """A store to which tests add runs; ``folder`` contains its database and artifacts."""

    folder: Path
    experiment: str = STUDY.name

    @classmethod
    def copy(cls, empty: Path, folder: Path) -> "Store":
        shutil.copyfile(empty, folder / "mlflow.db")
        return cls(folder)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    @property
    def experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found:
            return found.experiment_id
        return self.client.create_experiment(
            self.experiment, artifact_location=(self.folder / "mlartifacts").as_uri()
        )

    def artifact(self, run_id: str, name: str) -> Path:
        return self.folder / "mlartifacts" / run_id / "artifacts" / name

    def add(
        self,
        rung: str | Experiment,
        correct: np.ndarray,
        *,
        seed: int = 0,
        history: pd.DataFrame | None = None,
        status: str = "FINISHED",
        dataset: str = "cifar10",
        fingerprint: str = FINGERPRINT,
        profile: str = "full",
        modified: str = "",
        title: str | None = None,
        tags: dict[str, str] | None = None,
        metrics: dict[str, float] | None = None,
        like: str | None = None,
        classes: tuple[str, ...] = CLASSES,
        start: int | None = None,
    ) -> str:
        """Adds a run of ``rung``, which is an experiment or the name of an experiment's file.

        If no file has this name, ``like`` names the file from which the settings are taken.
        """
        if isinstance(rung, str):
            experiment = STUDY.experiment(like or rung)
            if like:  # a run with unchanged settings would count as a run of ``like``
                experiment = change(experiment, {"training": {"learning_rate": 0.0011}}, "like")
        else:
            experiment, rung = rung, rung.name
        history = curve(25, 0.9, 0.85) if history is None else history
        client = self.client
        run = client.create_run(
            self.experiment_id,
            start_time=start,
            run_name=f"{rung} · seed {seed}",
            tags={
                "role": "rung",
                "rung": rung,
                "title": title or experiment.title,
                "seed": str(seed),
                "config_hash": experiment.hash(),
                "dataset": dataset,
                "dataset_fingerprint": fingerprint,
                "profile": profile,
                "modified": modified,
                "git_commit": "c0ffee" * 6 + "c0de",
                "git_dirty": "false",
                "backend": "tensorflow",
                "device": "A processor, 4 cores",
                "threads": "4",
                "instruction_set": "avx2",
                "claims_sha256": "1" * 64,
                "version.keras": "3.15.1",
                "version.python": "3.11.7",
                **(tags or {}),
            },
        )
        run_id = run.info.run_id
        finished = status == "FINISHED"
        summary = {
            "test_accuracy": float(correct.mean()),
            "test_loss": 0.5,
            "stopped_epoch": 0.0,
            "best_epoch": float(len(history)),
            "tested_epoch": float(len(history)),
            "epochs_run": float(len(history)),
            "train_seconds": 61.0 * len(history),
            "parameters": 316_394.0,
            "multiply_adds": 53_980_000.0,
            **(metrics or {}),
        }
        points = [
            Metric(key, float(value), 0, int(epoch))
            for key in history
            for epoch, value in history[key].items()
        ]
        points += [Metric(key, value, 0, 0) for key, value in summary.items() if finished]
        for at in range(0, len(points), 1000):
            client.log_batch(run_id, points[at : at + 1000])
        flat = experiment.flat()
        client.log_batch(run_id, params=[Param(k, json.dumps(v)) for k, v in flat.items()])
        profiled = json.dumps({"features_shape": [50_000, 32, 32, 3]})
        source = json.dumps({"tags": {"source": f"path/of/{dataset}"}})
        data = Dataset(dataset, fingerprint[:32], "code", source, profile=profiled)
        context = [InputTag("mlflow.data.context", "training")]
        client.log_inputs(run_id, [DatasetInput(data, context)])
        if finished:
            self._artifacts(run_id, experiment, correct, classes)
        if status != "RUNNING":
            client.set_terminated(run_id, status)
        return run_id

    def _artifacts(self, run_id, experiment, correct, classes) -> None:
        folder = self.artifact(run_id, "")
        folder.mkdir(parents=True, exist_ok=True)
        frame = predictions(correct, len(classes))
        frame.to_csv(folder / "test_predictions.csv", index=False)
        pd.crosstab(
            pd.Categorical.from_codes(frame["label"], classes),
            pd.Categorical.from_codes(frame["predicted"], classes),
            rownames=["true"],
            colnames=["predicted"],
            dropna=False,
        ).to_csv(folder / "confusion_matrix.csv")
        (folder / "experiment.yaml").write_text(experiment.to_yaml(), encoding="utf-8")
        (folder / "model_summary.txt").write_text("┃ conv2d ┃\n", encoding="utf-8")
        Image.new("RGB", (8 * len(classes),) * 2, "teal").save(folder / "mistakes.png")

    def recorded(self, folder: Path) -> Study:
        """Saves the runs' records to ``folder``; returns a study with ``folder`` as ``results``."""
        store = connect(self.uri)
        for run in records.recordable(store):
            records.save(records.to_record(store, run), folder)
        return STUDY.model_copy(update={"results": folder})

    def tag(self, run_id: str, **tags: str) -> None:
        self.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
