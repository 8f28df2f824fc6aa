"""A table that fits the terminal it is drawn in. Each row has cells and a remark (a sentence). Where the remark has no
room beside the cells it stands below them; where the cells have none, the columns needed least are left out and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP = 2
"""Spaces between two columns."""
REMARK_WIDTH = 24
"""A remark has room beside the cells where this many columns are left for it, or as many as the longest one needs."""
NARROWEST = 12
"""The first column is folded to this width before anything is cut."""


@dataclass(frozen=True)
class Column:
    """One column of cells. Of those with a `rank` the highest is left out first; 0 stays."""

    name: str
    justify: Literal["left", "right"] = "right"
    rank: int = 0


@dataclass(frozen=True)
class Row:
    """Cells (a newline starts another line of the cell) and a remark, as plain text or with a style of its own."""

    cells: Sequence[str | Text]
    remark: str | Text = ""
    style: str = ""


@dataclass(frozen=True)
class Sheet:
    """What rich draws: `console.print(sheet)`. No text in it is markup."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    remark: str
    """Header of the remarks, where they have a column."""
    title: str = ""
    caption: Sequence[str] = field(default_factory=tuple)
    lead: str = ""
    """Stands before a remark that is drawn below its row."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="bold")
        if self._beside(options.max_width):
            yield self._table()
        else:
            yield from self._stacked(console, options.max_width)
        for line in self.caption:
            yield Text(line, style="dim italic")

    def plain(self) -> list[list[str]]:
        """Cells and remarks without styles."""
        return [[_text(cell).plain for cell in (*row.cells, row.remark)] for row in self.rows]

    def _beside(self, width: int) -> bool:
        longest = max((_width(row.remark) for row in self.rows), default=0)
        needed = sum(self._widths()) + GAP * len(self.columns) + GAP
        return needed + max(len(self.remark), min(longest, REMARK_WIDTH)) <= width

    def _widths(self) -> list[int]:
        """What each column takes, unfolded."""
        cells = [[column.name, *(row.cells[index] for row in self.rows)] for index, column in enumerate(self.columns)]
        return [max(_width(cell) for cell in each) for each in cells]

    def _table(self) -> RenderableType:
        table = Table(box=box.SIMPLE_HEAD, expand=False, pad_edge=False, collapse_padding=True)
        for column in self.columns:
            table.add_column(column.name, justify=column.justify, no_wrap=True)
        table.add_column(self.remark, overflow="fold")
        for row in self.rows:
            table.add_row(*(_text(cell) for cell in row.cells), _text(row.remark), style=row.style)
        return table

    def _stacked(self, console: Console, width: int) -> Iterator[RenderableType]:
        widths = self._widths()
        shown = _fitting(self.columns, widths, width)
        left_out = [column.name for index, column in enumerate(self.columns) if index not in shown]
        room = width - sum(widths[index] for index in shown[1:]) - GAP * (len(shown) - 1)
        widths[0] = min(widths[0], max(room, NARROWEST))
        columns, widths = [self.columns[index] for index in shown], [widths[index] for index in shown]
        if self.title:
            yield ""
        yield from _lines(console, columns, [column.name for column in columns], widths, "bold")
        yield Text("─" * min(width, sum(widths) + GAP * (len(widths) - 1)))
        for row in self.rows:
            yield from _lines(console, columns, [row.cells[index] for index in shown], widths, row.style)
            remark = _text(row.remark)
            if remark.plain:
                below = Text(self.lead, style=row.style) + remark
                below.style = row.style
                yield Padding(below, (0, 0, 0, GAP), expand=False)
        if left_out:
            names = ", ".join(" ".join(name.split()) for name in left_out)
            yield Text(f"no room for: {names} (a wider window shows them)", style="dim")
        yield ""


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Numbers of the columns that are shown."""
    shown = list(range(len(columns)))
    for index in sorted(shown, key=lambda index: -columns[index].rank):
        needed = sum(widths[i] for i in shown) + GAP * (len(shown) - 1)
        if needed <= width or not columns[index].rank:
            break
        shown.remove(index)
    return shown


def _lines(
    console: Console, columns: Sequence[Column], cells: Sequence[str | Text], widths: Sequence[int], style: str
) -> Iterator[Text]:
    """The lines of one row, its cells side by side."""
    folded = [
        list(_text(cell).wrap(console, width, overflow="fold")) for cell, width in zip(cells, widths, strict=True)
    ]
    for number in range(max(len(lines) for lines in folded)):
        line = Text(style=style)
        for index, (column, lines, width) in enumerate(zip(columns, folded, widths, strict=True)):
            piece = lines[number].copy() if number < len(lines) else Text()
            piece.rstrip()
            piece.align(column.justify, width)
            line.append(" " * GAP if index else "").append_text(piece)
        line.rstrip()
        yield line


def _text(cell: str | Text) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _width(cell: str | Text) -> int:
    return max((line.cell_len for line in _text(cell).split("\n")), default=0)
