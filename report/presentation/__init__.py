"""What shows: tables and figures of a content, the page, the terminal's summary, documents, the UI.

A new column is a field in ``tables``; page, CSV, TeX, Markdown and terminal take it from there.
"""
