"""What MLflow's UI shows of the experiment: its description and its saved views.

A saved view is a tag of the experiment in which the UI keeps the state of its page: filter,
grouping and charts (MLflow 3.16 and later have a menu of them). An address names one.
"""

import json
from urllib.parse import urlencode

CURVES, PARTS, LADDERS = "curves", "parts", "ladders"
"""The saved views: rung by rung, the same with parts of steps, and ladder by ladder."""
RUNGS = "tags.rung != ''"
"""MLflow's filter for every run of a rung, restored or own; parents have no such tag."""

# without it the UI opens what it has for language models
_TRAINING = {"workflowType": "machine_learning"}


def tags(experiment_id: str, about: str) -> dict[str, str]:
    """Returns the tags that an experiment is given."""
    accuracy, training, steps = "Accuracy", "Training", "By rung, which is the step"
    curves = {
        accuracy: [
            _line(accuracy, "val_accuracy"),
            _line(accuracy, "accuracy"),
            _chart("BAR", accuracy, "test_accuracy"),
        ],
        training: [
            _line(training, "val_loss"),
            _line(training, "loss"),
            _line(training, "learning_rate"),
        ],
    }
    ladder = f"{RUNGS} AND tags.part_of IS NULL"
    views = {
        CURVES: _view("Rungs: curves, averaged over seeds", ladder, curves, group="series"),
        PARTS: _view("Rungs and parts of steps", RUNGS, curves, group="series"),
        LADDERS: _view(
            "Ladders: test accuracy by rung with its 95 % interval, beside the published one",
            "tags.ladder != ''",
            {
                steps: [
                    _line(steps, "test_accuracy", "low", "high", "published"),
                    _line(steps, "gain"),
                ],
            },
        ),
    }
    models = f"#/experiments/{experiment_id}/models?{urlencode(_TRAINING)}"
    description = f"""\
{about}

* [The rungs' curves]({address("", experiment_id)}), averaged over seeds, and those
  [with the steps taken apart]({address("", experiment_id, PARTS)}): `{RUNGS}` finds every run of
  a rung, restored or own, and the tag `series` what may be averaged.
* [The ladders]({address("", experiment_id, LADDERS)}), one an invocation or set of restored runs:
  test accuracy with its 95 % interval (low, high), deviation and seeds, published accuracy and
  gain, with the rung as step; the report is among the artifacts.
* [The models]({models}), ranked by their test accuracy, and
  [those with a name](#/models), which `mlflow models serve` takes.
"""
    return {"mlflow.note.content": description} | {
        f"mlflow.sharedViewState.{key}": view for key, view in views.items()
    }


def address(server: str, experiment_id: str, view: str = CURVES) -> str:
    """Returns where a server shows a saved view's charts."""
    query = {"viewStateShareKey": view, "compareRunsMode": "CHART"} | _TRAINING
    return f"{server}#/experiments/{experiment_id}/runs?{urlencode(query)}"


def _view(name: str, where: str, sections: dict[str, list[dict]], group: str = "") -> str:
    key = {"mode": "tag", "groupByData": group}
    state = {
        "searchFilter": where,
        # by time the UI would add the parents, which have the metrics of many rungs
        "orderByKey": "metrics.`test_accuracy`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
        "groupsExpanded": {},
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [key]} if group else None,
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": True} for name in sections
        ],
        "compareRunCharts": [chart for charts in sections.values() for chart in charts],
        "isAccordionReordered": True,
    }
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def _chart(kind: str, section: str, metric: str) -> dict:
    return {
        "uuid": f"{section}-{metric}",
        "type": kind,
        "metricSectionId": section,
        "metricKey": metric,
        "runsCountToCompare": 50,
    }


def _line(section: str, *metrics: str) -> dict:
    return _chart("LINE", section, metrics[0]) | {
        "selectedMetricKeys": metrics,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "yAxisKey": "metric",
        "range": {},
        "lineSmoothness": 0,
    }
