"""Shows results in tables, figures, a page, a terminal summary, documents and MLflow's UI.

``tables`` defines each column once for the page, CSV, TeX, Markdown and the terminal.
"""
