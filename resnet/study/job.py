"""Jobs, and the keys that identify their runs."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from resnet.study.schema import Experiment


@dataclass(frozen=True)
class Job:
    """An experiment that is to be trained with a given seed."""

    experiment: Experiment
    seed: int
    profile: str = "full"
    modified: str = ""  # the --set overrides
    varied: str = field(default="", compare=False)  # the overrides that vary in a sweep

    @property
    def row(self) -> str:  # the same for all seeds of an experiment
        return f"{self.experiment.name} {self.varied}".rstrip()

    @property
    def title(self) -> str:  # "+ augmentation · batch_size=16"
        return " · ".join(filter(None, (self.experiment.title, self.varied)))

    @property
    def label(self) -> str:  # "2 + augmentation · batch_size=16"
        return " · ".join(filter(None, (self.experiment.label, self.varied)))

    def trajectory(self) -> tuple[str, int]:
        return self.experiment.trajectory(), self.seed


@dataclass(frozen=True)
class Key:
    """The tags that identify a run. Each field has the name of its tag."""

    rung: str
    title: str
    seed: str
    config_hash: str  # from Experiment.hash
    dataset: str
    dataset_fingerprint: str
    profile: str
    modified: str
    backend: str

    @classmethod
    def of(cls, job: Job, dataset: str, fingerprint: str, backend: str) -> "Key":
        e = job.experiment
        of_experiment = e.name, e.title, str(job.seed), e.hash()
        return cls(*of_experiment, dataset, fingerprint, job.profile, job.modified, backend)

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> "Key":
        return cls(**{name: tags[name] for name in KEYS})

    @property
    def tags(self) -> dict[str, str]:
        return asdict(self)

    @property
    def same(self) -> dict[str, str]:
        """The tags by which a search finds an existing run of the key's job."""
        # Names do not affect results, so the names of the rung and the profile are left out.
        names = ("config_hash", "dataset_fingerprint", "seed", "backend", "modified")
        return {name: getattr(self, name) for name in names}

    @property
    def digest(self) -> str:
        """A short hash (8 hex digits) of the settings and the images."""
        both = self.config_hash + self.dataset_fingerprint
        return hashlib.sha256(both.encode()).hexdigest()[:8]

    @property
    def group(self) -> str:
        return group(self.dataset, self.profile, self.modified)

    def series(self) -> dict[str, str]:
        """Returns the tags by which MLflow's UI groups and filters runs.

        Runs that may be averaged share a ``series`` like ``02_augmentation · digits · 1a2b3c4d``.
        ``part_of`` names the rung from which ``ladder ablate`` derived the experiment.
        """
        rung, part, _ = self.rung.partition("~")
        name = " · ".join((self.rung, self.group, self.digest))
        return {"series": name} | ({"part_of": rung} if part else {})

    @property
    def file(self) -> str:
        """The record's file name, such as ``01_template-seed0-mnist-tensorflow-1a2b3c4d.json``."""
        words = self.rung, f"seed{self.seed}", self.dataset, self.backend, self.digest
        return re.sub(r"[^\w.-]", "_", "-".join(words)) + ".json"


def group(dataset: str, profile: str, modified: str) -> str:
    """Returns a name like ``digits · quick`` for comparable runs. It omits the profile ``full``."""
    return " · ".join(filter(None, (dataset, profile if profile != "full" else "", modified)))


KEYS = tuple(field.name for field in fields(Key))
GROUP = ("dataset_fingerprint", "profile", "modified")  # tags that all runs in a table share
