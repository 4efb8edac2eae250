"""Lays tables out in the width that there is: no number is ever cut short."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from memsim.report.texts import fold_name, printable

__all__ = ["Column", "FittingTable"]

# Widths of a first column of names that are tried in turn; None leaves the names whole.
_NAME_WIDTHS = (None, 26, 16)


class Column(NamedTuple):
    """Describes a column.

    Attributes:
      heading: may have several lines.
      left: whether its texts start at the left, as names do; numbers end at the right.
      folds: whether its texts may go on in the next line.
    """

    heading: str
    left: bool = False
    folds: bool = False


class FittingTable(JupyterMixin):
    """Shows a table that cuts no number short, however narrow the terminal.

    Where it is too wide its names fold; where that is not enough it is turned on its side, a row
    for each column; and where that is too wide too, columns go on in tables below, each after the
    names again. What has no room even there is a list, with each figure on a line of its own.

    Args:
      title: above it.
      columns: the first holds names.
      rows: texts of all columns; control characters are shown as escapes.
      groups: rows after which a line is drawn.
      keys: how many columns, the first and others, say which row it is; tables below repeat them.

    >>> import rich.console
    >>> from memsim.report.layout import Column, FittingTable
    >>> columns = [Column("policy"), Column("writes"), Column("row operations")]
    >>> table = FittingTable("Writes", columns, [("sws", "1,234,567", "89,012")])
    >>> rich.console.Console(width=30).print(table)  # doctest: +NORMALIZE_WHITESPACE
    Writes
    ┏━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┓
    ┃ policy         ┃       sws ┃
    ┡━━━━━━━━━━━━━━━━╇━━━━━━━━━━━┩
    │ writes         │ 1,234,567 │
    │ row operations │    89,012 │
    └────────────────┴───────────┘
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[Column],
        rows: Iterable[Sequence[str]],
        groups: Iterable[int] = (),
        keys: int = 1,
    ) -> None:
        self.title = printable(title)
        self.columns = list(columns)
        self.rows = [[_safe(text) for text in row] for row in rows]
        self.groups = set(groups)
        self.keys = keys

    @property
    def row_count(self) -> int:
        """Counts the rows, the headings apart."""
        return len(self.rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Gives one table, or several where one does not fit."""

        def needed(table: Table) -> int:
            # rich measures up to the width it is given
            return console.measure(table, options=options.update(width=10_000)).minimum

        everything = range(self.keys, len(self.columns))
        for table in (*(self._table(everything, width) for width in _NAME_WIDTHS), self._turned()):
            if table is not None and needed(table) <= options.max_width:
                yield table
                return
        # nothing holds all of it: parts, one below another
        narrowest = _NAME_WIDTHS[-1]
        parts = self._parts(options.max_width, needed)
        tables = [self._table(part, narrowest) for part in parts]
        if max(map(needed, tables)) <= options.max_width:
            yield from tables
        else:
            yield self._list()

    @property
    def _labels(self) -> list[str]:
        """The headings, each on one line."""
        return [" ".join(column.heading.split("\n")) for column in self.columns]

    def _turned(self) -> Table | None:
        """Makes a column of each row; None where groups of rows, or long texts, belong together."""
        if self.groups or any(column.folds for column in self.columns):
            return None
        keys, narrowest = self.keys, _NAME_WIDTHS[-1]
        names = [
            Column("\n".join([fold_name(row[0], narrowest), *row[1:keys]])) for row in self.rows
        ]
        figures = zip(*(row[keys:] for row in self.rows), strict=True)
        rows = [(label, *row) for label, row in zip(self._labels[keys:], figures, strict=True)]
        turned = FittingTable(self.title, [Column("\n".join(self._labels[:keys])), *names], rows)
        return turned._table(range(1, len(names) + 1), None)

    def _list(self) -> Text:
        """Writes each row as a list, a figure on each line."""
        lines = [self.title]
        for row in self.rows:
            lines.append(", ".join(filter(None, row[: self.keys])))
            pairs = zip(self._labels[self.keys :], row[self.keys :], strict=True)
            lines += [f"  {label}: {text}" for label, text in pairs if text]
        return Text("\n".join(lines), overflow="fold")

    def _parts(self, width: int, needed: Callable[[Table], int]) -> list[list[int]]:
        """Deals columns out to tables, each as full as it can be."""
        parts: list[list[int]] = [[]]
        for column in range(self.keys, len(self.columns)):
            wider = [*parts[-1], column]
            if parts[-1] and needed(self._table(wider, _NAME_WIDTHS[-1])) > width:
                parts.append([column])
            else:
                parts[-1] = wider
        return parts

    def _table(self, chosen: Iterable[int], width: int | None) -> Table:
        """Makes a table of the columns that say which row it is, and the chosen others."""
        chosen = list(chosen)
        # the title only above the first part
        title = Text(self.title, "table.title") if self.keys in chosen or not chosen else None
        chosen = [*range(self.keys), *chosen]
        table = Table(title=title, title_justify="left")
        rows: list[list[Text]] = [[] for _ in self.rows]
        for number in chosen:
            column = self.columns[number]
            left = column.left or number == 0
            texts = [column.heading, *(row[number] for row in self.rows)]
            if width:  # headings and names go on in the next line
                lines = column.heading.split("\n")
                texts[0] = _two_lines("\n".join(fold_name(line, width) for line in lines))
                if number == 0:
                    texts[1:] = [fold_name(text, width) for text in texts[1:]]
            # rich would cut a column without this short before it takes more room
            widest = max(cell_len(line) for text in texts for line in text.split("\n"))
            table.add_column(
                Text(texts[0]), justify="left" if left else "right", vertical="top",
                min_width=None if column.folds else widest, no_wrap=not column.folds,
                overflow="fold",
            )  # fmt: skip
            for row, text in zip(rows, texts[1:], strict=True):
                row.append(Text(text))
        for number, row in enumerate(rows):
            table.add_row(*row, end_section=number in self.groups)
        return table


def _two_lines(heading: str) -> str:
    return heading if "\n" in heading else "\n".join(heading.rsplit(" ", 1))


def _safe(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
