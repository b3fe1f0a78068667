"""The command ``ladder keys``: lists the settings of experiments and the quantities of claims."""

from typing import Annotated

import typer
from rich.markup import escape

from resnet import UserError
from resnet.study import Study, own_networks, settings
from resnet.terminal import Experiments, say


def keys(
    prefix: Annotated[str, typer.Argument(help="Prefix of keys to list.", metavar="PREFIX")] = "",
    experiments: Experiments = None,
) -> None:
    """Lists the keys of experiment files and of --set, with type, default and meaning.

    Two groups are listed only if PREFIX asks for them: the settings of Keras's optimizers and
    schedules (training.optimizer, training.schedule), and the quantities of claims (claims).
    """
    if prefix.startswith("claims"):
        return _quantities()
    networks = own_networks(Study.open(experiments).folder)
    found = [s for s in settings(networks) if f"{s.key}.{s.of}".startswith(prefix)]
    if not prefix:
        found = [s for s in found if not (s.of and s.key.startswith("training"))]
    if not found:
        raise UserError(f"keys {prefix!r}: no key begins with this; to list all keys:  ladder keys")
    for s in found:
        of = f" [dim]({s.of})[/dim]" * bool(s.of)
        default = "" if s.default == "required" else f" [dim]= {escape(s.default)}[/dim]"
        say(f"[bold]{s.key}[/bold]{of}: {escape(s.type)}{default}")
        if s.about:
            say(f"    {escape(s.about)}")


def _quantities() -> None:
    from report.analysis import QUANTITIES

    for name, quantity in QUANTITIES.items():
        needs = f" (needs the key '{quantity.needs}')" if quantity.needs else ""
        say(f"[bold]{name}[/bold]: {quantity.unit}{needs}")
        say(f"    {escape(quantity.meaning[:1].upper() + quantity.meaning[1:])}.")
