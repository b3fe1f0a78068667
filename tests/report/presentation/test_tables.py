"""Compares the numbers in the tables with an independent computation."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_known import KNOWN, SAID, N, csv, floor, pooled, read
from report_store import CLASSES, LADDER, curve, labels, right
from scipy import stats

import report as notebook
from report import analysis
from report.analysis import Bound
from report.presentation import output
from report.presentation.tables import numbers, progression
from resnet.host.messages import duration
from resnet.study import short


def test_every_accuracy_is_undecided_if_each_row_has_one_seed(full):
    _, folder = full
    page = read(folder)
    shown, raw = page.records("progression"), csv(folder, "progression", "rung")
    sizes = page.records("rows")
    by_run = csv(folder, "runs", "rung")
    for name, accuracy in SAID.published.items():
        k = round(10_000 * accuracy)
        row, cells = raw.loc[name], shown[f"{short(name)} {KNOWN[name].title}"]
        assert row["reproduced"] == pytest.approx(k / 10_000)
        assert row[["interval_low", "deviation"]].isna().all()
        assert row["verdict"] == "undecided"
        assert cells["published"] == cells["here"] == f"{100 * accuracy:.1f} %"
        assert cells["verdict"].startswith("? undecided\nall rows together have too few seeds")
        assert (cells["95 % interval"], cells["seeds"]) == ("-", "1")
        size = sizes[f"{short(name)} {KNOWN[name].title}"]
        assert (size["parameters"], size["multiply-adds"]) == ("316,394", "53.98 M")
        assert row["seed_floor"] == pytest.approx(floor(k, 10_000))
        images = stats.binomtest(k, 10_000).proportion_ci(method="wilson")
        found = by_run.loc[name, ["images_interval_low", "images_interval_high"]]
        assert tuple(found) == pytest.approx(tuple(images))
    last = sizes["5 + deeper + dropout"]
    assert (last["epochs"], last["training time"]) == ("75", "1 h 16 min")
    changed = shown["5 + deeper + dropout"]["changed"].split(" · ")
    assert "training.epochs: 50 -> 75" in changed
    assert "model.identity_blocks: [7, 3, 1] -> [7, 5, 2]" in changed
    assert "changed" not in shown["1 Template"]


def test_accuracies_intervals_and_deviations_over_seeds_are_right(two_seeds):
    store, counts = two_seeds
    content = analysis.load(store.uri)
    table = progression.progression(content).frame.set_index("rung")
    known = pooled(counts)
    assert content.deviation.startswith(f"{math.sqrt(known.factor):.2f}, estimated from 4 seeds, ")
    for name, count in counts.items():
        row, mean = table.loc[name], known.mean(name)
        half = known.half(**{name: 1 / 3})
        assert row["reproduced"] == pytest.approx(mean)
        interval = row[["interval_low", "interval_high"]].tolist()
        assert interval == pytest.approx([mean - half, mean + half])
        assert row["evidence"] == "3 seeds"
        assert row["deviation"] == pytest.approx(math.sqrt(known.factor) * known.scales[name])
        assert row["own_deviation"] == pytest.approx(np.std(np.array(count) / N, ddof=1))
        floors = [floor(k, N) for k in count]
        assert row["seed_floor"] == pytest.approx(np.sqrt(np.mean(np.square(floors))))
        _, *shown = progression.rows(content).texts()
        apart = f"{100 * row['deviation']:.2f}", f"{100 * row['own_deviation']:.2f}"
        size = ["25", duration(25 * 61), "316,394", "53.98 M"]
        heading = f"{short(name)} {KNOWN[name].title}"
        assert [heading, *apart, f"{100 * row['seed_floor']:.2f}", *size] in shown
    assert len(shown) == len(counts)
    assert list(table["verdict"][2:]) == ["not run"] * 4
    assert [s.waiting for s in content.systems[2:]] == ["not run"] * 4


def test_training_times_of_two_devices_are_listed_separately(store):
    for seed, (device, epochs) in enumerate((("A", 10), ("A", 20), ("B", 40))):
        history = curve(epochs, 0.9, 0.8)
        store.add(LADDER[0], right(N, 700), seed=seed, history=history, tags={"device": device})
    _, row = progression.rows(analysis.load(store.uri)).texts()
    epochs, time = row[4:6]
    assert epochs == "10 to 40"
    assert sorted(time.split("\n")) == [
        f"{duration(15 * 61)} (tensorflow on A)",
        f"{duration(40 * 61)} (tensorflow on B)",
    ]


def test_accuracy_by_class_and_the_confusion_matrix_count_test_images(full):
    _, folder = full
    truth, published = labels(10_000), SAID.published
    tidy = csv(folder, "per_class", ["rung", "class"])
    heat = csv(folder, "classes", "class")
    for name, accuracy in published.items():
        correct = right(10_000, round(10_000 * accuracy))
        for k, label in enumerate(CLASSES):
            expected = correct[truth == k].mean()
            assert tidy.loc[(name, label), "accuracy"] == pytest.approx(expected)
            assert tidy.loc[(name, label), "images"] == (truth == k).sum()
            assert heat.loc[label, name] == pytest.approx(expected)
    counts = csv(folder, "confusion_matrix", "true class")
    correct = right(10_000, 8920)  # the best rung
    assert counts.loc["cat", "cat"] == (correct & (truth == 3)).sum()
    assert counts.loc["cat", "deer"] == (~correct & (truth == 3)).sum()
    assert counts.to_numpy().sum() == 10_000
    text = (folder / output.PAGE).read_text()
    wrong = f"true cat, predicted deer: {counts.loc['cat', 'deer']}"
    assert f'data-row="3" data-column="4" data-size="10" data-told="{wrong}' in text


def test_csv_files_and_data_frames_have_the_raw_values(full, two_seeds):
    _, folder = full
    tidy = csv(folder, "curves", ["rung", "epoch"])
    expected = curve(50, 0.92, 0.90, drops=(23, 40))
    for key in expected:
        assert tidy.loc[LADDER[3], key].to_numpy() == pytest.approx(expected[key].to_numpy())
    for path in (folder / "tables").glob("*.csv"):
        keys = pd.read_csv(path).columns
        if path.stem not in ("confusion_matrix", "classes"):  # their columns are classes or rungs
            assert all(re.fullmatch(r"[a-z][a-z0-9_]*", key) for key in keys), path
    ran = csv(folder, "runs", "rung")
    assert ran["train_seconds"].to_dict() == {
        name: 61.0 * {LADDER[3]: 50, LADDER[4]: 75}.get(name, 25) for name in ran.index
    }
    assert ran["test_accuracy"].to_dict() == pytest.approx(SAID.published)
    frames = notebook.tables(two_seeds[0].uri)
    counts = sorted(count for counts in two_seeds[1].values() for count in counts)
    assert sorted(N * frames["runs"]["test_accuracy"]) == pytest.approx(counts)
    assert frames["curves"].groupby(["rung", "seed"]).size().tolist() == [25] * 6


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=3),
    st.floats(-1, 1).map(lambda x: round(x, 3)),
    st.sampled_from(["accuracy", "points", "ratio"]),
)
def test_a_rounded_value_stays_on_its_side_of_the_bound(values, limit, unit):
    interval = (min(values), max(values))
    for end, bound in (("min", Bound(min=limit)), ("max", Bound(max=limit))):
        scale = 1 if unit == "ratio" else 100
        shown = [
            part.split()[0]
            for value in interval
            for part in numbers.to_limits(value, (math.nan, math.nan), bound, unit)[:1]
        ]
        for value, text in zip(interval, shown, strict=True):
            if abs(value - limit) > 1e-7:
                assert (float(text) / scale < limit) == (value < limit), end
