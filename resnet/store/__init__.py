"""Opens a study's tracking store, which is an MLflow database or server.

The package does not import Keras, so commands without any training start quickly.
"""

from resnet.store.database import FAILURES, download, explained, nothing_run
from resnet.store.store import Run, Store, connect, data_of
