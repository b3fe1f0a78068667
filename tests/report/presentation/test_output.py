"""Tests the report's folder, and the ladder that is logged to a run in MLflow."""

import json
import math
from unittest.mock import Mock

import pytest
from report_known import N, build, copied, ladder_of
from report_store import LADDER, right

from report import analysis
from report.presentation import mlflow_ladder, output, page
from report.presentation.tables.message import message
from report.presentation.tables.progression import progression
from resnet import UserError
from resnet.records import DESCRIPTION
from resnet.store import connect
from resnet.study import Study


def test_tables_and_figures_are_written_in_every_format(full):
    files = {p.relative_to(full[1]).as_posix() for p in full[1].rglob("*") if p.is_file()}
    listed = set(json.loads((full[1] / "manifest.json").read_text())["files"])
    assert listed == files - {"manifest.json"}
    for name in ("progression", "claims", "steps", "rivals", "seeds", "assumptions"):
        assert {f"tables/{name}.{suffix}" for suffix in ("md", "csv", "tex")} <= files
    for name in ("progression", "gains", "validation", *(f"curves_{rung}" for rung in LADDER)):
        assert f"figures/{name}.svg" in files
    assert "figures/progression.png" in files
    csv = (full[1] / "tables" / "progression.csv").read_bytes()
    assert csv.startswith(b"\xef\xbb\xbf")  # Excel recognises UTF-8 by this mark


def new_run(store):
    return store.client.create_run(store.experiment_id, tags={"role": "ladder"}).info.run_id


def logged(store):
    """Logs a ladder to a new run; returns the run's metrics and tags, and the report's content."""
    content, parent = analysis.load(store.uri), new_run(store)
    mlflow_ladder.log_ladder(connect(store.uri), parent, content)
    return ladder_of(store.client, parent), store.client.get_run(parent).data.tags, content


def test_a_logged_ladder_has_the_means_and_gains_of_its_rungs(store):
    for rung, counts in {4: (900,), 1: (840,), 0: (700, 720)}.items():
        for seed, count in enumerate(counts):
            store.add(LADDER[rung], right(N, count), seed=seed)
    store.add("vgg", right(N, 800))
    store.add("06_mine", right(N, 910), like=LADDER[4], title="mine | or yours")
    store.add(LADDER[3], right(N, 800), metrics={"test_accuracy": math.nan})
    ladder, tags, content = logged(store)
    # rungs without a test accuracy are left out, and so are all baselines
    assert ladder["test_accuracy"] == pytest.approx({1: 0.71, 2: 0.84, 5: 0.9, 6: 0.91})
    assert ladder["seeds"] == {1: 2, 2: 1, 5: 1, 6: 1}
    # rung 5 has no gain, because rung 4 has no test accuracy
    assert ladder["gain"] == pytest.approx({2: 0.13, 6: 0.01})
    assert ladder["published"] == pytest.approx({1: 0.723, 2: 0.829, 5: 0.892})
    assert set(ladder) == {"test_accuracy", "seeds", "gain", "published"}
    assert tags["ladder"] == "cifar10"
    lines = tags[DESCRIPTION].splitlines()
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ")][2:]
    assert [row[2] for row in rows] == [*"123456v"]
    assert rows[5] == r"| 6 mine \| or yours"
    why = "all rows together have too few seeds to estimate the deviation of accuracy"
    assert f"| 2 + augmentation | 84.0 % | 82.9 % | +1.1 | undecided<br>{why} |" in lines
    assert "†" not in tags[DESCRIPTION]
    about = store.client.get_experiment(store.experiment_id).tags[DESCRIPTION]
    assert about.startswith(message(content).lead)


def test_a_logged_ladder_on_other_images_is_marked_as_not_comparable(store):
    of = {"dataset": "digits", "profile": "quick", "modified": "training.epochs=1"}
    store.add(LADDER[0], right(N, 700), **of)
    ladder, tags, _ = logged(store)
    assert ladder["test_accuracy"] == pytest.approx({1: 0.7})
    assert "published" not in ladder  # MLflow's chart cannot say that the images are not CIFAR-10
    assert tags["ladder"] == "digits · quick · training.epochs=1"
    assert "published (CIFAR-10) †" in tags[DESCRIPTION]
    assert "undecided" not in tags[DESCRIPTION]


def test_a_logged_ladder_has_the_same_numbers_as_the_table_of_accuracies(two_seeds):
    ladder, _, content = logged(two_seeds[0])
    rows = progression(content).frame.set_index("rung").loc[list(LADDER[:2])]
    rows = rows.rename(columns={"reproduced": "test_accuracy", "interval_low": "low",
                                "interval_high": "high"})  # fmt: skip
    assert ladder.pop("gain") == pytest.approx({2: rows["step_gain"].iloc[1]})
    assert {*ladder} == {"test_accuracy", "low", "high", "deviation", "seeds", "published"}
    for key, by_rung in ladder.items():
        assert by_rung == pytest.approx(dict(enumerate(rows[key], 1)))


def test_a_report_replaces_all_files_of_an_earlier_report_and_no_others(store, monkeypatch):
    store.add(LADDER[0], right(N, 700))
    out = store.folder / "reports" / "latest"
    build(store, out)
    before = (out / output.PAGE).read_bytes()
    store.add(LADDER[1], right(N, 800))
    with monkeypatch.context() as patch:
        patch.setattr(page, "render", Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space left"):
            build(store, out)
    assert (out / output.PAGE).read_bytes() == before
    build(store, out)
    assert "80.0 %" in (out / output.PAGE).read_text()
    assert [p.name for p in out.parent.iterdir()] == ["latest"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        build(store, out)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="is not a folder"):
        build(store, out / "notes.txt")


def test_the_report_is_attached_to_a_run(full):
    store, folder = full
    parent = new_run(store)
    mlflow_ladder.attach(connect(store.uri), parent, analysis.load(store.uri), folder)
    assert "test_accuracy" in ladder_of(store.client, parent)
    names = {a.path for a in store.client.list_artifacts(parent, "report")}
    assert names == {f"report/{n}" for n in ("report.html", "figures", "tables", "manifest.json")}


def test_a_renamed_rung_keeps_its_runs(store, tmp_path):
    study = copied(tmp_path)
    store.add(LADDER[0], right(N, 700))
    (study.folder / f"{LADDER[0]}.yaml").rename(study.folder / "01_renamed.yaml")
    for path in (*study.folder.glob("*.yaml"), *study.folder.glob("*/*.yaml")):
        path.write_text(path.read_text("utf-8").replace(LADDER[0], "01_renamed"), "utf-8")
    systems = analysis.load(store.uri, Study.open(study.folder)).systems
    runs = {s.name: len(s.runs) for s in systems}
    assert list(runs.items())[:2] == [("01_renamed", 1), (LADDER[1], 0)]
    assert LADDER[0] not in runs
