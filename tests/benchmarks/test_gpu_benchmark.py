"""The benchmark of GPUs, as far as a CPU can tell: that it runs, and what it makes of figures."""

import json
import os
import subprocess
import sys

import keras
import pytest
from conftest import ROOT

from benchmarks import gpu, gpu_sides

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="needs KERAS_BACKEND=jax and an environment with JAX:  make test-jax",
)

TINY = (
    "model={architecture: vgg, filters: [4], convolutions: 1, dense: [8], dropout: 0.2, "
    "batch_norm_momentum: 0.9}"
)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """The command; its processes share what Python compiles of Keras, whatever the machine does."""
    shared = {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}
    shared["PYTHONDONTWRITEBYTECODE"] = ""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", *arguments],
            cwd=ROOT,
            env=os.environ | shared | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def test_on_a_cpu_every_side_but_pytorch_has_its_line(benchmark, tmp_path):
    process = benchmark(
        "--cpu",
        f"--out={tmp_path}",
        "--rungs=2",
        "--lanes=1,2",
        "--steps=2",
        "--turns=2",
        f"--set={TINY}",
    )
    assert process.returncode == 0, process.stderr
    told = json.loads((tmp_path / "gpu.json").read_text())
    text = (tmp_path / "gpu.md").read_text()
    names = ["this project, 1 lane", "plain Keras", "this project, 2 lanes"]
    assert [row["side"] for row in told["rows"]] == names
    for row in told["rows"]:
        assert len(row["rates"]) == 2 and min(row["rates"]) > 0
        assert f"| rung 2 | {row['side']} | {row['images_per_second']:,.0f} |" in text
        if row["side"] != "plain Keras":
            assert min(row["start_s"], row["compile_s"]) > 0
            assert row["peak_bytes"] is None
    left_out = [name for names in told["left_out"].values() for name in names]
    assert left_out == ["rung 2, PyTorch eager", "rung 2, PyTorch compiled"]
    assert "| - |" in text and "Left out: rung 2, PyTorch eager; " in text


@pytest.mark.parametrize(
    ("backend", "lacking"), [("jax", "JAX has no GPU here"), ("tensorflow", "tensorflow")]
)
def test_without_a_gpu_it_says_what_it_lacks_and_the_way_out(benchmark, backend, lacking):
    process = benchmark(JAX_PLATFORMS="cpu", KERAS_BACKEND=backend)
    assert process.returncode == 2 and not process.stdout
    (line,) = process.stderr.splitlines()
    assert lacking in line and line.endswith(gpu_sides.WAY_OUT)


def test_the_most_telling_sides_come_first_and_those_out_of_time_are_left_out():
    sides = list(gpu.planned(["2", "5"], [1, 2, 5, 10]))
    assert [(s.rung, s.lanes) for s in sides[:4]] == [("2", 1), ("2", 5), ("5", 1), ("5", 5)]
    assert len(sides) == len(set(sides)) == 2 * (4 + 3)
    assert sides[0].name == "this project, 1 lane" and sides[1].name == "this project, 5 lanes"
