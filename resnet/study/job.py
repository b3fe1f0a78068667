"""A job to train, and the key by which its run is found again, averaged, and named as a record."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from resnet.study.schema import Experiment


@dataclass(frozen=True)
class Job:
    """One experiment with one seed, to be trained."""

    experiment: Experiment
    seed: int
    profile: str = "full"
    modified: str = ""
    """The ``--set`` overrides."""
    varied: str = field(default="", compare=False)
    """The overrides in which the jobs of a sweep differ: ``batch_size=16``."""

    @property
    def row(self) -> str:  # what the seeds of an experiment share in a command
        return f"{self.experiment.name} {self.varied}".rstrip()

    @property
    def title(self) -> str:  # "+ augmentation · batch_size=16"
        return " · ".join(filter(None, (self.experiment.title, self.varied)))

    @property
    def label(self) -> str:  # "2 + augmentation · batch_size=16"
        return " · ".join(filter(None, (self.experiment.label, self.varied)))

    def trajectory(self) -> tuple[str, int]:
        # jobs that share it share checkpoints, and no two of them train at a time
        return self.experiment.trajectory(), self.seed


@dataclass(frozen=True)
class Key:
    """The tags that say what a run is; the fields are the tags' names."""

    rung: str
    title: str
    seed: str
    config_hash: str
    """:meth:`resnet.study.Experiment.hash`."""
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
        """The tags by which a run is found again."""
        # without profile and name: a rung in a profile that changes nothing is the same run
        names = ("config_hash", "dataset_fingerprint", "seed", "backend", "modified")
        return {name: getattr(self, name) for name in names}

    @property
    def digest(self) -> str:
        """A short hash (8 hex digits) of configuration and data."""
        both = self.config_hash + self.dataset_fingerprint
        return hashlib.sha256(both.encode()).hexdigest()[:8]

    @property
    def group(self) -> str:
        return group(self.dataset, self.profile, self.modified)

    def series(self) -> dict[str, str]:
        """Returns the tags by which MLflow's UI groups runs that may be averaged.

        ``series`` is ``02_augmentation · digits · quick · 1a2b3c4d``; ``part_of`` is the rung of an
        experiment that ``ablate`` makes.
        """
        rung, part, _ = self.rung.partition("~")
        name = " · ".join((self.rung, self.group, self.digest))
        return {"series": name} | ({"part_of": rung} if part else {})

    @property
    def file(self) -> str:
        """A record's file name: ``01_template-seed0-cifar10-tensorflow-1a2b3c4d.json``."""
        words = self.rung, f"seed{self.seed}", self.dataset, self.backend, self.digest
        return re.sub(r"[^\w.-]", "_", "-".join(words)) + ".json"


def group(dataset: str, profile: str, modified: str) -> str:
    """Writes what comparable runs share: ``digits · quick``; the full profile is left out."""
    return " · ".join(filter(None, (dataset, profile if profile != "full" else "", modified)))


KEYS = tuple(field.name for field in fields(Key))
GROUP = ("dataset_fingerprint", "profile", "modified")
"""The tags that runs of one table share."""
