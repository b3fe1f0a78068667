"""Converts finished MLflow runs to records and back. The package does not import Keras.

``artifacts`` and ``figures`` make the files that a run stores in MLflow. During training,
``course`` compares a run with records.
"""

from resnet.records import artifacts, figures
from resnet.records.artifacts import CURVES, DESCRIPTION, diverged, guarded, unguarded
from resnet.records.course import Course, courses
from resnet.records.from_mlflow import key_of, recordable, to_record
from resnet.records.json_format import Record, files, load, load_all, save
from resnet.records.to_mlflow import connect_recorded, restore
