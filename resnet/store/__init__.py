"""The one way to MLflow: :func:`connect` opens a :class:`Store`, which is waited for if need be.

It imports no Keras, so that the report and a cluster's nodes may use it at little cost. Another
kind of store is an address that :func:`connect` takes.
"""

from resnet.store.database import FAILURES, download, explained, nothing_run
from resnet.store.store import Run, Store, connect, data_of
