"""The command ``ladder init``, which writes a small study for the user to change."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resnet import UserError
from resnet.host import messages
from resnet.study import TEMPLATE, Study
from resnet.terminal.console import say


def init(
    folder: Annotated[
        Path, typer.Argument(help="A new or empty folder.", metavar="FOLDER", show_default=False)
    ],
) -> None:
    """Writes a small study of two rungs, which you can run and change.

    Comments explain every key. The study trains on scikit-learn's digits in about a minute.
    To use this study, add --experiments FOLDER to the other commands.
    """
    place = f"init {messages.one_line(folder)}"
    try:
        # MLflow and study.yaml allow only these characters and this length
        allowed = re.sub(r"[^a-zA-Z0-9_.-]+", "-", folder.resolve().name).strip("-_.")[:61]
        name = allowed or "study"
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{place}: the folder is not empty; name another one, or empty it")
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(TEMPLATE.glob("*.yaml")):
            text = path.read_text(encoding="utf-8").replace("NAME", name)
            (folder / path.name).write_text(text, encoding="utf-8")
            say(f"wrote {escape(messages.one_line(folder / path.name))}")
    except OSError as error:
        raise UserError(
            f"{place}: cannot be written: {error.strerror}; name another folder"
        ) from None
    study = Study.open(folder)
    for words in (("plan", "all"), ("run", "all", "--seeds", "0-4"), ("report", "--summary")):
        say(f"{words[0]}:  {escape(study.command(*words))}")
