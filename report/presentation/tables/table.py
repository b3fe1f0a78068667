"""A table and its fields, each with a raw value and a form for readers.

The raw values become CSV. Page, Markdown, LaTeX, terminal and README show the fields whose ``on``
names them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import pandas as pd

LONG = "page results"
SHORT = "page results terminal"
"""Places of fields with long cells, and of fields with short cells."""


class Field(NamedTuple):
    """One column.

    Attributes:
        key: name of the CSV column; "" for readers only.
        of: function that takes the value from a row's item, or the name of an attribute; by
            default ``key``.
        heading: heading for readers; "" for machines only.
        form: function that writes the value for readers.
        kind: layout on the page: number, lines, verdict, mono, fold, id, copy, heat, cell; a
            ``below`` field has a line of its own under the row.
        on: the field's places: page (with its files), terminal, readme, results (of docs/).
    """

    key: str
    of: Callable[[Any], Any] | str = ""
    heading: str = ""
    form: Callable[[Any], str] = str
    kind: str = ""
    on: str = "page"

    def value(self, item: Any) -> Any:
        """Returns an item's raw value; a pair of numbers becomes two columns of CSV."""
        return (self.of if callable(self.of) else attrgetter(self.of or self.key))(item)


@dataclass(frozen=True)
class Table:
    """A table; ``name`` is the name of its files.

    ``anchor`` returns a row's address in the page, ``shade`` a heat map cell's depth (0 to 1) by
    item and value.
    """

    name: str
    caption: str
    fields: Sequence[Field]
    items: Sequence[Any]
    anchor: Callable[[Any], str] | None = None
    shade: Callable[[Any, Any], float] | None = None

    def at(self, place: str) -> list[Field]:
        return [f for f in self.fields if f.heading and place in f.on.split()]

    def texts(self, place: str = "page") -> list[list[str]]:
        """Returns headings and rows as readers see them."""
        fields = self.at(place)
        rows = [[f.form(f.value(item)) for f in fields] for item in self.items]
        return [[f.heading for f in fields], *rows]

    @property
    def frame(self) -> pd.DataFrame:
        """The raw values by CSV column."""
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
    """Makes fields for machines only: attributes by ``keys``, other values by name."""
    return [Field(key) for key in keys] + [Field(key, of) for key, of in named.items()]


def plain_table(name: str, caption: str, columns: dict[str, str], rows: Sequence) -> Table:
    """Makes a table of tuples; ``columns`` are headings by CSV key."""
    fields = [Field(k, itemgetter(i), heading) for i, (k, heading) in enumerate(columns.items())]
    return Table(name, caption, fields, rows)
