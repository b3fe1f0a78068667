"""The library behind the ladder, one package per task, in the order of the data's way.

Images (``data``), experiments (``study``), networks (``network``), training (``training``), where
runs are kept (``store``, ``records``), what a training leaves there (``tracking``), which jobs run
and how (``engines``), and the terminal (``terminal``). See docs/architecture.md.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder."""

# By default TensorFlow uses oneDNN's kernels only on processors with AVX-512. With AVX2 its own
# gradients of a 3x3 convolution are several times slower: 131 against 181 images/s in rung 1's
# training step. TensorFlow reads the variable when it is imported, and bits depend on it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# On a GPU JAX may pick kernels that add in any order, which exact resume rules out. XLA reads the
# variable when it first computes. A user's own setting of the flag stays.
DETERMINISM = "--xla_gpu_deterministic_ops"
if DETERMINISM not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISM}=true".strip()

# MLflow must not take these from a user's other work; only the tracking store is for this project.
for _name in ("ACTIVE_MODEL_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME", "REGISTRY_URI", "RUN_ID"):
    os.environ.pop(f"MLFLOW_{_name}", None)


class UserError(Exception):
    """A mistake that the user can correct, in one line that says how.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(Exception):  # noqa: N818 - not an error
    """Training stopped on request, after writing a checkpoint to go on from."""
