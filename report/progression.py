"""The progression table: rung by rung, published against reproduced."""

import pandas as pd

from resnet import config


def progression(
    runs: pd.DataFrame, experiments: list[config.Experiment], published: dict[str, float]
) -> pd.DataFrame:
    """Published and reproduced accuracy of each experiment, with its gain over the one before.

    Args:
        runs: from :func:`report.runs.finished`, of one dataset.
        experiments: resolved, in the ladder's order; runs of other configurations are left out.
        published: accuracies in [0, 1] by experiment name.

    Returns:
        One row an experiment, accuracies in [0, 1] and NaN where there is none: ``title``,
        ``published``, ``reproduced`` (mean over seeds), ``gain`` over the rung before,
        ``seeds``, ``epochs`` (mean) and ``seconds`` (sum).
    """
    rows, before = [], float("nan")
    for experiment in experiments:
        own = runs[runs["tags.config_hash"] == experiment.hash()] if len(runs) else runs
        accuracy = own["metrics.test_accuracy"].mean() if len(own) else float("nan")
        is_rung = config.rung_number(experiment.name) is not None
        rows.append(
            {
                "name": experiment.name,
                "title": experiment.title,
                "published": published.get(experiment.name, float("nan")),
                "reproduced": accuracy,
                "gain": accuracy - before if is_rung else float("nan"),
                "seeds": len(own),
                "epochs": own["metrics.epochs_run"].mean() if len(own) else float("nan"),
                "seconds": own["metrics.train_seconds"].sum() if len(own) else 0.0,
            }
        )
        before = accuracy
    return pd.DataFrame(rows).set_index("name")
