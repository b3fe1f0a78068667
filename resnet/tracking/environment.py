"""Makes tags that describe a run's code, claims, software versions and hardware."""

import functools
import json
import socket
from importlib import metadata

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

from resnet.study import Study
from resnet.training import numerics


def environment(study: Study) -> dict[str, str]:
    """Returns tags about the code, claims, software versions and hardware of a new run."""
    # the tag ``bounds`` lets readers check that no bound of a claim changed after the run
    bounds = json.dumps(study.bounds, separators=(",", ":"))
    kept = {"bounds": bounds} if len(bounds) <= MAX_TAG_VAL_LENGTH else {}
    return _here() | {"claims_sha256": study.claims_sha256} | kept


@functools.cache
def _here() -> dict[str, str]:
    own = {"host": socket.gethostname(), "version.mlflow": metadata.version("mlflow")}
    facts = numerics() | own
    if (commit := facts["git_commit"]) != "unknown":
        facts[MLFLOW_GIT_COMMIT] = commit
    return facts
