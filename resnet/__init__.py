"""The library that runs a study's ladder. Each task has its own package.

``data`` reads images and ``study`` reads experiments. ``network`` builds networks and ``training``
trains them. ``store``, ``records`` and ``tracking`` save runs. ``engines`` trains many jobs, and
``terminal`` is the command line. docs/architecture.md shows how the packages depend on each other.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# By default, TensorFlow uses oneDNN's kernels only on processors with AVX-512. On a processor with
# AVX2, these kernels train rung 1 at 181 images/s instead of 131. A run's exact results depend on
# this variable, which TensorFlow reads on import.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# On a GPU, JAX may choose kernels that add numbers in varying order. Such kernels make exact
# resume impossible. XLA reads XLA_FLAGS when it first computes. A user's own setting is kept.
DETERMINISM = "--xla_gpu_deterministic_ops"
if DETERMINISM not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISM}=true".strip()

# These variables may be meant for another project. This project needs only MLFLOW_TRACKING_URI.
for _name in ("ACTIVE_MODEL_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME", "REGISTRY_URI", "RUN_ID"):
    os.environ.pop(f"MLFLOW_{_name}", None)


class UserError(Exception):
    """A mistake that the user can correct. The command line prints it and exits with code 2."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """Training stopped on request and wrote a checkpoint, from which it can resume."""
