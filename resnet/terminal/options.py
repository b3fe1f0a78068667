"""The options of whatever trains, said once: what is to be run, on which images, where and how."""

import functools
import inspect
import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from resnet import UserError
from resnet.host import addresses, machine
from resnet.host.shell import one_line
from resnet.study import Experiment, Job, Study, ablation, select, sweep
from resnet.terminal.console import flag

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
Seeds = Annotated[str | None, typer.Option(help="Several seeds: 0-4 or 0,2,5.", metavar="SEEDS")]


LARGEST_SEED = 2**53 - 1
"""Beyond it numbers of pandas, JSON and spreadsheets take two seeds for one."""


@dataclass(frozen=True)
class Options:
    """What ``run``, ``ablate`` and ``plan`` are given beside the rungs."""

    data: Annotated[
        str | None,
        typer.Option(
            help="cifar10, mnist (downloaded on first use), digits (bundled), or a path: an image "
            "folder train/<class>/*, test/<class>/*, a tar or zip of it, or the official CIFAR-10.",
            metavar="DATA",
            show_default="the study's, cifar10",
        ),
    ] = None
    profile: Annotated[
        str, typer.Option(help="full, or quick: digits, few epochs, minutes.", metavar="NAME")
    ] = "full"
    seed: Annotated[
        int | None,
        typer.Option(help="One seed.", metavar="N", min=0, max=LARGEST_SEED, show_default="0"),
    ] = None
    seeds: Seeds = None
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a value, as in training.epochs=2, or train with each of several, as in "
            "training.epochs=2,5; may be repeated. Keys: see below.",
            metavar="KEY=VALUE",
        ),
    ] = None
    fresh: Annotated[bool, flag("--fresh", "Begin anew what is finished or begun.")] = False
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            help="Trainings at a time, each in its own process.",
            metavar="N",
            min=1,
            show_default="1; on a cluster as many as fit",
        ),
    ] = None
    lanes: Annotated[
        int | None,
        typer.Option(
            help="Trainings side by side in one program (JAX), on which their bits depend.",
            metavar="N",
            min=1,
            show_default="on a GPU as many as there are of one program, else 1",
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: auto, or its HOST:PORT.", metavar="ADDRESS"),
    ] = None
    cpus_per_run: Annotated[
        int | None,
        typer.Option(
            help="Threads of a training with TensorFlow, on which its bits depend.",
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
        str | None,
        typer.Option(
            help="Folder or URL (s3://...) of the checkpoints.",
            metavar="URL",
            show_default="beside the store",
        ),
    ] = None
    experiments: Experiments = None
    tracking_uri: TrackingUri = None

    @functools.cached_property
    def study(self) -> Study:
        """The study asked for."""
        return Study.open(self.experiments)

    @property
    def dataset(self) -> str:
        """What ``--data`` says, or the profile, or the study."""
        full = self.profile == "full"
        return self.data or (self.study.images if full else self.study.profile(self.profile).data)

    @property
    def seeds_asked(self) -> list[int]:
        """The seeds, without repeats."""
        return parse_seeds(self.seeds) if self.seeds is not None else [self.seed or 0]

    @property
    def one_process(self) -> bool:
        """Whether everything trains in this process, if it may not be a plan."""
        return not self.ray and (self.jobs or 1) == 1

    @property
    def threads(self) -> int:
        """Of a training with TensorFlow, the same on every node of a cluster, whatever it has."""
        setting = os.environ.get("TF_NUM_INTRAOP_THREADS") or "0"
        if not setting.isdecimal():
            raise UserError(f"TF_NUM_INTRAOP_THREADS is {setting!r}: give a number, or unset it")
        return self.cpus_per_run or int(setting) or machine.cores()

    def set_backend(self, *, several: bool) -> None:
        """Sets what Keras's backends read when they are imported.

        Args:
            several: whether other processes may be at the same GPU.
        """
        if several:  # which they can only if none takes all of its memory
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        if self.threads and (self.cpus_per_run or self.ray):
            os.environ["TF_NUM_INTRAOP_THREADS"] = str(self.threads)

    def check(self) -> None:
        """Refuses what does not go together.

        Raises:
            UserError: it says what.
        """
        if self.seed is not None and self.seeds is not None:
            raise UserError("--seed and --seeds: give one of them")
        if self.ray and addresses.file_of(addresses.full(self.tracking_uri)):
            raise UserError(
                "--ray: the nodes do not see a file here; give the --tracking-uri of a server"
            )
        if (self.lanes or 1) > 1 and not self.one_process:
            raise UserError("--lanes: does not go with --jobs or --ray, whose trainings are apart")
        gpus = self.gpus_per_run
        if gpus and gpus > 1 and gpus % 1:
            raise UserError(f"--gpus-per-run {gpus:g}: beyond one only whole ones")

    def due(self, rungs: str, *, apart: bool) -> list[Job]:
        """Resolves what is to be trained: of a sweep, what each value's own command would train.

        Args:
            rungs: as ``run`` takes them, or ``ablate``.
            apart: every subset of what they change.

        Raises:
            UserError: there is no such rung, or a file is malformed.
        """
        self.study.check_names()
        lists = [sweep(text) for text in self.set_ or []]
        due: dict[str, list[Job]] = {}
        for overrides in itertools.product(*lists):
            # in whatever order, the same; of two values of a key the last counts
            last = {text.partition("=")[0]: text for text in overrides}.values()
            modified = " ".join(sorted(last))
            swept = [t for t, values in zip(overrides, lists, strict=True) if values[1:]]
            # without the section (training.), since tables are narrow
            varied = " ".join(re.sub(r"^\w+\.", "", text) for text in swept if text in last)
            experiments = self._experiments(rungs, overrides, apart=apart)
            due[modified] = [
                Job(experiment, seed, self.profile, modified, one_line(varied))
                for seed in self.seeds_asked
                for experiment in experiments
            ]
        return [*itertools.chain(*due.values())]

    def _experiments(
        self, rungs: str, overrides: Sequence[str], *, apart: bool
    ) -> list[Experiment]:
        def load(name: str) -> Experiment:
            return self.study.experiment(name, self.profile, overrides)

        if apart:
            experiments = ablation.derived(rungs, list(self.study.files), load)
        else:
            experiments = [load(name) for name in select(rungs, self.study.files)]
        for experiment in experiments:
            ablation.alternatives(experiment)  # a mistake in them is told now
        return experiments


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command :class:`Options`, which Typer sees as options of its own.

    Args:
        command: takes ``options``, and whatever else it takes.
    """
    hints = get_type_hints(Options, include_extras=True)
    own = inspect.signature(command).parameters
    shared = [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[f.name], default=f.default
        )
        for f in fields(Options)
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = Options(**{f.name: given.pop(f.name) for f in fields(Options)})
        options.check()
        command(options=options, **given)

    mine = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in own.values()
        if parameter.name != "options"
    ]
    run.__signature__ = inspect.Signature([*mine, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*mine, *shared)}
    return run


def parse_seeds(text: str) -> list[int]:
    """Reads ``0-4`` or ``0,2,5`` as a list without repeats."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)) or len(part) > 20:
            raise UserError(f"--seeds {text!r}: write numbers such as 0-4 or 0,2,5")
        span = range(int(first), int(last or first) + 1)
        if not 0 < len(span) <= 1000:
            raise UserError(f"--seeds {text!r}: {part.strip()!r} is empty or over 1000 seeds")
        if span[-1] > LARGEST_SEED:
            raise UserError(f"--seeds {text!r}: the largest seed is {LARGEST_SEED}")
        seeds.extend(seed for seed in span if seed not in seeds)
    return seeds
