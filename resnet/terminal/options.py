"""The options that run, ablate and plan share, and the jobs they ask for."""

import functools
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from resnet import UserError
from resnet.host import addresses, machine
from resnet.host.messages import one_line
from resnet.study import Experiment, Job, Study, ablation, select, sweep

LARGEST_SEED = 2**53 - 1
"""JSON, pandas and spreadsheets cannot tell larger whole numbers apart."""


def flag(name: str, text: str) -> typer.models.OptionInfo:
    """Returns an option without a value, whose help shows no type."""
    return typer.Option(name, help=text, metavar="")


Experiments = Annotated[
    Path | None,
    typer.Option(
        "--experiments",
        help="A study: a folder of rungs, baselines, profiles and claims.",
        metavar="DIR",
        show_default="experiments, the study that comes with the project",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="MLflow tracking store.",
        metavar="URI",
        envvar="MLFLOW_TRACKING_URI",
        show_default="mlflow.db at the project's top",
    ),
]
Rungs = Annotated[
    str,
    typer.Argument(
        help="all, 4, 1-3 or 2,5; names such as vgg, except for ablate; assumed for ablate: the "
        "alternatives to assumed values.",
        metavar="RUNGS",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="cifar10, mnist (downloaded on first use), digits (bundled), or a path: an image "
        "folder train/<class>/*, test/<class>/*, a tar or zip of it, or the official CIFAR-10.",
        metavar="DATA",
        show_default="the study's, cifar10",
    ),
]
Profile = Annotated[
    str, typer.Option(help="full, or quick: digits, few epochs, minutes.", metavar="NAME")
]
Seed = Annotated[
    int | None,
    typer.Option(help="One seed.", metavar="N", min=0, max=LARGEST_SEED, show_default="0"),
]
Seeds = Annotated[str | None, typer.Option(help="Several seeds: 0-4 or 0,2,5.", metavar="SEEDS")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a value, as in training.epochs=2, or train with each of several, as in "
        "training.epochs=2,5. May be repeated. Keys: see below.",
        metavar="KEY=VALUE",
    ),
]
Fresh = Annotated[bool, flag("--fresh", "Train again what is finished or begun.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        help="Trainings at a time, each in its own process.",
        metavar="N",
        min=1,
        show_default="1; on a cluster as many as fit",
    ),
]
Lanes = Annotated[
    int | None,
    typer.Option(
        help="Trainings side by side in one program (JAX). A run's bits depend on their number.",
        metavar="N",
        min=1,
        show_default="on a GPU as many as there are of one program, else 1",
    ),
]
Ray = Annotated[
    str | None, typer.Option(help="A Ray cluster: auto, or its HOST:PORT.", metavar="ADDRESS")
]
CpusPerRun = Annotated[
    int | None,
    typer.Option(
        help="Threads of a training with TensorFlow. A run's bits depend on their number.",
        metavar="N",
        min=1,
        show_default="as many as this machine has cores",
    ),
]
GpusPerRun = Annotated[
    float | None,
    typer.Option(help="GPUs, or a part of one, that a training takes up.", metavar="N", min=0),
]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        help="Folder or URL (s3://...) of the checkpoints.",
        metavar="URL",
        show_default="beside the store",
    ),
]
Ablate = Annotated[bool, flag("--ablate", "Run or plan every subset of what rungs change.")]
DryRun = Annotated[bool, flag("--dry-run", "Show the plan; train nothing.")]
Timing = Annotated[bool, flag("--timing", "Show the plan, and time some steps here.")]


@dataclass(frozen=True)
class Options:
    """The options of run, ablate and plan.

    Raises:
        UserError: two of the options exclude each other.
    """

    rungs: str
    data: str | None = None
    profile: str = "full"
    seed: int | None = None
    seeds: str | None = None
    set_: list[str] | None = None
    fresh: bool = False
    jobs: int | None = None
    lanes: int | None = None
    ray: str | None = None
    cpus_per_run: int | None = None
    gpus_per_run: float | None = None
    checkpoints: str | None = None
    experiments: Path | None = None
    tracking_uri: str | None = None
    ablate: bool = False
    dry_run: bool = False
    timing: bool = False

    def __post_init__(self) -> None:
        if self.seed is not None and self.seeds is not None:
            raise UserError("--seed and --seeds: give one of them")
        if self.ray and addresses.file_of(addresses.full(self.tracking_uri)):
            raise UserError(
                "--ray: the nodes do not see a file here; give the --tracking-uri of a server"
            )
        if (self.lanes or 1) > 1 and not self.one_process:
            raise UserError(
                "--lanes: does not go with --jobs or --ray, which train in several processes"
            )
        gpus = self.gpus_per_run
        if gpus and gpus > 1 and gpus % 1:
            raise UserError(f"--gpus-per-run {gpus:g}: give a whole number, or one below 1")

    @functools.cached_property
    def study(self) -> Study:
        return Study.open(self.experiments)

    @property
    def dataset(self) -> str:
        """The images' name or path: of ``--data``, else of the profile, else of the study."""
        full = self.profile == "full"
        return self.data or (self.study.images if full else self.study.profile(self.profile).data)

    @property
    def all_seeds(self) -> list[int]:
        return parse_seeds(self.seeds) if self.seeds is not None else [self.seed or 0]

    @property
    def one_process(self) -> bool:
        """Whether every run trains in this process."""
        return not self.ray and (self.jobs or 1) == 1

    @property
    def threads(self) -> int:
        """Threads of a training with TensorFlow, the same on every node of a cluster."""
        setting = os.environ.get("TF_NUM_INTRAOP_THREADS") or "0"
        if not setting.isdecimal():
            raise UserError(f"TF_NUM_INTRAOP_THREADS is {setting!r}: give a number, or unset it")
        return self.cpus_per_run or int(setting) or machine.cores()

    def set_backend(self, *, several: bool) -> None:
        """Sets the environment variables that Keras's backends read when they are imported.

        Args:
            several: whether other processes may use the same GPU.
        """
        if several:  # by default the first process takes all of the GPU's memory
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        if self.threads and (self.cpus_per_run or self.ray):
            os.environ["TF_NUM_INTRAOP_THREADS"] = str(self.threads)

    def due(self) -> list[Job]:
        """Returns the jobs in order; a sweep yields the jobs of each value's own command.

        Raises:
            UserError: there is no such rung, or a file is malformed.
        """
        self.study.check_names()
        lists = [sweep(text) for text in self.set_ or []]
        due: dict[str, list[Job]] = {}
        for overrides in itertools.product(*lists):
            # the order of the keys does not matter; of two values of a key the last counts
            last = {text.partition("=")[0]: text for text in overrides}.values()
            modified = " ".join(sorted(last))
            swept = [t for t, values in zip(overrides, lists, strict=True) if values[1:]]
            # without the section (training.), since tables are narrow
            varied = " ".join(re.sub(r"^\w+\.", "", text) for text in swept if text in last)
            experiments = self._experiments(overrides)
            due[modified] = [
                Job(experiment, seed, self.profile, modified, one_line(varied))
                for seed in self.all_seeds
                for experiment in experiments
            ]
        return [*itertools.chain(*due.values())]

    def _experiments(self, overrides: Sequence[str]) -> list[Experiment]:
        def load(name: str) -> Experiment:
            return self.study.experiment(name, self.profile, overrides)

        if self.ablate:
            experiments = ablation.derived(self.rungs, list(self.study.files), load)
        else:
            experiments = [load(name) for name in select(self.rungs, self.study.files)]
        for experiment in experiments:
            ablation.alternatives(experiment)  # raises now if one of them is malformed
        return experiments


def parse_seeds(text: str) -> list[int]:
    """Reads ``0-4`` or ``0,2,5`` as a list without repeats."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 40:
            raise UserError(f"--seeds {text!r}: write numbers such as 0-4 or 0,2,5")
        span = range(int(first), int(last or first) + 1)
        if not 0 < len(span) <= 1000 or span[-1] > LARGEST_SEED:
            raise UserError(
                f"--seeds {text!r}: {part.strip()!r} is empty, over 1000 seeds, or beyond the "
                f"largest seed, {LARGEST_SEED}"
            )
        seeds |= dict.fromkeys(span)
    return [*seeds]
