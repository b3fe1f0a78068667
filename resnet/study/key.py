"""What a run is, once: by it runs are found again, told apart, averaged, and named as records."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from resnet.study.schema import Job


@dataclass(frozen=True)
class Key:
    """The tags that say what a run is; its fields are their names."""

    rung: str
    title: str
    seed: str
    config_hash: str
    """Of all settings that shape the result, see :meth:`resnet.study.Experiment.hash`."""
    dataset: str
    dataset_fingerprint: str
    profile: str
    modified: str
    backend: str

    @classmethod
    def of(cls, job: Job, dataset: str, fingerprint: str, backend: str) -> "Key":
        """Makes the key of a job, on a dataset of that name and fingerprint."""
        e = job.experiment
        what = e.name, e.title, str(job.seed), e.hash(), dataset, fingerprint
        return cls(*what, job.profile, job.modified, backend)

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> "Key":
        """Reads a run's tags.

        Raises:
            KeyError: one is missing, which it names.
        """
        return cls(**{name: tags[name] for name in KEYS})

    @property
    def tags(self) -> dict[str, str]:
        """As a run has them."""
        return asdict(self)

    @property
    def same(self) -> dict[str, str]:
        """The tags by which a run is found again; what it is called is not among them."""
        # not the profile or the name: a rung in a profile that changes nothing is the same run
        names = ("config_hash", "dataset_fingerprint", "seed", "backend", "modified")
        return {name: getattr(self, name) for name in names}

    @property
    def digest(self) -> str:
        """A short hash (8 hex digits) of configuration and data."""
        both = self.config_hash + self.dataset_fingerprint
        return hashlib.sha256(both.encode()).hexdigest()[:8]

    @property
    def group(self) -> str:
        """What may be held against each other, in words."""
        return group(self.dataset, self.profile, self.modified)

    def series(self, *further: str) -> dict[str, str]:
        """Makes the tags by which MLflow's UI groups runs, and tells parts of a step apart.

        Args:
            *further: what else keeps it apart.

        Returns:
            ``series``, what may be averaged: one rung of one group, and of one configuration and
            one dataset however they are called (``02_augmentation · digits · quick · 1a2b3c4d``);
            and ``part_of``, of what ``--ablate`` makes the rung that it is a part of.
        """
        rung, part, _ = self.rung.partition("~")
        name = " · ".join((self.rung, self.group, *further, self.digest))
        return {"series": name} | ({"part_of": rung} if part else {})

    @property
    def file(self) -> str:
        """A record's file name: ``01_template-seed0-cifar10-tensorflow-1a2b3c4d.json``."""
        what = (self.rung, f"seed{self.seed}", self.dataset, self.backend, self.digest)
        return re.sub(r"[^\w.-]", "_", "-".join(what)) + ".json"


def group(dataset: str, profile: str, modified: str) -> str:
    """Writes ``digits · quick``; that a profile is the full one is not said."""
    return " · ".join(filter(None, (dataset, profile if profile != "full" else "", modified)))


KEYS = tuple(field.name for field in fields(Key))
GROUP = ("dataset_fingerprint", "profile", "modified")
"""What differs between runs that must never be in one table."""
