"""Commands that repeat runs and ablations."""

import re
import shlex
from collections.abc import Iterable

from report.analysis import Content, Run
from resnet import DETERMINISM
from resnet.data import NAMED
from resnet.study import Study, short


def ablate_command(content: Content, rung: str, seeds: Iterable[int] = (0,)) -> str:
    """Returns the command that runs a rung with every subset of its changes."""
    run_set = content.run_set
    words = ["ablate", rung, "--seeds", ",".join(map(str, sorted({*seeds})))]
    words += ["--profile", run_set.profile] if run_set.profile != "full" else []
    run = next(iter((*content.runs, *content.derived_runs)), None)
    words += data_option(content.study, run) + bits_options(run) if run else []
    return f"{ladder(run)} {shlex.join([*words, *content.study.options])}"


def data_option(study: Study, run: Run) -> list[str]:
    """Returns the option ``--data`` for a run, or [] for the study's images in the full profile."""
    dataset = run.tags.get("dataset", "")
    full = run.tags.get("profile", "full") in ("full", "")
    if full and dataset == study.dataset and (study.data or dataset in NAMED):
        return []
    return ["--data", dataset if dataset in NAMED else run.source or f"PATH-OF-{dataset}"]


def ladder(run: Run | None = None) -> str:
    """Returns the environment variables and the path of ``ladder`` for a run's backend."""
    name = run.tags.get("backend", "tensorflow") if run else "tensorflow"
    if run is None or name == "tensorflow":
        return ".venv/bin/ladder"
    folder = "gpu" if "NVIDIA" in run.tags.get("device", "") else name
    flags = re.search(r"XLA_FLAGS=(.*)", run.tags.get("instruction_set", ""))
    own = flags and flags[1] != f"{DETERMINISM}=true"
    set_ = f"XLA_FLAGS={shlex.quote(flags[1])} " if flags and own else ""
    return f"{set_}KERAS_BACKEND={shlex.quote(name)} {shlex.quote(f'.venv-{folder}')}/bin/ladder"


def repeatable(run: Run) -> bool:
    """Whether XLA was deterministic, so that the run can be repeated bit for bit."""
    return f"{DETERMINISM}=false" not in run.tags.get("instruction_set", "").lower()


def bits_options(run: Run) -> list[str]:
    """Returns the option for threads or lanes, on which a run's exact results depend."""
    if run.tags.get("backend") == "tensorflow":
        return ["--cpus-per-run", run.tags["threads"]] if "threads" in run.tags else []
    return ["--lanes", run.tags["lanes"]] if run.tags.get("lanes", "1") != "1" else []


def rerun_command(study: Study, run: Run) -> str:
    """Returns the command that repeats a run, bit for bit on a device of the same kind."""
    tags = run.tags
    words = ["run", short(run.rung), "--seed", str(run.seed)]
    profile = tags.get("profile", "full")
    words += ["--profile", profile] if profile not in ("full", "") else []
    words += data_option(study, run) + bits_options(run)
    for override in re.split(r"\s+(?=[\w.]+=)", tags.get("modified", "")):
        words += ["--set", override] if override else []
    return f"{ladder(run)} {shlex.join([*words, *study.options, '--fresh'])}"
