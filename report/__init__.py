"""From what MLflow holds to tables, figures, judged claims and a page; reads nothing else."""
