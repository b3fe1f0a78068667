"""Shows results as tables, figures, a page, a terminal summary, documents and in MLflow's UI.

``tables`` defines each column once, for the page, CSV, TeX, Markdown and the terminal.
"""
