"""The folder of a report, and what an invocation's own run shows of its ladder."""

import json
import math
import shutil
from unittest.mock import Mock

import pytest
from report_known import SAID, N, build, ladder_of, pooled
from report_store import LADDER, right

from report import analysis
from report.presentation import mlflow_ladder, output, page
from report.presentation.tables.progression import progression
from resnet import UserError
from resnet.records import DESCRIPTION
from resnet.store import connect
from resnet.study import SHIPPED, Study


def test_files_come_in_every_form(full):
    files = {p.relative_to(full[1]).as_posix() for p in full[1].rglob("*") if p.is_file()}
    assert set(json.loads((full[1] / "manifest.json").read_text())["files"]) == files - {
        "manifest.json"
    }
    for name in ("progression", "claims", "steps", "rivals", "seeds", "assumptions"):
        assert {f"tables/{name}.{suffix}" for suffix in ("md", "csv", "tex")} <= files
    for name in ("progression", "gains", "validation", *(f"curves_{rung}" for rung in LADDER)):
        assert f"figures/{name}.svg" in files
    assert "figures/progression.png" in files
    csv = (full[1] / "tables" / "progression.csv").read_bytes()
    assert csv.startswith(b"\xef\xbb\xbf")  # by which Excel knows UTF-8


def new_run(store):
    """The id of a new run, as an invocation makes it."""
    return store.client.create_run(store.experiment_id, tags={"role": "ladder"}).info.run_id


def logged(store, **chosen):
    """What an invocation's run shows of a store's ladder: metrics, tags, and the content."""
    content, parent = analysis.load(store.uri, **chosen), new_run(store)
    mlflow_ladder.log_ladder(connect(store.uri), parent, content)
    return ladder_of(store.client, parent), store.client.get_run(parent).data.tags, content


def test_a_ladder_is_the_means_of_its_rungs_and_their_gains(store):
    for rung, counts in {4: (900,), 1: (840,), 0: (700, 720)}.items():
        for seed, count in enumerate(counts):
            store.add(LADDER[rung], right(N, count), seed=seed)
    store.add("vgg", right(N, 800))
    store.add("06_mine", right(N, 910), like=LADDER[4], title="mine | or yours")
    store.add(LADDER[3], right(N, 800), metrics={"test_accuracy": math.nan})
    ladder, tags, _ = logged(store)
    # a baseline stands on no rung, and what was never tested is not there
    assert ladder["test_accuracy"] == pytest.approx({1: 0.71, 2: 0.84, 5: 0.9, 6: 0.91})
    assert ladder["seeds"] == {1: 2, 2: 1, 5: 1, 6: 1}
    # rung 5 has none: rung 4 was not tested
    assert ladder["gain"] == pytest.approx({2: 0.13, 6: 0.01})
    assert ladder["published"] == pytest.approx({1: 0.723, 2: 0.829, 5: 0.892})
    assert set(ladder) == {"test_accuracy", "seeds", "gain", "published"}
    assert tags["ladder"] == "cifar10"
    lines = tags[DESCRIPTION].splitlines()
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ")][2:]
    assert [row[2] for row in rows] == [*"123456v"]
    assert rows[5] == r"| 6 mine \| or yours"
    why = "too few seeds in all to know how much seeds vary"
    assert f"| 2 + augmentation | 84.0 % | 82.9 % | +1.1 | undecided<br>{why} |" in lines
    assert "†" not in tags[DESCRIPTION]


def test_a_ladder_of_other_images_says_that_it_is_not_comparable(store):
    of = {"dataset": "digits", "profile": "quick", "modified": "training.epochs=1"}
    store.add(LADDER[0], right(N, 700), **of)
    ladder, tags, _ = logged(store)
    assert ladder["test_accuracy"] == pytest.approx({1: 0.7})
    assert "published" not in ladder  # MLflow's chart would draw it without a word
    assert tags["ladder"] == "digits · quick · training.epochs=1"
    assert "published (CIFAR-10) †" in tags[DESCRIPTION]
    assert "undecided" not in tags[DESCRIPTION]


def test_a_ladder_in_mlflow_has_the_report_s_own_numbers(two_seeds):
    store, counts = two_seeds
    ladder, _, content = logged(store)
    row = progression(content).frame.set_index("rung")
    known = pooled(counts)
    for number, name in enumerate(LADDER[:2], 1):
        mean, half = known.mean(name), known.half(**{name: 1 / 3})
        expected = {
            "test_accuracy": (mean, "reproduced"),
            "low": (mean - half, "interval_low"),
            "high": (mean + half, "interval_high"),
            "deviation": (math.sqrt(known.factor) * known.scales[name], "deviation"),
            "seeds": (3, "seeds"),
            "published": (SAID.published[name], "published"),
        }
        for key, (value, column) in expected.items():
            assert ladder[key][number] == pytest.approx(value)
            assert ladder[key][number] == pytest.approx(row.loc[name, column])
    gains = {2: known.mean(LADDER[1]) - known.mean(LADDER[0])}
    assert ladder["gain"] == pytest.approx(gains)
    assert ladder["gain"] == pytest.approx({2: content.steps[0].gain})
    rungs = {key: sorted(by_rung) for key, by_rung in ladder.items()}
    assert rungs == {key: [1, 2] for key in expected} | {"gain": [2]}


def test_a_report_is_replaced_whole_and_nothing_else_is(store, monkeypatch):
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


def test_the_parent_run_holds_the_report(full):
    store, folder = full
    parent = new_run(store)
    mlflow_ladder.attach(connect(store.uri), parent, analysis.load(store.uri), folder)
    names = {a.path for a in store.client.list_artifacts(parent, "report")}
    assert ladder_of(store.client, parent)["test_accuracy"] == pytest.approx(
        {number: SAID.published[name] for number, name in enumerate(LADDER, 1)}
    )
    assert names == {f"report/{n}" for n in ("report.html", "figures", "tables", "manifest.json")}


def test_a_renamed_rung_keeps_its_runs(store, tmp_path):
    study = Study.open(shutil.copytree(SHIPPED, tmp_path / "study"))
    store.add(LADDER[0], right(N, 700))
    (study.folder / f"{LADDER[0]}.yaml").rename(study.folder / "01_renamed.yaml")
    for path in (*study.folder.glob("*.yaml"), *study.folder.glob("*/*.yaml")):
        path.write_text(path.read_text("utf-8").replace(LADDER[0], "01_renamed"), "utf-8")
    content = analysis.load(store.uri, Study.open(study.folder))
    assert [(s.name, len(s.runs)) for s in content.systems[:2]] == [
        ("01_renamed", 1),
        (LADDER[1], 0),
    ]
    assert LADDER[0] not in [s.name for s in content.systems]
