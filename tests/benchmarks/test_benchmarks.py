"""Benchmarks measure the speed of several programs and write a table of their rates."""

import json
import os

import pytest
from conftest import SMALL, experiment

from benchmarks import gpu, sides


def half(case):
    return lambda: case / 2


def broken(case):
    raise ImportError("no such library")


def test_a_table_leaves_out_a_program_that_does_not_start(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sides, "RESULTS", tmp_path)
    rates = {"rung 1": sides.compare({"ours": half, "theirs": broken}, 3000, 2)}
    message = "theirs does not start and is left out: no such library"
    assert message in capsys.readouterr().err
    sides.report("mine", "A comparison", "images/s", rates)
    text = (tmp_path / "mine.md").read_text()
    assert "| rung 1 | ours | 1,500 | 1,500 to 1,500 | 1.00 x | 1.00 x |" in text
    assert json.loads((tmp_path / "mine.json").read_text())["rates"] == rates


@pytest.mark.skipif(os.environ.get("KERAS_BACKEND") != "jax", reason="run make test-jax")
def test_keras_and_this_project_train_in_the_gpu_benchmark_on_a_cpu(capsys):
    rates = sides.compare(gpu.sides([1, 2]), (experiment("01_template", **SMALL), 64), 2)
    assert list(rates) == ["plain Keras", "this project, lanes: 1", "this project, lanes: 2"]
    assert all(min(turns) > 0 for turns in rates.values())
    assert capsys.readouterr().err.count("left out") == 2
    with pytest.raises(Exception, match="JAX finds no GPU"):
        gpu.main()
