"""The library behind the ladder: a package for each job, in the order of the data's way.

On which images (``data``), what is run (``study``), by which network (``network``), how it is
trained (``training``), where runs are kept (``store``, ``records``), what a training leaves there
(``tracking``), which are due (``engines``), what a person sees of it (``terminal``). A package
imports from those before it; ``make lint`` holds it to that. docs/architecture.md shows the way.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder."""

# Left alone, TensorFlow uses oneDNN's kernels only where the processor has AVX-512. With AVX2 its
# own gradients of a 3x3 convolution are several times slower: 131 against 181 images/s in rung 1's
# training step. It is read when TensorFlow is imported, and bits depend on it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# On a GPU JAX is free to pick kernels that add in any order, which exact resume rules out. XLA
# reads it when it first computes. Whoever sets this flag himself has his way.
DETERMINISM = "--xla_gpu_deterministic_ops"
if DETERMINISM not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISM}=true".strip()

# What MLflow would take from a user's other work; the tracking store alone is named for this one.
for _name in ("ACTIVE_MODEL_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME", "REGISTRY_URI", "RUN_ID"):
    os.environ.pop(f"MLFLOW_{_name}", None)


class UserError(Exception):
    """A mistake the user can mend; its text is one line that also names the way out.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(Exception):  # noqa: N818 - not an error
    """Training stopped on request, after writing a checkpoint to go on from."""
