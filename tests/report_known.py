"""Makes runs with known results for tests, computes expected values, and reads reports."""

import html
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
from report_store import LADDER, STUDY, TRUTH, Store, curve, predictions, right
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


# --- runs without a store ----------------------------------------------------------------------


def made_run(rung, seed, percent, drop):
    """Makes a run with 200 test images and the settings of a rung's file."""
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
        history=curve(30, percent / 100 + 0.04, percent / 100, drops=(drop,)).astype(float),
        n_train=50_000,
        source="",
        predictions=predictions(right(200, 2 * percent, seed)),
    )


def rows(runs):
    """Returns the ladder's rows by name, with these runs and the deviation that the rows share."""
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
    """Returns a store's rows by name; ``assumed`` maps a row's name to the row's assumptions."""
    systems = analysis.load(store.uri).systems
    return {s.name: replace(s, assumed=(assumed or {}).get(s.name, "")) for s in systems}


# --- expected values ---------------------------------------------------------------------------


def floor(right, n):
    of_right, of_wrong = (p * (1 - p) for p in TRUTH)
    return math.sqrt(right * of_right + (n - right) * of_wrong) / n


class Pooled:
    """Computes the deviation shared by the rows of :func:`two_seeds`, without the report's code."""

    def __init__(self, counts):
        jump = np.mean(np.diff(curve(25, 0.95, 0.80)["val_accuracy"].tail(10)) ** 2) / 2
        self.counts = counts
        self.scales = {
            name: math.sqrt(jump + np.mean([floor(count, N) ** 2 for count in k]))
            for name, k in counts.items()
        }
        squares = [
            ((np.array(k) - np.mean(k)) ** 2).sum() / N**2 / self.scales[name] ** 2
            for name, k in counts.items()
        ]
        self.freedom = sum(len(k) - 1 for k in counts.values())
        self.factor = sum(squares) / self.freedom

    def mean(self, name):
        return np.mean(self.counts[name]) / N

    def half(self, **terms):
        """Returns an interval's half-width; ``terms`` maps row names to 1 / (number of seeds)."""
        variance = sum(self.factor * self.scales[name] ** 2 * n for name, n in terms.items())
        t = stats.t.ppf(0.975, 1 / (1 / self.freedom + 1 / statistics.GUESS))
        return t * math.sqrt(variance)


pooled = Pooled


def t_interval(values):
    """Returns Student's 95 % interval for the mean of these values."""
    return stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))


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
    """Lists verdicts that gaps in data make firmer: (name, verdict with gaps, without gaps)."""
    return [
        (name, verdict, without[name])
        for name, verdict in with_gap.items()
        if verdict != without[name]
        if verdict.startswith(("holds", "fails")) and (verdict, without[name]) != WEAKER
    ]


# --- the page, its files and MLflow ------------------------------------------------------------


class Row(list):
    """The texts of a row's cells; ``below`` maps each heading of the row's details to a text."""

    def __init__(self):
        super().__init__()
        self.below = {}


class Cells(HTMLParser):
    """Reads a page; ``tables`` maps each table's CSS class to a list of the table's rows."""

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
            self.cell += "\n"  # the page begins a new line here
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
    """Returns each metric's values by rung number; checks that a metric has one value per rung."""
    found = {}
    for key in client.get_run(run_id).data.metrics:
        history = client.get_metric_history(run_id, key)
        found[key] = {metric.step: metric.value for metric in history}
        assert len(found[key]) == len(history)
    return found


def read(folder):
    return Cells((folder / output.PAGE).read_text(encoding="utf-8"))


def csv(folder, name, index):
    return pd.read_csv(folder / "tables" / f"{name}.csv").set_index(index)


def browsed(folder, tmp_path, script, width=1280):
    """Opens the page in a real browser, runs a script there, and returns the script's result."""
    text = re.sub(r"<meta http-equiv=.*?>", "", (folder / output.PAGE).read_text())
    text += f"<script>({script})().then((x) => {{ document.title = JSON.stringify(x); }})</script>"
    copy = tmp_path / "copy.html"
    copy.write_text(text)
    dom = screenshots.browse(copy.as_uri(), f"--window-size={width},900", "--dump-dom")
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]))


# --- the command line --------------------------------------------------------------------------


def reported(*arguments):
    """Runs ``ladder report`` within this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["runner.py", "report", *map(str, arguments)])
        patch.setattr(sys, "excepthook", sys.excepthook)  # Typer sets the hook; patch restores it
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
