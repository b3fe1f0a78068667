"""A finished run: its artifacts in MLflow, its record in git, and the way from one to the other.

:class:`Record` is the text file, :func:`to_record` makes it of a run and :func:`restore` a run of
it; ``figures`` draws what a run leaves. Nothing here imports Keras.
"""

from resnet.records import figures
from resnet.records.artifacts import (
    CONTEXT,
    CURVES,
    DESCRIPTION,
    PARENT,
    describe,
    diverged,
    guarded,
    predictions,
    save_results,
    settings,
    unguarded,
)
from resnet.records.course import Course, courses
from resnet.records.exchange import key_of, recordable, restore, to_record
from resnet.records.record import Record, files, load, load_all, save
