"""Commands that make runs, or a report, again."""

import re
import shlex
from collections.abc import Iterable

from report.analysis import Content, Run
from resnet import DETERMINISM
from resnet.data import NAMED
from resnet.host.addresses import DEFAULT_URI
from resnet.host.shell import hide
from resnet.study import Study, short


def ablate_command(content: Content, what: str, seeds: Iterable[int] = (0,)) -> str:
    """Writes the command that makes runs of the ladder's parts."""
    run_set = content.run_set
    chosen = ",".join(map(str, sorted({*seeds})))
    words = ["ablate", what, "--seeds", chosen]
    words += ["--profile", run_set.profile] if run_set.profile != "full" else []
    some = next(iter((*content.runs, *content.parts)), None)
    words += data_option(content.study, some) + bits_options(some) if some else []
    return f"{ladder(some)} {shlex.join([*words, *content.study.options])}"


def data_option(study: Study, run: Run) -> list[str]:
    """Returns the runner's option for a run's images; none if they are the study's own."""
    dataset = run.tags.get("dataset", "")
    full = run.tags.get("profile", "full") in ("full", "")
    if full and dataset == study.dataset and (study.data or dataset in NAMED):
        return []
    return ["--data", dataset if dataset in NAMED else run.source or f"PATH-OF-{dataset}"]


def ladder(run: Run | None = None) -> str:
    """Returns what a command begins with, in the Makefile's environment for a run's backend."""
    name = run.tags.get("backend", "tensorflow") if run else "tensorflow"
    folder = "gpu" if run and "NVIDIA" in run.tags.get("device", "") else name
    if name == "tensorflow":
        return ".venv/bin/ladder"
    flags = re.search(r"XLA_FLAGS=(.*)", run.tags.get("instruction_set", "")) if run else None
    own = flags[1] if flags and flags[1] != f"{DETERMINISM}=true" else ""
    set_ = f"XLA_FLAGS={shlex.quote(own)} " if own else ""
    return f"{set_}KERAS_BACKEND={shlex.quote(name)} {shlex.quote(f'.venv-{folder}')}/bin/ladder"


def repeatable(run: Run) -> bool:
    """Says whether nothing kept a run's device from computing it bit for bit."""
    return f"{DETERMINISM}=false" not in run.tags.get("instruction_set", "").lower()


def bits_options(run: Run) -> list[str]:
    """Returns the runner's options for what a run's bits depend on and can be chosen."""
    if run.tags.get("backend") == "tensorflow":
        return ["--cpus-per-run", run.tags["threads"]] if "threads" in run.tags else []
    return ["--lanes", run.tags["lanes"]] if run.tags.get("lanes", "1") != "1" else []


def rerun_command(study: Study, run: Run) -> str:
    """Writes the command that repeats a run; bit for bit on a like device if it can be."""
    tags = run.tags
    words = ["run", short(run.rung), "--seed", str(run.seed)]
    profile = tags.get("profile", "full")
    if profile not in ("full", ""):
        words += ["--profile", profile]
    words += data_option(study, run) + bits_options(run)
    for override in re.split(r"\s+(?=[\w.]+=)", tags.get("modified", "")):
        words += ["--set", override] if override else []
    return f"{ladder(run)} {shlex.join([*words, *study.options, '--fresh'])}"


def report_command(content: Content) -> str:
    """Writes the command that makes this report again."""
    run_set = content.run_set
    words = ["report", "--dataset", run_set.fingerprint[:12] or run_set.dataset]
    words += ["--profile", run_set.profile, "--modified", run_set.modified]
    words += ["--recorded" if run_set.recorded else "--own"]
    for other in content.compared:
        words += ["--compare", other.run_set.label]
    words += ["--tracking-uri", hide(content.uri)] if content.uri != DEFAULT_URI else []
    return f"{ladder()} {shlex.join([*words, *content.study.options])}"
