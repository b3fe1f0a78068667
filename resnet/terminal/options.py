"""The options of ``run``, ``ablate`` and ``plan``, and the jobs that these options select."""

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

# JSON readers, pandas and spreadsheets would change the last digits of a larger seed
LARGEST_SEED = 2**53 - 1


def value(metavar: str, text: str, default: str | bool = False, **more: Any) -> Any:
    """Returns an option that takes a value. The help shows ``default`` as the option's default."""
    return typer.Option(help=text, metavar=metavar, show_default=default, **more)


def flag(name: str, text: str) -> Any:
    """Returns an option that takes no value; the help shows no type for it."""
    return typer.Option(name, help=text, metavar="")


Experiments = Annotated[
    Path | None,
    value(
        "DIR",
        "Folder of a study with its rungs, baselines, profiles and claims.",
        "experiments/ in the project's folder",
    ),
]
TrackingUri = Annotated[
    str | None,
    value(
        "URI",
        "Store of the runs: an MLflow server, sqlite:///FILE.db, or another database.",
        "mlflow.db in the project's folder",
        envvar="MLFLOW_TRACKING_URI",
    ),
]


@dataclass(frozen=True)
class Options:
    """The arguments of ``run``, ``ablate`` and ``plan``. Typer makes an option from each field.

    Raises:
        UserError: an option is wrong, or two options exclude each other.
    """

    rungs: Annotated[
        str,
        typer.Argument(
            help="Rungs by number (all, 4, 1-3 or 2,5), or rungs and baselines by name (vgg). With "
            "ablate: rungs by number, or the word 'assumed' for alternatives to assumed values.",
            metavar="RUNGS",
        ),
    ]
    data: Annotated[
        str | None,
        value(
            "DATA",
            "cifar10 or mnist (downloaded on first use), digits (bundled), or a path to CIFAR-10's "
            "official archive or to a folder, tar or zip with train/<class>/* and test/<class>/*.",
            "the dataset of the profile or of the study",
        ),
    ] = None
    profile: Annotated[
        str, value("NAME", "'full', or 'quick' for small images and few epochs.", default=True)
    ] = "full"
    seeds: Annotated[
        str, typer.Option("--seeds", "--seed", help="Seeds, as in 0-4 or 0,2,5.", metavar="SEEDS")
    ] = "0"
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting. training.epochs=2 trains with this value, and "
            "training.epochs=2,5 trains once with each value. May be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None
    fresh: Annotated[bool, flag("--fresh", "Retrain finished and interrupted runs.")] = False
    jobs: Annotated[
        int | None,
        value(
            "N",
            "Number of runs that train at the same time, each in its own process.",
            "1; on a cluster, as many as fit",
            min=1,
        ),
    ] = None
    lanes: Annotated[
        int | None,
        value(
            "N",
            "Number of runs that train side by side in one JAX program. A run's exact results "
            "depend on this number.",
            "1; on a GPU, all runs that can share a program",
            min=1,
        ),
    ] = None
    ray: Annotated[str | None, value("ADDRESS", "Use a Ray cluster: 'auto' or HOST:PORT.")] = None
    cpus_per_run: Annotated[
        int | None,
        value(
            "N",
            "Number of TensorFlow threads per run. A run's exact results depend on this number.",
            "the number of cores of this machine",
            min=1,
        ),
    ] = None
    gpus_per_run: Annotated[
        float | None, value("N", "Number of GPUs per run; a fraction lets runs share a GPU.", min=0)
    ] = None
    checkpoints: Annotated[
        str | None, value("URL", "Folder or URL (s3://...) of the checkpoints.", "beside the store")
    ] = None
    experiments: Experiments = None
    tracking_uri: TrackingUri = None
    ablate: Annotated[bool, flag("--ablate", "Train rungs with subsets of their changes.")] = False
    dry_run: Annotated[bool, flag("--dry-run", "Show the plan; train nothing.")] = False
    timing: Annotated[bool, flag("--timing", "Show the plan with times measured now.")] = False

    def __post_init__(self) -> None:
        if self.ray and addresses.file_of(addresses.full(self.tracking_uri)):
            raise UserError("--ray: needs a store on a server; name the server with --tracking-uri")
        if (self.lanes or 1) > 1 and not self.one_process:
            raise UserError("--lanes: cannot be combined with --jobs or --ray; give only one")
        if (gpus := self.gpus_per_run or 0) > 1 and gpus % 1:
            raise UserError(f"--gpus-per-run {gpus:g}: above 1, give a whole number of GPUs")
        if not (setting := os.environ.get("TF_NUM_INTRAOP_THREADS") or "0").isdecimal():
            raise UserError(f"TF_NUM_INTRAOP_THREADS={setting}: set a whole number or no value")

    @functools.cached_property
    def study(self) -> Study:
        return Study.open(self.experiments)

    @property
    def dataset(self) -> str:
        """The name or path of the images, from ``--data``, the profile or the study."""
        full = self.profile == "full"
        return self.data or (self.study.images if full else self.study.profile(self.profile).data)

    @property
    def one_process(self) -> bool:
        return not self.ray and (self.jobs or 1) == 1

    @property
    def threads(self) -> int:
        """The number of TensorFlow threads per run, the same on every node of a cluster."""
        setting = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0)
        return self.cpus_per_run or setting or machine.cores()

    def set_backend(self, *, several: bool) -> None:
        """Sets the environment variables that Keras's backends read on import.

        ``several`` is True if several processes may use the same GPU.
        """
        if several:  # by default the first process would take all of the GPU's memory
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        if self.cpus_per_run or self.ray:
            os.environ["TF_NUM_INTRAOP_THREADS"] = str(self.threads)

    def due(self) -> list[Job]:
        """Returns the jobs, grouped by combination of ``--set`` values, and in each group by seed.

        Raises:
            UserError: a rung does not exist, or a file is malformed.
        """
        self.study.check_names()
        lists = [sweep(text) for text in self.set_ or []]
        due: dict[str, list[Job]] = {}
        for overrides in itertools.product(*lists):
            # if a key is set twice, the last value counts; the order of the keys does not matter
            last = {text.partition("=")[0]: text for text in overrides}.values()
            modified = " ".join(sorted(last))
            swept = [t for t, values in zip(overrides, lists, strict=True) if values[1:]]
            # tables are narrow, so labels omit the section of a key, such as ``training.``
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
            ablation.alternatives(experiment)  # malformed alternatives raise an error here
        return experiments


def _parse_seeds(text: str) -> list[int]:
    seeds: dict[int, None] = {}
    for part in map(str.strip, text.split(",")):
        if not (span := re.fullmatch(r"(\d+)(?:-(\d+))?", part)):
            raise UserError(f"--seeds {text!r}: write numbers such as 0-4 or 0,2,5")
        low, high = int(span[1]), int(span[2] or span[1])
        if not low <= high <= min(low + 999, LARGEST_SEED):
            raise UserError(
                f"--seeds {text!r}: {part!r} must be in ascending order, with at most 1000 seeds, "
                f"none above {LARGEST_SEED}"
            )
        seeds |= dict.fromkeys(range(low, high + 1))
    return [*seeds]
