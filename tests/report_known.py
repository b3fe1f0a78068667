"""Known runs, what a report makes of them, and how a reader, a machine or a browser takes it."""

import io
import json
import math
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from report_store import LADDER, STUDY, TRUTH, Store, curve, labels, right
from scipy import stats

import runner
from docs import screenshots
from report import analysis
from report.analysis import claims, statistics
from report.analysis.content import _shared
from report.presentation import output
from resnet import terminal
from resnet.study import SHIPPED, Study

N = 1000
SAID = analysis.load_statements(STUDY)
KNOWN = {name: STUDY.experiment(name) for name in STUDY.files}
WEAKER = ("fails (under our assumptions)", "fails")
CHROMIUM = screenshots.CHROMIUM


def copied(folder):
    """A copy of the study that comes with the project."""
    return Study.open(shutil.copytree(SHIPPED, folder / "study"))


# --- runs in a store ---------------------------------------------------------------------------


def two_seeds(empty, folder):
    store = Store.copy(empty, folder)
    counts = {LADDER[0]: (720, 725, 730), LADDER[1]: (830, 829, 845)}
    for rung, numbers in counts.items():
        for seed, count in enumerate(numbers):
            history = curve(25, 0.95 + 0.01 * seed, 0.80)
            store.add(rung, right(N, count, seed), seed=seed, history=history)
    return store, counts


def full(empty, folder):
    store = Store.copy(empty, folder)
    curves = {
        LADDER[0]: curve(25, 0.98, 0.72),
        LADDER[1]: curve(25, 0.85, 0.83),
        LADDER[2]: curve(25, 0.87, 0.84),
        LADDER[3]: curve(50, 0.92, 0.90, drops=(23, 40)),
        LADDER[4]: curve(75, 0.91, 0.895, drops=(45,)),
        "vgg": curve(25, 0.90, 0.87),
    }
    for name, accuracy in SAID.published.items():
        correct = right(10_000, round(10_000 * accuracy))
        store.add(name, correct, history=curves[name])
    return store, build(store)


def build(store, out=None, **chosen):
    return output.write(analysis.load(store.uri, **chosen), out or store.folder / "out")


# --- runs without one --------------------------------------------------------------------------


def made_run(rung, seed, percent, drop):
    correct = right(200, 2 * percent, seed)
    history = curve(30, percent / 100 + 0.04, percent / 100, drops=(drop,))
    truth = labels(200)
    return analysis.Run(
        id=f"{rung}{seed}",
        rung=rung,
        title=rung,
        seed=seed,
        begun=pd.Timestamp(0),
        tags={},
        params=KNOWN[rung].flat(),
        metrics={
            "test_accuracy": percent / 100,
            "epochs_run": 30.0,
            "stopped_epoch": 0.0,
            "tested_epoch": 30.0,
        },
        history=history.astype(float),
        n_train=50_000,
        source="",
        predictions=pd.DataFrame(
            {
                "label": truth,
                "predicted": np.where(correct, truth, (truth + 1) % 10),
                "truth_probability": np.where(correct, *TRUTH),
            }
        ),
    )


def rows(runs):
    """The ladder's rows that runs make, by name, with the deviation that they share."""
    found = {
        rung: analysis.System(
            name=rung,
            title=rung,
            published=SAID.published[rung],
            tolerance=0.1,
            params={},
            runs=tuple(run for run in runs if run.rung == rung),
        )
        for rung in LADDER
    }
    shared, _ = _shared(found)
    return {rung: replace(system, shared=shared) for rung, system in found.items()}


def measured(store, assumed=None):
    """A store's rows by name, of which nothing was assumed but what is said here."""
    told = assumed or {}
    systems = analysis.load(store.uri).systems
    return {s.name: replace(s, assumed=told.get(s.name, "")) for s in systems}


# --- what is expected of them ------------------------------------------------------------------


def floor(right, n):
    return (
        math.sqrt(right * TRUTH[0] * (1 - TRUTH[0]) + (n - right) * TRUTH[1] * (1 - TRUTH[1])) / n
    )


def scale(counts, n, histories):
    """How far a system's own epochs say that its seeds lie apart, up to the shared factor."""
    jumps = [np.mean(np.diff(h["val_accuracy"].to_numpy()[-10:]) ** 2) / 2 for h in histories]
    floors = [floor(count, n) ** 2 for count in counts]
    return math.sqrt(np.mean(np.add(jumps, floors)))


class Pooled:
    """The shared deviation, computed for itself, of counts of ``N`` and scales by name."""

    def __init__(self, counts, scales):
        self.counts, self.scales = counts, scales
        squares = [
            ((np.array(k) - np.mean(k)) ** 2).sum() / N**2 / scales[name] ** 2
            for name, k in counts.items()
        ]
        self.freedom = sum(len(k) - 1 for k in counts.values())
        self.factor = sum(squares) / self.freedom

    def mean(self, name):
        return np.mean(self.counts[name]) / N

    def half(self, **terms):
        """Of an interval; ``terms`` are the sums of 1/n by name."""
        variance = sum(self.factor * self.scales[name] ** 2 * n for name, n in terms.items())
        t = stats.t.ppf(0.975, 1 / (1 / self.freedom + 1 / statistics.GUESS))
        return t * math.sqrt(variance)


def t_interval(values):
    """Student's interval of a mean at 95 %."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return np.mean(values) - half, np.mean(values) + half


def pooled(counts):
    """Of :func:`two_seeds`."""
    histories = [curve(25, 0.95, 0.80)] * 3
    return Pooled(counts, {name: scale(k, N, histories) for name, k in counts.items()})


# --- claims and verdicts -----------------------------------------------------------------------


def claim(**changes):
    entry = {
        "id": "x",
        "rung": LADDER[1],
        "text": "a claim",
        "quantity": "test_accuracy",
        "bound": {"min": 0.8},
    }
    return claims.Claim.model_validate(entry | changes)


def judge(said, systems):
    return claims.judge(said, systems, list(LADDER))


def firmer(with_gap, without):
    """Pairs of verdicts of which the one with the gap says more."""
    return [
        (name, verdict, without[name])
        for name, verdict in with_gap.items()
        if verdict != without[name]
        if verdict.startswith(("holds", "fails")) and (verdict, without[name]) != WEAKER
    ]


# --- what is there to be seen ------------------------------------------------------------------


class Row(list):
    """A row's cells as text, and by heading what stands in lines of its own below it."""

    def __init__(self):
        super().__init__()
        self.below = {}


class Cells(HTMLParser):
    """The page's tables by class, as lists of rows of text."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.row, self.cell, self.problems = {}, None, None, []
        self.files, self.scripts, self.under = [], 0, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "table":
            self.rows = self.tables.setdefault(attrs["class"].split()[0], [])
        elif tag == "tr":
            self.under = attrs.get("class") == "below"
            if not self.under:
                self.row = Row()
        elif tag in ("td", "th"):
            self.cell = ""
        elif tag == "span" and attrs.get("class") == "small" and self.cell:
            self.cell += "\n"  # where the page begins a line
        elif tag == "script":
            self.scripts += 1
        elif tag in ("iframe", "object") or any(a.startswith("on") for a in attrs):
            self.problems.append(tag)
        for name in ("src", "href", "xlink:href"):
            if re.match(r"(tables|figures)/[\w-]+\.(csv|tex|md|svg|png)$", attrs.get(name, "")):
                self.files.append(attrs[name])
            elif not attrs.get(name, "#").startswith(("#", "data:")):
                self.problems.append(attrs[name])

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            text, self.cell = self.cell.strip(), None
            if self.under:
                self.row.below[self.heading] = text
            else:
                self.row.append(text)
        elif tag == "b" and self.under:
            self.heading, self.cell = self.cell, ""
        elif tag == "tr" and not self.under:
            self.rows.append(self.row)

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def records(self, name):
        heading, *rows = self.tables[name]
        return {
            row[0].split("\n")[0]: dict(zip(heading, row, strict=True)) | row.below for row in rows
        }


def ladder_of(client, run_id):
    """A run's metrics by rung; each is there once."""
    histories = {
        key: client.get_metric_history(run_id, key) for key in client.get_run(run_id).data.metrics
    }
    found = {key: {metric.step: metric.value for metric in h} for key, h in histories.items()}
    assert {key: len(by_rung) for key, by_rung in found.items()} == {
        key: len(history) for key, history in histories.items()
    }
    return found


def read(folder):
    return Cells((folder / output.PAGE).read_text(encoding="utf-8"))


def csv(folder, name, index):
    return pd.read_csv(folder / "tables" / f"{name}.csv").set_index(index)


def browsed(folder, tmp_path, script, width=1280):
    """What a script makes of the page in a real browser, as JSON."""
    text = (folder / output.PAGE).read_text()
    text = re.sub(r"<meta http-equiv=.*?>", "", text)
    text += f"<script>({script})().then((x) => {{ document.title = JSON.stringify(x); }})</script>"
    copy = tmp_path / "copy.html"
    copy.write_text(text)
    size = f"--window-size={width},900"
    dom = screenshots.browse(copy.as_uri(), size, "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]
    return json.loads(title.replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&"))


# --- the command line --------------------------------------------------------------------------


def reported(*arguments):
    """``ladder report``, within this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["runner.py", "report", *map(str, arguments)])
        patch.setattr(sys, "excepthook", sys.excepthook)  # Typer sets its own
        patch.setattr(terminal.console, "width", 160)
        with pytest.raises(SystemExit) as ended:
            runner.entry()
    return subprocess.CompletedProcess(
        arguments, ended.value.code or 0, out.getvalue(), err.getvalue()
    )


def fails_in_one_line(result, *told):
    assert result.returncode == 2, result
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    for text in told:
        assert text in result.stderr
