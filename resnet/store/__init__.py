"""The one way to MLflow: a :class:`Store` is opened by :func:`connect`, and waited for if need be.

It imports no Keras, so that the report and a cluster's nodes may use it at little cost. Another
kind of store is an address that :func:`connect` takes.
"""

from resnet.store.database import (
    FAILURES,
    check,
    deleted,
    download,
    nothing_run,
    reason,
    try_database,
)
from resnet.store.store import Run, Store, connect, data_of
