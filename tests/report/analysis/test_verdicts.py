"""Less evidence never gives a firmer verdict."""

import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_known import (
    SAID,
    N,
    build,
    claim,
    firmer,
    judge,
    made_run,
    measured,
    pooled,
    rows,
    verdicts,
)
from report_store import LADDER, Store, curve, right

from report import analysis
from report.analysis import runs
from report.presentation import output
from report.presentation.tables import message
from resnet import UserError


def test_the_tolerances_are_where_the_verdict_turns(two_seeds):
    store, counts = two_seeds
    for system in analysis.load(store.uri).systems[:2]:
        off = abs(np.mean(counts[system.name]) / N - SAID.published[system.name])
        half = pooled(counts).half(**{system.name: 1 / 3})
        fails, holds = max(off - half, 0), off + half
        for tolerance, verdict in (
            (holds * 1.0001, "holds"),
            (holds * 0.9999, "undecided"),
            (fails * 0.9999, "fails (under our assumptions)" if system.assumed else "fails"),
        ):
            if tolerance:
                assert replace(system, tolerance=tolerance).verdict == verdict


def test_without_its_predictions_one_run_leaves_every_accuracy_undecided(store):
    """All rows share one deviation: whoever is left out could have been the one that jumps."""
    for i, counts in enumerate(((700, 701), (830, 831), (835, 836), (870, 873))):
        ids = [store.add(LADDER[i], right(N, k), seed=seed) for seed, k in enumerate(counts)]
    gain = claim(quantity="test_gain", against=LADDER[0], bound={"min": 0.05})
    assert judge(gain, measured(store)).verdict == "holds"
    assert analysis.load(store.uri).systems[1].verdict == "holds"
    store.artifact(ids[0], "test_predictions.csv").unlink()
    content = analysis.load(store.uri)
    assert {s.verdict for s in content.systems} == {"undecided", "not run"}
    judged = judge(gain, measured(store))
    assert judged.verdict == "undecided"
    assert "the deviation between seeds is not known" in judged.evidence
    assert all(math.isnan(step.p) for step in content.steps)
    (told,) = (note for note in content.notes if "one deviation" in note)
    assert told.startswith(f"{LADDER[3]}, seed 0 (run {ids[0][:8]}): lacks its predictions. So no")
    assert told in (build(store) / output.PAGE).read_text()
    store.client.delete_run(ids[0])  # the way out
    assert analysis.load(store.uri).systems[1].verdict == "undecided"  # of three degrees of freedom
    store.add(LADDER[3], right(N, 874), seed=2)
    assert analysis.load(store.uri).systems[1].verdict == "holds"


SEEDS = st.integers(60, 90).flatmap(
    lambda middle: st.lists(st.integers(middle, middle + 5), min_size=1, max_size=6)
)


KEYS = ("accuracy", "val_accuracy", "learning_rate")


@given(st.data(), st.lists(SEEDS, min_size=5, max_size=5), st.integers(3, 28))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_no_gap_in_a_run_makes_any_verdict_firmer(data, accuracies, drop):
    """Over arbitrary accuracies and seeds, with arbitrary parts of arbitrary runs gone."""
    whole = []
    for rung, values in zip(LADDER, accuracies, strict=True):
        whole += [made_run(rung, seed, v, drop + seed) for seed, v in enumerate(values)]
    gapped = list(whole)
    for i in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)):
        run = gapped[i]
        gap = data.draw(st.sampled_from(["predictions", "metric", "epochs", "end"]))
        if gap == "predictions":
            run = replace(run, predictions=run.predictions[:0])
        elif gap == "metric":
            gone = data.draw(
                st.sampled_from(["test_accuracy", "epochs_run", "stopped_epoch", "tested_epoch"])
            )
            run = replace(run, metrics={k: v for k, v in run.metrics.items() if k != gone})
        elif gap == "epochs":
            epochs = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=30))
            history = run.history.copy()
            history.loc[history.index.isin(epochs), data.draw(st.sampled_from(KEYS))] = np.nan
            run = replace(run, history=history)
        else:
            run = replace(run, history=run.history.iloc[: data.draw(st.integers(0, 29))])
        gapped[i] = run

    def judged(runs):
        systems = rows(runs)
        found = {c.id: judge(c, systems).verdict for c in SAID.claims}
        return found | {rung: system.verdict for rung, system in systems.items()}

    assert not firmer(judged(gapped), judged(whole))


@pytest.fixture(scope="session")
def shaky(empty, tmp_path_factory):
    """Rungs of two and of three seeds, of which one disagrees with the others; some verdicts."""
    store = Store.copy(empty, tmp_path_factory.mktemp("shaky"))
    for rung, counts in {0: (783, 784), 1: (829, 829, 800), 2: (854, 854, 850)}.items():
        for seed, count in enumerate(counts):
            history = curve(25, 0.85 + 0.02 * (seed == 2), 0.82, drops=(10 + seed,))
            stopped = {"stopped_epoch": 17.0 * (seed == 2)}
            store.add(
                LADDER[rung], right(N, count, seed), seed=seed, history=history, metrics=stopped
            )
    found = verdicts(analysis.load(store.uri))
    assert "fails (under our assumptions)" in found.values()
    return store, found


ARTIFACTS = ("test_predictions.csv", "confusion_matrix.csv", "experiment.yaml")


GAPS = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.one_of(
            st.tuples(st.just("file"), st.sampled_from(ARTIFACTS)),
            st.tuples(st.just("cut"), st.sampled_from(ARTIFACTS)),
            st.tuples(
                st.just("column"), st.sampled_from(["label", "predicted", "truth_probability"])
            ),
            st.tuples(
                st.just("tag"),
                st.sampled_from([*runs.IDENTITY, "role", "title", "backend", "git_commit"]),
            ),
            st.tuples(
                st.just("metric"),
                st.sampled_from(
                    [*KEYS, "test_accuracy", "epochs_run", "stopped_epoch", "tested_epoch"]
                ),
            ),
            st.tuples(st.just("epoch"), st.sampled_from(KEYS)),
            st.tuples(st.just("data"), st.just("")),
        ),
    ),
    min_size=1,
    max_size=4,
)


def opened(store, gaps, folder):
    """A copy of a store with gaps in it."""
    import sqlite3

    shutil.copytree(store.folder, folder)
    database = sqlite3.connect(folder / "mlflow.db")
    for column, table in (("artifact_uri", "runs"), ("artifact_location", "experiments")):
        database.execute(
            f"UPDATE {table} SET {column} = replace({column}, ?, ?)",
            (str(store.folder), str(folder)),
        )
    ids = [
        row[0]
        for row in database.execute("SELECT run_uuid FROM runs ORDER BY start_time, run_uuid")
    ]
    for at, (kind, name) in gaps:
        run = ids[at % len(ids)]
        path = Store(folder).artifact(run, name)
        if kind == "file":
            path.unlink(missing_ok=True)
        elif kind == "cut" and path.exists():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif kind == "column" and (path := Store(folder).artifact(run, ARTIFACTS[0])).exists():
            try:
                pd.read_csv(path).drop(columns=name, errors="ignore").to_csv(path, index=False)
            except ValueError:
                path.unlink()  # it was cut before
        elif kind == "tag":
            database.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (run, name))
        elif kind == "metric":
            for table in ("metrics", "latest_metrics"):
                database.execute(f"DELETE FROM {table} WHERE run_uuid = ? AND key = ?", (run, name))
        elif kind == "epoch":
            database.execute(
                "DELETE FROM metrics WHERE run_uuid = ? AND key = ? AND step > 20", (run, name)
            )
        elif kind == "data":
            database.execute("DELETE FROM inputs WHERE destination_id = ?", (run,))
    database.commit()
    database.close()
    return Store(folder)


def never_firmer(shaky, gaps):
    store, whole = shaky
    with tempfile.TemporaryDirectory() as folder:
        made = opened(store, gaps, Path(folder) / "copy")
        try:
            content = analysis.load(made.uri)
        except UserError as error:
            assert "nothing was run yet" in str(error)
            return
        assert not firmer(verdicts(content), whole), gaps
        assert message.message(content).lead


@given(GAPS)
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
def test_no_gap_in_a_store_makes_any_verdict_firmer(shaky, gaps):
    never_firmer(shaky, gaps)


@pytest.mark.slow
@given(GAPS)
@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
def test_no_gap_of_many_makes_any_verdict_firmer(shaky, gaps):
    never_firmer(shaky, gaps)


@pytest.mark.parametrize("tag", ["seed", "rung", "role", "config_hash"])
def test_a_run_that_may_belong_here_leaves_it_undecided(store, tag):
    """It may be of any row, and be the one that jumps about."""
    ids = [store.add(LADDER[i], right(N, 828 + s), seed=s) for i in (0, 1) for s in range(3)]
    content = analysis.load(store.uri)
    assert [s.verdict for s in content.systems[:2]] == ["fails (under our assumptions)", "holds"]
    store.client.delete_tag(ids[2], tag)
    content = analysis.load(store.uri)
    assert [s.verdict for s in content.systems[:2]] == ["undecided", "undecided"]
    of_accuracies = [j for j in content.claims if analysis.QUANTITIES[j.claim.quantity].weights]
    assert {j.verdict for j in of_accuracies} <= {"undecided", "not run"}
    assert f"lacks the tag {tag!r}" in " ".join(content.notes)
