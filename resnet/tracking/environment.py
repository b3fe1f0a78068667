"""What produced a run: code, claims, versions, hardware."""

import functools
import socket
from importlib import metadata

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

from resnet.study import Study
from resnet.training import numerics


def environment(study: Study) -> dict[str, str]:
    """Tags that say what produced a run of a study."""
    # a reader sees that the bounds were there before the result
    return _here() | {"claims_sha256": study.claims_sha256}


@functools.cache
def _here() -> dict[str, str]:
    own = {"host": socket.gethostname(), "version.mlflow": metadata.version("mlflow")}
    facts = numerics() | own
    if (commit := facts["git_commit"]) != "unknown":
        facts[MLFLOW_GIT_COMMIT] = commit
    return facts
