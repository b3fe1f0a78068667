"""Shows results as tables, figures, a page, a terminal summary and documents, and in MLflow's UI.

``tables`` defines each column once for the page, CSV, TeX, Markdown and the terminal.
"""
