"""The report's tables, each once as a reader sees it and once as plain numbers.

``shown`` becomes HTML, Markdown and LaTeX, ``raw`` becomes CSV with every digit.
"""

import html
import json
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from report.analysis import STATED_DEVIATIONS, Content, Step, class_accuracy
from report.claims import QUANTITIES, Bound, Judgement
from report.runs import Run
from report.selection import state

NONE = "-"

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # at the start of a row it would belong to the line break before it
        "†": r"\dag{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


class Chip(str):
    """A verdict; the page colours it."""


class Ids(str):
    """Run ids, separated by blanks; the page links them to their rows under Provenance."""


@dataclass(frozen=True)
class Table:
    """A table under one file name; ``shown`` holds text, ``raw`` the numbers behind it."""

    name: str
    caption: str
    shown: pd.DataFrame
    raw: pd.DataFrame


def percent(value: float) -> str:
    """0.7231 as ``72.3 %``."""
    return NONE if math.isnan(value) else f"{100 * value:.1f} %"


def points(value: float) -> str:
    """0.0051 as ``+0.5``: a difference of accuracies in points."""
    return NONE if math.isnan(value) else f"{100 * value:+z.1f}"


def span(interval: tuple[float, float], form: Callable[[float], str]) -> str:
    """``71.4 to 73.2 %``; a dash where there is no interval, or it is a point."""
    low, high = interval
    if math.isnan(low) or low == high:
        return NONE
    start, end = form(low), form(high)
    if start.startswith("epoch "):
        return f"{start} to {end.removeprefix('epoch ')}"
    return f"{start.partition(' ')[0]} to {end}"


def p_value(p: float) -> str:
    """Two significant digits, ``< 0.0001`` below that."""
    return NONE if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def duration(seconds: float) -> str:
    """``3 h 05 min``, ``4 min 12 s`` or ``8 s``."""
    if math.isnan(seconds):
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def measured(value: float, unit: str) -> str:
    """A quantity with its unit; infinity is "never"."""
    if math.isnan(value):
        return NONE
    if math.isinf(value) or (unit == "epoch" and value == 0):
        return "never"
    if unit == "accuracy":
        return percent(value)
    if unit == "points":
        return f"{points(value)} points"
    return f"{value:.3g}" if unit == "ratio" else f"epoch {value:g}"


def bound(limits: Bound, unit: str) -> str:
    """``at least 80.0 %``, ``83.0 % to 87.0 %``."""
    if unit == "epoch" and limits.max == 0:
        return "never"
    if limits.min is None:
        return f"at most {measured(limits.max, unit)}"
    if limits.max is None:
        return f"at least {measured(limits.min, unit)}"
    return span((limits.min, limits.max), lambda value: measured(value, unit))


def _number(value: float, form: str = ",.0f") -> str:
    return NONE if math.isnan(value) else format(value, form)


def whole(values: list[float]) -> str:
    """Epochs run: one number, or from the least to the most."""
    if not values:
        return NONE
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _table(name: str, caption: str, shown: list[dict], raw: list[dict] | None = None) -> Table:
    frame = pd.DataFrame(shown, dtype=object)
    return Table(name, caption, frame, frame if raw is None else pd.DataFrame(raw))


def all_tables(content: Content) -> dict[str, Table]:
    """Every table of the report by name."""
    made = [
        progression(content),
        judged(content),
        *(
            comparison(name, caption, content, steps)
            for name, caption, steps in (
                ("steps", "Neighbouring rungs on the same test images", content.steps),
                ("residual_vs_vgg", "The last rung against the baseline", content.rivals),
            )
        ),
        power(content),
        systems(content),
        classes(content),
        assumptions(content),
        contradictions(content),
        provenance(content),
        unfinished(content),
        environment(content),
    ]
    return {table.name: table for table in made}


def published_heading(content: Content) -> str:
    """The published column's heading; it says so where the data are not CIFAR-10's."""
    return "published (CIFAR-10) †" if content.selection.shown.reservation else "published"


def progression(content: Content) -> Table:
    """Rung by rung: what changed, published, reproduced, verdict, cost."""
    shown, raw = [], []
    for s in content.systems:
        difference = s.accuracy - s.published
        parameters, operations = s.mean("parameters"), s.mean("multiply_adds")
        seconds = s.mean("train_seconds")
        shown.append(
            {
                "rung": f"{s.name}\n{s.title}",
                "what changed": "\n".join(s.changes) or NONE,
                published_heading(content): percent(s.published),
                "reproduced": percent(s.accuracy) if s.runs else s.waiting,
                "95 % interval": f"{span(s.interval, percent)}\n{s.basis}" if s.runs else NONE,
                "difference": points(difference),
                "verdict": Chip(s.verdict),
                "size": f"{_number(parameters)} parameters\n{operations / 1e6:.2f} M multiply-adds"
                if parameters + operations > 0
                else NONE,
                "training": f"{whole(s.epochs)} epochs\n{duration(seconds)}" if s.epochs else NONE,
            }
        )
        raw.append(
            {
                "rung": s.name,
                "title": s.title,
                "what_changed": "; ".join(s.changes),
                "published": s.published,
                "reproduced": s.accuracy,
                "low": s.interval[0],
                "high": s.interval[1],
                "evidence": s.basis,
                "seeds": len(s.accuracies),
                "difference": difference,
                "verdict": s.verdict,
                "parameters": parameters,
                "multiply_adds": operations,
                "epochs_run": s.mean("epochs_run"),
                "train_seconds": seconds,
            }
        )
    return _table("progression", "Published and reproduced test accuracy", shown, raw)


def judged(content: Content) -> Table:
    """The claims with verdict, value, bound and evidence."""
    return _table(
        "claims",
        "The study's claims, judged",
        [
            {
                "claim": f"{j.claim.id}\n{j.claim.rung}",
                "verdict": Chip(j.verdict),
                "the study says": j.claim.text,
                "measured": measured(j.value, j.unit),
                "95 % interval": span((j.low, j.high), lambda x, u=j.unit: measured(x, u)),
                "holds if": bound(j.claim.bound, j.unit),
                "quantity": QUANTITIES[j.claim.quantity].meaning,
                "evidence": j.evidence,
                "runs": Ids(_ids(j)),
            }
            for j in content.claims
        ],
        [
            {
                "claim": j.claim.id,
                "rung": j.claim.rung,
                "against": j.claim.against,
                "text": j.claim.text,
                "quantity": j.claim.quantity,
                "min": j.claim.bound.min,
                "max": j.claim.bound.max,
                "verdict": j.verdict,
                "value": j.value,
                "low": j.low,
                "high": j.high,
                "evidence": j.evidence,
                "run_ids": " ".join(run.id for run in j.runs),
            }
            for j in content.claims
        ],
    )


def _ids(judgement: Judgement) -> str:
    return " ".join(dict.fromkeys(run.id[:8] for run in judgement.runs))


def comparison(name: str, caption: str, content: Content, steps: tuple[Step, ...]) -> Table:
    """Paired comparisons of two systems each."""
    return _table(
        name,
        caption,
        [
            {
                "from": s.before.name,
                "to": s.after.name,
                f"{published_heading(content)} gain": points(s.published),
                "gain": points(s.gain),
                "95 % interval": span(s.interval, points),
                "p": p_value(s.p),
                **(
                    {"p (Holm)": p_value(content.corrected.get(s.after.name, math.nan))}
                    if steps is content.steps
                    else {}
                ),
                "McNemar p (median)": p_value(s.mcnemar_p),
                "agreement": percent(s.agreement),
                "newly right": _number(s.turned[0], ",.4g"),
                "newly wrong": _number(s.turned[1], ",.4g"),
                "gained most": _ends(s.classes, 1),
                "lost most": _ends(s.classes, -1),
                "evidence": s.basis,
            }
            for s in steps
        ],
        [
            {
                "from": s.before.name,
                "to": s.after.name,
                "published_gain": s.published,
                "gain": s.gain,
                "low": s.interval[0],
                "high": s.interval[1],
                "seeds": len(s.gains),
                "p": s.p,
                "p_holm": content.corrected.get(s.after.name) if steps is content.steps else None,
                "mcnemar_p_median": s.mcnemar_p,
                "mcnemar_p_by_seed": "; ".join(f"{seed}: {p:.6g}" for seed, p in s.mcnemar),
                "agreement": s.agreement,
                "newly_right": s.turned[0],
                "newly_wrong": s.turned[1],
                "evidence": s.basis,
            }
            for s in steps
        ],
    )


def _ends(gains: pd.Series, sign: int, count: int = 3) -> str:
    """The classes that gained (1) or lost (-1) most, in points."""
    chosen = (gains if sign > 0 else gains[::-1])[lambda g: g * sign >= 0.0005]
    return ", ".join(f"{name} {points(gain)}" for name, gain in chosen[:count].items()) or NONE


def power(content: Content) -> Table:
    """How many seeds tell a gain of the published size from seed noise."""
    shown, raw = [], []
    for s in (*content.steps, *content.rivals):
        observed = s.seeds_needed(s.deviation)
        stated = {d: s.seeds_needed(d) for d in STATED_DEVIATIONS}
        known = not math.isnan(s.deviation)
        shown.append(
            {
                "from": s.before.name,
                "to": s.after.name,
                f"{published_heading(content)} gain": points(s.published),
                "deviation over seeds": f"{100 * s.deviation:.2f} points"
                if known
                else "not to be had from one seed",
                "seeds needed": _seeds(observed) if known else NONE,
                **{f"if it is {100 * d:.1f} points": _seeds(n) for d, n in stated.items()},
            }
        )
        raw.append(
            {
                "from": s.before.name,
                "to": s.after.name,
                "published_gain": s.published,
                "deviation": s.deviation,
                "seeds_needed": observed,
                **{f"seeds_at_{d}": n for d, n in stated.items()},
            }
        )
    return _table("power", "Seeds a rung that it takes to see the published gain", shown, raw)


def _seeds(n: int | None) -> str:
    return NONE if n is None else str(n)


def _layers(params: dict) -> tuple[str, str]:
    """Structure in words, and layers with weights on the longest path."""
    if params.get("model.architecture") == "residual":
        blocks = params["model.identity_blocks"]
        text = f"bottleneck residual, identity blocks {', '.join(map(str, blocks))}"
        return text, str(1 + 3 * (sum(blocks) + len(blocks) - 1) + 1)
    if params.get("model.architecture") == "vgg":
        groups, each = params["model.filters"], params["model.convolutions"]
        dense = params["model.dense"]
        text = (
            f"{len(groups)} groups of {each} convolutions ({', '.join(map(str, groups))} filters), "
            f"dense {', '.join(map(str, dense))}"
        )
        return text, str(len(groups) * each + len(dense) + 1)
    return NONE, NONE


def systems(content: Content) -> Table:
    """The last rung beside the baselines: structure, settings, size, accuracy, time."""
    names = dict.fromkeys(s for step in content.rivals for s in (step.after, step.before))
    columns: dict[str, dict[str, str]] = {}
    for s in names:
        params = s.runs[0].params if s.runs else {}
        structure, depth = _layers(params)
        columns[f"{s.name}: {s.title}"] = {
            "structure": structure if s.runs else s.waiting,
            "dropout": _setting(params, "model.dropout"),
            "augmentation": _block(params, "data.augmentation"),
            "optimiser": f"Adam, rate {_setting(params, 'training.learning_rate')}"
            if s.runs
            else NONE,
            "batch size": _setting(params, "training.batch_size"),
            "epochs at most": _setting(params, "training.epochs"),
            "early stopping": _block(params, "training.early_stopping"),
            "learning-rate schedule": _block(params, "training.reduce_lr_on_plateau"),
            "layers with weights": depth,
            "parameters": _number(s.mean("parameters")),
            "multiply-adds": _number(s.mean("multiply_adds")),
            published_heading(content): percent(s.published),
            "reproduced": percent(s.accuracy),
            "95 % interval": span(s.interval, percent),
            "training time": duration(s.mean("train_seconds")),
        }
    frame = pd.DataFrame(columns, dtype=object).rename_axis("").reset_index()
    return Table("systems", "The two networks side by side", frame, frame)


def _setting(params: dict, key: str) -> str:
    value = params.get(key)
    return NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _block(params: dict, key: str) -> str:
    parts = [
        f"{name.removeprefix(f'{key}.')} {json.dumps(value)}".replace('"', "")
        for name, value in params.items()
        if name.startswith(f"{key}.")
    ]
    return ", ".join(parts) or ("none" if params else NONE)


def classes(content: Content) -> Table:
    """Accuracy by class of the best system, the mean over its runs with predictions."""
    runs = [run for run in (content.best.runs if content.best else ()) if run.labels is not None]
    if not runs:
        return _table("classes", "Accuracy by class", [])
    mean = pd.concat([class_accuracy(run) for run in runs], axis=1).mean(axis=1)
    return _table(
        "classes",
        f"Accuracy by class of {content.best.name}",
        [{"class": name, "accuracy": percent(value)} for name, value in mean.items()],
        [{"class": name, "accuracy": value} for name, value in mean.items()],
    )


def assumptions(content: Content) -> Table:
    """What each experiment had to assume; a value shared by several rungs is one row."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for s in content.systems:
        for run in s.runs[:1]:
            for key, reason in run.assumed.items():
                value = _setting(run.params, key)
                value = _block(run.params, key) if value == NONE else value
                rows.setdefault((key, value, str(reason)), []).append(s.name)
    return _table(
        "assumptions",
        "Values the study does not state",
        [
            {"setting": key, "value": value, "why": reason, "in": ", ".join(names)}
            for (key, value, reason), names in rows.items()
        ],
    )


def contradictions(content: Content) -> Table:
    """What the study says in two ways or leaves out."""
    return _table(
        "contradictions",
        "Left open or contradictory in the study, and how it was settled",
        [
            {"topic": c.topic, "the study": c.study, "settled": c.settled}
            for c in content.study.contradictions
        ],
    )


def data_option(run: Run) -> list[str]:
    """The runner's option for a run's images."""
    dataset = run.tags.get("dataset", "")
    if dataset == "cifar10":
        return []
    if dataset == "digits":
        return ["--data", "digits"]
    return ["--data", run.source or f"PATH-OF-{dataset}"]


def rerun_command(run: Run) -> str:
    """The command that repeats a run."""
    tags = run.tags
    words = ["python", "runner.py", "--ladder", run.rung, "--seed", str(run.seed)]
    profile = tags.get("profile", "full")
    if profile not in ("full", ""):
        words += ["--profile", profile]
    words += data_option(run)
    for override in re.split(r"\s+(?=[\w.]+=)", tags.get("modified", "")):
        words += ["--set", override] if override else []
    return shlex.join([*words, "--fresh"])


def report_command(content: Content) -> str:
    """The command that makes this report again."""
    shown = content.selection.shown
    words = ["python", "-m", "report", "--dataset", shown.fingerprint[:12] or shown.dataset]
    words += ["--profile", shown.profile, "--modified", shown.modified]
    words += ["--recorded" if shown.recorded else "--own"]
    return shlex.join([*words, "--experiment", content.experiment])


def provenance(content: Content) -> Table:
    """Run by run: what code and which command."""
    rows = [
        {
            "run": run.id,
            "rung": run.rung,
            "seed": str(run.seed),
            "test accuracy": percent(run.metrics.get("test_accuracy", math.nan)),
            "configuration": run.tags.get("config_hash", "")[:12],
            "commit": run.tags.get("git_commit", "unknown")[:12]
            + (" + changes" if run.tags.get("git_dirty") == "true" else ""),
            "training time": duration(run.metrics.get("train_seconds", math.nan)),
            "again with": rerun_command(run),
        }
        for run in content.runs
    ]
    return _table("runs", "Runs shown", rows)


def unfinished(content: Content) -> Table:
    """Runs of the set that are going, failed or were killed."""
    return _table(
        "unfinished",
        "Runs without a result",
        [
            {
                "run": row.run_id,
                "rung": row.rung,
                "seed": str(row.seed),
                "state": state(row.status),
                "begun": row.start_time.strftime("%Y-%m-%d %H:%M UTC"),
            }
            for row in content.selection.unfinished.itertuples(index=False)
        ],
    )


def environment(content: Content) -> Table:
    """Data, software and hardware, each value once."""
    shown = content.selection.shown

    def tag(name: str) -> str:
        values = dict.fromkeys(run.tags[name] for run in content.runs if name in run.tags)
        return ", ".join(values) or NONE

    sizes = dict.fromkeys((run.n_train, run.n_test) for run in content.runs)
    versions = sorted({t for run in content.runs for t in run.tags if t.startswith("version.")})
    seeds = sorted({run.seed for run in content.runs})
    facts = {
        "dataset": shown.dataset,
        "fingerprint": shown.fingerprint,
        "training and test images": ", ".join(f"{a:,} and {b:,}" for a, b in sizes) or NONE,
        "profile": shown.profile or NONE,
        "modified settings": shown.modified or "none",
        "seeds": ", ".join(map(str, seeds)) or NONE,
        "device": tag("device"),
        "backend": tag("backend"),
        **{t.removeprefix("version."): tag(t) for t in versions},
        "commit": ", ".join(
            dict.fromkeys(
                run.tags.get("git_commit", "unknown")
                + (" + changes" if run.tags.get("git_dirty") == "true" else "")
                for run in content.runs
            )
        )
        or NONE,
        "MLflow experiment": content.experiment,
        "training time in all": duration(content.seconds),
    }
    return _table(
        "environment",
        "Data, software, hardware",
        [{"what": what, "value": value} for what, value in facts.items()],
    )


def to_markdown(table: Table) -> str:
    """The table as GitHub Markdown, everything in it taken literally."""

    def cell(text: object) -> str:
        literal = re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", html.escape(str(text), quote=False))
        return "<br>".join(literal.splitlines())

    rows = [table.shown.columns, ["---"] * len(table.shown.columns), *table.shown.to_numpy()]
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    lines[1] = "| " + " | ".join(rows[1]) + " |"
    return f"**{cell(table.caption)}**\n\n" + "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """The table for LaTeX with booktabs, everything in it taken literally."""
    frame = table.shown.rename(columns=_latex).map(_latex)
    return frame.to_latex(index=False, escape=False, caption=_latex(table.caption))


def _latex(text: object) -> str:
    return " ".join(str(text).replace("\n", "; ").translate(_LATEX).split())


def write(tables: dict[str, Table], folder: Path) -> None:
    """Writes each table that has rows as ``tables/NAME.md``, ``.csv`` and ``.tex``."""
    folder.mkdir()
    for table in tables.values():
        if table.shown.empty:
            continue
        (folder / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
        (folder / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
        table.raw.to_csv(folder / f"{table.name}.csv", index=False)
