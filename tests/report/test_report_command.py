import subprocess
import sys

import pytest
from conftest import ROOT
from report_known import build, fails_in_one_line, reported
from report_store import Store

from report import analysis
from resnet import UserError


def test_a_missing_or_empty_store_is_reported_and_not_changed(tmp_path, empty):
    database = tmp_path / "mlflow.db"
    uri = f"sqlite:///{database}"
    with pytest.raises(UserError, match=r"nothing has been run yet: .*python runner\.py run "):
        analysis.load(uri)
    database.touch()
    fails_in_one_line(
        reported("--tracking-uri", uri, "--out", tmp_path / "out"),
        "nothing has been run yet",
        "runner.py run all,vgg --profile quick",
    )
    assert database.stat().st_size == 0
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]  # MLflow made no mlruns/
    store = Store.copy(empty, tmp_path)
    with pytest.raises(UserError, match="no experiment 'resnet-ladder'"):
        build(store, tmp_path / "out")
    assert store.experiment_id
    with pytest.raises(UserError, match="has no runs"):
        build(store, tmp_path / "out")


def test_the_command_writes_the_page_and_imports_no_backend(two_seeds, tmp_path):
    uri = two_seeds[0].uri
    code = (
        "import sys, runner\n"
        "try: runner.entry()\n"
        "finally: assert not {'keras', 'tensorflow', 'jax'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "report", "--tracking-uri", uri, "--out", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result
    assert result.stderr == ""
    assert str(tmp_path / "out" / "report.html") in result.stdout


def test_the_command_prints_a_summary_and_refuses_a_profile_without_runs(two_seeds):
    uri = two_seeds[0].uri
    result = reported("--tracking-uri", uri, "--summary")
    assert result.returncode == 0
    assert "72.5 %" in result.stdout
    assert "augmentation-gain" in result.stdout
    fails_in_one_line(reported("--tracking-uri", uri, "--profile", "quick"), "no runs match")
