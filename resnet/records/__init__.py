"""A finished run: what it leaves in MLflow, and its record, a JSON file in git.

``artifacts`` and ``figures`` are what a run leaves, ``json_format`` is the record, ``from_mlflow``
and ``to_mlflow`` are the ways between both, ``course`` compares a run under way with records.
Nothing here imports Keras.
"""

from resnet.records import artifacts, figures
from resnet.records.artifacts import CURVES, DESCRIPTION, diverged, guarded, unguarded
from resnet.records.course import Course, courses
from resnet.records.from_mlflow import key_of, recordable, to_record
from resnet.records.json_format import Record, files, load, load_all, save
from resnet.records.to_mlflow import connect_recorded, restore
