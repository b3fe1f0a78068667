"""What a reader sees: tables, figures, the page, the terminal's summary, documents, MLflow's UI.

A new column is a field in ``tables``; page, CSV, TeX, Markdown and terminal take it from there.
"""
