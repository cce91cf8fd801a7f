"""What a row of a table is about: the text under the header that says "name", with cells that span rows and columns."""

import re

from bs4 import Tag
from bs4.element import PageElement

#: Headers under which names stand, best first.
_NAMES = (
    re.compile(r"^(item |weapon |display )?names?$", re.IGNORECASE),
    re.compile(r"\bname\b", re.IGNORECASE),
    re.compile(r"^(items?|titles?|weapons?|objects?|equipment|materials?|tools?)$", re.IGNORECASE),
    re.compile(
        r"^(nombre|nom|nome|bezeichnung|gegenstand|objet|objeto|название|имя|предмет|名称|名前|アイテム|이름|아이템|tên)$",
        re.IGNORECASE,
    ),
)
#: A span beyond this is a mistake or an attack; browsers stop at 1000 columns.
_SPAN = 1000
_CELLS = 200_000

Grid = dict[tuple[int, int], Tag]


def text_of(tag: Tag) -> str:
    """The words of a tag, without those that only edit or hide."""
    return " ".join(" ".join(str(part) for part in tag.strings if _said(part, tag)).split())


def _said(part: PageElement, tag: Tag) -> bool:
    for parent in part.parents:
        if parent is tag:
            return True
        if _unsaid(parent):
            return False
    return True


def _unsaid(tag: Tag) -> bool:
    names = tag.get_attribute_list("class")
    return tag.name in ("script", "style", "noscript", "sup") or "mw-editsection" in names


class Table:
    """A table as the grid that one sees."""

    def __init__(self, table: Tag) -> None:
        self._grid: Grid = {}
        self._at: dict[int, tuple[int, int]] = {}
        self._rows = [row for row in table.find_all("tr") if row.find_parent("table") is table]
        for r, row in enumerate(self._rows):
            self._place(r, row)
        self._width = 1 + max((column for _, column in self._grid), default=-1)
        self._heads = [self._is_head(r, row) for r, row in enumerate(self._rows)]

    def _place(self, r: int, row: Tag) -> None:
        c = 0
        for cell in row.find_all(["td", "th"], recursive=False):
            while (r, c) in self._grid:
                c += 1
            self._at[id(cell)] = (r, c)
            down = min(_number(cell, "rowspan") or _SPAN, len(self._rows) - r)  # 0: to the end
            across = max(_number(cell, "colspan"), 1)
            if len(self._grid) + down * across > _CELLS:
                down = across = 1
            for spot in ((r + y, c + x) for y in range(down) for x in range(across)):
                self._grid.setdefault(spot, cell)
            c += across

    def _is_head(self, r: int, row: Tag) -> bool:
        cells = [self._grid[r, c] for c in range(self._width) if (r, c) in self._grid]
        if not cells:
            return False
        if all(cell.name == "th" for cell in cells) or (
            row.parent is not None and row.parent.name == "thead"
        ):
            return True
        # Some tables write their headers in plain or bold cells.
        plain = r == 0 and not row.find("img") and all(cell.name == "td" for cell in cells)
        return plain and any(_NAMES[0].match(text_of(cell)) for cell in cells)

    def name_at(self, cell: Tag) -> str:
        """The name that belongs to what is in a cell; empty if the table has none."""
        if id(cell) not in self._at:
            return ""
        r, c = self._at[id(cell)]
        if (name := self._below(r, c)) is not None:
            return name
        return self._beside(r, c) or self._first_text(r, c)

    def headed(self, cell: Tag) -> str:
        """The same, but only if a header says so."""
        if id(cell) not in self._at:
            return ""
        r, c = self._at[id(cell)]
        return self._below(r, c) or self._beside(r, c)

    def _below(self, r: int, c: int) -> str | None:
        """By headers above: the text of this row in the column of names; None if there is no such column."""
        heads, named = self._headers(r), False
        for pattern in _NAMES:
            columns = [x for x, texts in heads.items() if any(pattern.search(text) for text in texts)]
            named = named or bool(columns)
            # Several things in a row: their names all stand on the same side of their pictures.
            for x in sorted(columns, key=lambda x: (abs(x - c), (x < c) == (min(columns) > 0))):
                if (r, x) in self._grid and (text := text_of(self._grid[r, x])):
                    return text
        return "" if named else None

    def _headers(self, r: int) -> dict[int, list[str]]:
        """The texts of the header rows that hold for a row, by column. A header over everything is a heading."""
        last = next((y for y in range(r - 1, -1, -1) if self._heads[y]), None)
        if last is None:
            return {}
        first = last
        while first > 0 and self._heads[first - 1]:
            first -= 1
        texts: dict[int, list[str]] = {}
        for y in range(first, last + 1):
            across = {id(self._grid[y, x]) for x in range(self._width) if (y, x) in self._grid}
            for x in range(self._width if len(across) > 1 or self._width == 1 else 0):
                if (y, x) in self._grid:
                    texts.setdefault(x, []).append(text_of(self._grid[y, x]))
        return texts or (self._headers(first) if first else {})

    def _beside(self, r: int, c: int) -> str:
        """By headers at the left: a table that lies on its side has its names in a row."""
        for pattern in _NAMES:
            for y in range(len(self._rows)):
                head = self._grid.get((y, 0))
                on_side = head is not None and head.name == "th" and y != r and c > 0 and not self._heads[y]
                if on_side and head is not None and pattern.search(text_of(head)) and (y, c) in self._grid:
                    return text_of(self._grid[y, c])
        return ""

    def _first_text(self, r: int, c: int) -> str:
        """The row's own header, else its first words that are no number."""
        spots = [self._grid[r, x] for x in range(self._width) if (r, x) in self._grid]
        cells = list({id(cell): cell for cell in spots}.values())
        heads = [cell for cell in cells if cell.name == "th"]
        for cell in (*heads, self._grid[r, c], *cells):
            text = text_of(cell)
            if re.search(r"[^\W\d_]{2}", text):
                return text
        return ""


def _number(cell: Tag, name: str) -> int:
    text = str(cell.get(name, "1")).strip()
    return min(int(text), _SPAN) if re.fullmatch("[0-9]{1,6}", text) else 1
