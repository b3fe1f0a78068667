"""A table and its columns. Each column has raw values for CSV and texts for readers.

``Field.on`` names the places that show a column, such as the page or the terminal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import pandas as pd

LONG = "page results"
SHORT = "page results terminal"
"""The places that show a column with long texts (LONG) or with short texts (SHORT)."""


class Field(NamedTuple):
    """One column of a :class:`Table`, which has one row per item.

    Attributes:
        key: name of the CSV column; "" if the CSV file lacks the column.
        of: name of an item's attribute (by default ``key``), or a function from item to value.
        heading: heading for readers; "" if only the CSV file has the column.
        form: function that turns the value into a text for readers.
        kind: layout on the page: number, lines, verdict, mono, fold, id, copy, heat, cell; or
            ``below`` for an extra line under the row.
        on: places that show the column: page (and its Markdown and LaTeX files), terminal, readme,
            results (in docs/).
    """

    key: str
    of: Callable[[Any], Any] | str = ""
    heading: str = ""
    form: Callable[[Any], str] = str
    kind: str = ""
    on: str = "page"

    def value(self, item: Any) -> Any:
        """Returns an item's raw value; a pair of numbers becomes two CSV columns."""
        return (self.of if callable(self.of) else attrgetter(self.of or self.key))(item)


@dataclass(frozen=True)
class Table:
    """A table with one row per item; ``name`` is the stem of the table's file names.

    ``anchor`` returns the address of an item's row on the page. ``shade`` takes an item and a value
    and returns the colour depth of the cell in a heat map, from 0 to 1.
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
        """Returns the headings and the rows as readers see them."""
        fields = self.at(place)
        rows = [[f.form(f.value(item)) for f in fields] for item in self.items]
        return [[f.heading for f in fields], *rows]

    @property
    def frame(self) -> pd.DataFrame:
        """The raw values, with the columns of the CSV file."""
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
    """Returns columns that only the CSV file has; ``named`` maps a key to ``Field.of``."""
    return [Field(key) for key in keys] + [Field(key, of) for key, of in named.items()]


def plain_table(name: str, caption: str, columns: dict[str, str], rows: Sequence) -> Table:
    """Returns a table whose items are tuples; ``columns`` maps CSV columns to headings."""
    fields = [Field(k, itemgetter(i), heading) for i, (k, heading) in enumerate(columns.items())]
    return Table(name, caption, fields, rows)
