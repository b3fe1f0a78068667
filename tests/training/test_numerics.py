"""Tests the recorded facts that exact results depend on, and the warnings about devices."""

import importlib.util
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import keras
import pytest

# ``from resnet.training import numerics`` would import the function numerics, not the module.
numerics = importlib.import_module("resnet.training.numerics")
jax_only = pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX only")


@pytest.mark.parametrize(
    ("given", "set_"),
    [
        (None, "--xla_gpu_deterministic_ops=true"),
        ("--xla_dump_to=x", "--xla_dump_to=x --xla_gpu_deterministic_ops=true"),
        ("--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
    ],
)
def test_the_determinism_flag_is_added_unless_the_user_has_set_it(given, set_):
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    process = subprocess.run(
        [sys.executable, "-c", "import resnet, os; print(os.environ['XLA_FLAGS'])"],
        env=environment | ({"XLA_FLAGS": given} if given else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.strip() == set_


def test_the_precision_of_products_on_a_cpu_is_float32():
    facts = numerics.numerics(lanes=5)
    assert (facts["precision"], facts["lanes"]) == ("float32", "5")
    assert all(isinstance(value, str) for value in facts.values())


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Returns a function that replaces the program nvidia-smi with a script."""

    def put(script):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
        monkeypatch.delenv(name, raising=False)
    return put


def test_a_warning_of_one_line_names_a_gpu_that_is_not_used(nvidia_smi, monkeypatch):
    nvidia_smi("echo 'NVIDIA H200'; echo 'NVIDIA H200'")
    (line,) = numerics.device_warnings()
    assert "does not use this machine's GPU (NVIDIA H200)" in line
    assert "make gpu" in line and "jax.devices()'  shows the reason" in line
    assert "\n" not in line
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the user hides the GPU
    assert numerics.device_warnings() == []


def test_a_driver_without_a_device_gives_no_warning(nvidia_smi):
    nvidia_smi("echo 'NVIDIA-SMI has failed'; exit 9")
    assert numerics.device_warnings() == []


def gpu(monkeypatch, capability):
    device = SimpleNamespace(platform="gpu", device_kind="NVIDIA X", compute_capability=capability)
    monkeypatch.setattr(numerics, "accelerator", lambda: device)


@jax_only
@pytest.mark.parametrize(
    ("capability", "chosen", "override", "told"),
    [
        ("9.0", None, None, "tf32"),
        ("9.0", "tensorfloat32", None, "tf32"),
        ("9.0", "highest", None, "float32"),
        ("9.0", "float32", None, "float32"),
        ("9.0", "bfloat16", None, "bfloat16"),
        ("9.0", None, "0", "float32"),
        ("7.0", None, None, "float32"),  # this GPU does not have TF32
    ],
)
def test_the_precision_of_products_on_a_gpu_follows_the_settings_of_jax_and_nvidia(
    monkeypatch, capability, chosen, override, told
):
    import jax

    gpu(monkeypatch, capability)
    if override:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    with jax.default_matmul_precision(chosen or "default"):
        facts = numerics.numerics()
    assert (facts["precision"], facts["device"]) == (told, "NVIDIA X")


@jax_only
def test_a_warning_says_that_a_user_turned_determinism_off(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=false")
    assert numerics.device_warnings() == []  # a CPU does not use the flag
    gpu(monkeypatch, "9.0")
    (line,) = numerics.device_warnings()
    assert "runs cannot be repeated exactly" in line
