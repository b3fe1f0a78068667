"""Collects the facts that, besides experiment, data and seed, determine a run's exact results."""

import contextlib
import functools
import os
import platform
import subprocess
from importlib import metadata
from typing import Any

from resnet import DETERMINISM
from resnet.host import command_lines, machine, version
from resnet.network import keras

# These environment variables limit a backend's instruction sets or change how it computes.
_VARIABLES = {"tensorflow": ("ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"), "jax": ("XLA_FLAGS",)}


def numerics(lanes: int = 1) -> dict[str, str]:
    """Returns a dictionary of the facts that a run's exact results depend on.

    For example, threads and instruction sets determine how sums are split. In the quick profile,
    rung 1's first epoch has a loss of 1.569 with two threads and AVX-512. One thread with AVX-512
    gives 1.604, and two threads with AVX2 give 1.527. ``threads`` counts the threads per operation.
    ``precision`` is the precision of float32 products. ``instruction_set`` names the processor's
    newest instruction set and the environment variables that change how the backend computes.
    """
    backend = keras.backend.backend()
    names = [name for name in _VARIABLES.get(backend, ()) if name in os.environ]
    limits = [f"{name}={os.environ[name]}" for name in names]
    facts = {
        "backend": backend,
        "device": _device(),
        "threads": str(_threads()),
        "lanes": str(lanes),
        "precision": _precision(),
        "instruction_set": " ".join([machine.instruction_set(), *limits]),
        "version.python": platform.python_version(),
    } | _code()
    for package in ("keras", "tensorflow", "jax", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            facts[f"version.{package}"] = metadata.version(package)
    return facts


_code = functools.cache(version)


@functools.cache
def accelerator() -> Any:
    """Returns JAX's accelerator, or None on a CPU or with another backend.

    Keras sets and reads a network's hundreds of small arrays one by one. To keep this
    fast, arrays stay on the CPU unless code puts them on the accelerator.
    """
    if keras.backend.backend() != "jax":
        return None
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return None
    with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS may exclude the CPU
        jax.config.update("jax_default_device", jax.devices("cpu")[0])
    return device


def _threads() -> int:
    if keras.backend.backend() != "tensorflow":
        return machine.cores()
    import tensorflow as tf

    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    return chosen or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or machine.cores()


def _tensorflow_gpu() -> dict[str, Any]:
    """Returns details of TensorFlow's first GPU, or {} without a GPU or with another backend."""
    if keras.backend.backend() != "tensorflow":
        return {}
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        return {"device_name": "GPU"} | tf.config.experimental.get_device_details(gpu)
    return {}


def _device() -> str:
    if device := accelerator():
        return device.device_kind
    name = _tensorflow_gpu().get("device_name")
    return name or f"{machine.processor()}, {os.cpu_count()} cores"


def _precision() -> str:
    """Returns the precision of float32 matrix products. TF32 keeps 10 of a mantissa's 23 bits."""
    if device := accelerator():
        import jax

        chosen = jax.config.jax_default_matmul_precision or "default"
        rounded = chosen in ("default", "fastest", "high", "tensorfloat32")
        capability = float(getattr(device, "compute_capability", None) or 0)
        if not rounded:
            return {"highest": "float32"}.get(chosen, chosen)
    elif gpu := _tensorflow_gpu():
        import tensorflow as tf

        rounded = tf.config.experimental.tensor_float_32_execution_enabled()
        capability = float(".".join(map(str, gpu.get("compute_capability", (0,)))))
    else:
        return "float32"
    # NVIDIA's libraries obey NVIDIA_TF32_OVERRIDE even if a framework asks for TF32.
    able = capability >= 8 and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
    return "tf32" if rounded and able else "float32"


def device_warnings() -> list[str]:
    """Returns warnings about this machine's accelerator, one line each."""
    lines = []
    if gpu := _unused_gpu():
        lines.append(
            f"{keras.backend.backend()} does not use this machine's GPU ({gpu}). To use it, type  "
            "make gpu  and then  KERAS_BACKEND=jax .venv-gpu/bin/python runner.py ...  If it stays "
            f"unused,  {command_lines.command('-c', 'import jax; jax.devices()')}  shows the reason"
        )
    if accelerator() and f"{DETERMINISM}=true" not in os.environ["XLA_FLAGS"].lower():
        lines.append(f"runs cannot be repeated exactly, because XLA_FLAGS turns {DETERMINISM} off")
    return lines


def _unused_gpu() -> str:
    """Returns the name of a GPU that the backend does not use and the user does not hide, or ""."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or os.environ.get("JAX_PLATFORMS") == "cpu" or accelerator() or _tensorflow_gpu():
        return ""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # there is no driver or GPU
        output = subprocess.check_output(query, text=True, timeout=10, stderr=subprocess.DEVNULL)  # noqa: S603
        return output.partition("\n")[0]
    return ""
