"""A table, once: fields that give a raw value, and how a reader sees it.

The raw values become CSV as they are; page, Markdown, LaTeX, terminal and README show the same
fields, or those of them that are meant for there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import pandas as pd

LONG = "page results"
SHORT = "page results terminal"
"""Places that have room for long cells, or for a few short ones."""


class Field(NamedTuple):
    """One column.

    Attributes:
        key: its name in CSV; "" for readers only.
        of: takes the value from a row's item; or its attribute's name, by default ``key``.
        heading: a reader's; "" for machines only.
        form: makes a reader's text of the value.
        kind: how the page sets it: number, lines, verdict, mono, fold, id, copy,
            heat, cell; below is a line of its own under the row.
        on: where it stands: page (and the files beside it), terminal, readme, results (of docs/).
    """

    key: str
    of: Callable[[Any], Any] | str = ""
    heading: str = ""
    form: Callable[[Any], str] = str
    kind: str = ""
    on: str = "page"

    def value(self, item: Any) -> Any:
        """Returns the raw value; a pair of numbers becomes two columns of CSV."""
        return (self.of if callable(self.of) else attrgetter(self.of or self.key))(item)


@dataclass(frozen=True)
class Table:
    """A table under one file name.

    ``anchor`` gives a row's address in the page, ``shade`` the depth (0 to 1) of a heat map's cell
    by item and value.
    """

    name: str
    caption: str
    fields: Sequence[Field]
    items: Sequence[Any]
    anchor: Callable[[Any], str] | None = None
    shade: Callable[[Any, Any], float] | None = None

    def at(self, place: str) -> list[Field]:
        """Returns the fields that stand at a place."""
        return [f for f in self.fields if f.heading and place in f.on.split()]

    def texts(self, place: str = "page") -> list[list[str]]:
        """Headings and rows as a reader sees them."""
        fields = self.at(place)
        rows = [[f.form(f.value(item)) for f in fields] for item in self.items]
        return [[f.heading for f in fields], *rows]

    @property
    def frame(self) -> pd.DataFrame:
        """Every value as it is."""
        frame: dict[str, list] = {}
        for f in self.fields:
            values = [f.value(item) for item in self.items]
            if f.key and values and isinstance(values[0], tuple):
                frame |= {
                    f"{f.key}_{end}": [v[i] for v in values] for i, end in ((0, "low"), (1, "high"))
                }
            elif f.key:
                frame[f.key] = values
        return pd.DataFrame(frame)


def raw(*keys: str, **named: Any) -> list[Field]:
    """Fields for machines only: attributes, and what is taken otherwise by its key."""
    return [Field(key) for key in keys] + [Field(key, of) for key, of in named.items()]


def plain_table(name: str, caption: str, columns: dict[str, str], rows: Sequence) -> Table:
    """Makes a table of rows as they are; ``columns`` gives a reader's heading by key."""
    fields = [Field(k, itemgetter(i), heading) for i, (k, heading) in enumerate(columns.items())]
    return Table(name, caption, fields, rows)
