"""The options that run, ablate and plan share, and the jobs they ask for."""

import functools
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from resnet import UserError
from resnet.host import addresses, machine
from resnet.host.messages import one_line
from resnet.study import Experiment, Job, Study, ablation, select, sweep

# JSON, pandas and spreadsheets cannot tell larger whole numbers apart
LARGEST_SEED = 2**53 - 1


def value(metavar: str, text: str, default: str | bool = False) -> Any:
    """Returns an option with a value; ``default`` is what the help shows as the default."""
    return typer.Option(help=text, metavar=metavar, show_default=default)


def flag(name: str, text: str) -> Any:
    """Returns an option without a value, whose help shows no type."""
    return typer.Option(name, help=text, metavar="")


Experiments = Annotated[
    Path | None,
    value(
        "DIR",
        "A study: a folder of rungs, baselines, profiles and claims.",
        "experiments, the study that comes with the project",
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


@dataclass(frozen=True)
class Options:
    """The arguments of run, ablate and plan: one field each, from which Typer makes the option.

    Raises:
        UserError: two of the options exclude each other.
    """

    rungs: Annotated[
        str,
        typer.Argument(
            help="all, 4, 1-3 or 2,5; names such as vgg, except for ablate; assumed for ablate: "
            "the alternatives to assumed values.",
            metavar="RUNGS",
        ),
    ]
    data: Annotated[
        str | None,
        value(
            "DATA",
            "cifar10, mnist (downloaded on first use), digits (bundled), or a path: an image "
            "folder train/<class>/*, test/<class>/*, a tar or zip of it, or the official CIFAR-10.",
            "the study's, cifar10",
        ),
    ] = None
    profile: Annotated[
        str, value("NAME", "full, or quick: digits, few epochs, minutes.", default=True)
    ] = "full"
    seeds: Annotated[
        str, typer.Option("--seeds", "--seed", help="One or more: 0-4 or 0,2,5.", metavar="SEEDS")
    ] = "0"
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a value, as in training.epochs=2, or train with each of several, as in "
            "training.epochs=2,5. May be repeated. Keys: see below.",
            metavar="KEY=VALUE",
        ),
    ] = None
    fresh: Annotated[bool, flag("--fresh", "Train again what is finished or begun.")] = False
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Trainings at a time, each in its own process.",
            metavar="N",
            min=1,
            show_default="1; on a cluster as many as fit",
        ),
    ] = None
    lanes: Annotated[
        int | None,
        typer.Option(
            help="Trainings side by side in one program (JAX). A run's bits depend on their "
            "number.",
            metavar="N",
            min=1,
            show_default="on a GPU as many as there are of one program, else 1",
        ),
    ] = None
    ray: Annotated[str | None, value("ADDRESS", "A Ray cluster: auto, or its HOST:PORT.")] = None
    cpus_per_run: Annotated[
        int | None,
        typer.Option(
            help="Threads of a training with TensorFlow. A run's bits depend on their number.",
            metavar="N",
            min=1,
            show_default="as many as this machine has cores",
        ),
    ] = None
    gpus_per_run: Annotated[
        float | None,
        typer.Option(help="GPUs, or a part of one, that a training takes up.", metavar="N", min=0),
    ] = None
    checkpoints: Annotated[
        str | None, value("URL", "Folder or URL (s3://...) of the checkpoints.", "beside the store")
    ] = None
    experiments: Experiments = None
    tracking_uri: TrackingUri = None
    ablate: Annotated[bool, flag("--ablate", "Run or plan every subset of what rungs change.")] = (
        False
    )
    dry_run: Annotated[bool, flag("--dry-run", "Show the plan; train nothing.")] = False
    timing: Annotated[bool, flag("--timing", "Show the plan, and time some steps here.")] = False

    def __post_init__(self) -> None:
        if self.ray and addresses.file_of(addresses.full(self.tracking_uri)):
            raise UserError(
                "--ray: the nodes do not see a file here; give the --tracking-uri of a server"
            )
        if (self.lanes or 1) > 1 and not self.one_process:
            raise UserError(
                "--lanes: does not go with --jobs or --ray, which train in several processes"
            )
        if (gpus := self.gpus_per_run or 0) > 1 and gpus % 1:
            raise UserError(f"--gpus-per-run {gpus:g}: above 1, give a whole number of GPUs")
        if not (setting := os.environ.get("TF_NUM_INTRAOP_THREADS") or "0").isdecimal():
            raise UserError(f"TF_NUM_INTRAOP_THREADS={setting}: set a whole number, or unset it")

    @functools.cached_property
    def study(self) -> Study:
        return Study.open(self.experiments)

    @property
    def dataset(self) -> str:
        """The images' name or path: of ``--data``, else of the profile, else of the study."""
        full = self.profile == "full"
        return self.data or (self.study.images if full else self.study.profile(self.profile).data)

    @property
    def one_process(self) -> bool:
        """Whether every run trains in this process."""
        return not self.ray and (self.jobs or 1) == 1

    @property
    def threads(self) -> int:
        """Threads of a training with TensorFlow, the same on every node of a cluster."""
        setting = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0)
        return self.cpus_per_run or setting or machine.cores()

    def set_backend(self, *, several: bool) -> None:
        """Sets the environment variables that Keras's backends read when they are imported.

        Args:
            several: whether other processes may use the same GPU.
        """
        if several:  # by default the first process takes all of the GPU's memory
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        if self.cpus_per_run or self.ray:
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
                for seed in _parse_seeds(self.seeds)
                for experiment in experiments
            ]
        return [*itertools.chain(*due.values())]

    def _experiments(self, overrides: Sequence[str]) -> list[Experiment]:
        load = functools.partial(self.study.experiment, profile=self.profile, overrides=overrides)
        if self.ablate:
            experiments = ablation.derived(self.rungs, list(self.study.files), load)
        else:
            experiments = [load(name) for name in select(self.rungs, self.study.files)]
        for experiment in experiments:
            ablation.alternatives(experiment)  # raises now if one of them is malformed
        return experiments


def _parse_seeds(text: str) -> list[int]:
    """Reads ``0-4`` or ``0,2,5`` as a list without repeats."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"--seeds {text!r}: write numbers such as 0-4 or 0,2,5")
        low, high = int(first), int(last or first)
        if not low <= high <= min(low + 999, LARGEST_SEED):
            raise UserError(
                f"--seeds {text!r}: {part.strip()!r} is empty, over 1000 seeds, or beyond the "
                f"largest seed, {LARGEST_SEED}"
            )
        seeds |= dict.fromkeys(range(low, high + 1))
    return [*seeds]
