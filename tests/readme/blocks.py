"""The fenced blocks of the README and of docs/, and what the comment above each says of it.

    <!-- run -->             it is run
    <!-- shows -->           what the block before it prints: the same but for ids and times
    <!-- like -->            JSON of the same form as what the block before it prints, which is only
                             a look and may be taken again
    <!-- file: PATH -->      a file's content
    <!-- mongo -->           queries for the Mongo shell
    <!-- not run: REASON --> only to be read

Every block in one of `LANGUAGES` has such a comment; any other is a picture.

    python -m tests.readme.blocks      brings the table of settings in docs/ up to date
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from service import settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
OPERATING = ROOT / "docs" / "operating.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"sh", "python", "javascript", "json", "http"}
ANSWERS = {"shows", "like"}
_COMMENT = r"^<!-- (?P<what>run|shows|like|mongo|file|not run)(?:: (?P<note>[^\n]+?))? -->\n"
_FENCE = r"^```(?P<language>\w+)\n(?P<text>.*?)^```$"
_BLOCK = re.compile(f"(?:{_COMMENT})?{_FENCE}", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """`what` is the comment's word ("" without one), `note` what follows its colon."""

    page: Path
    line: int
    what: str
    note: str
    language: str
    text: str
    answered: bool = False
    """Whether the next block shows what this one prints."""

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    found = [_block(page, text, match) for match in _BLOCK.finditer(text)]
    following = [*(block.what for block in found), ""][1:]
    return [
        replace(block, answered=what in ANSWERS)
        for block, what in zip(found, following, strict=True)
    ]


def _block(page: Path, text: str, match: re.Match[str]) -> Block:
    line = text.count("\n", 0, match.start()) + 1
    what, note = match["what"] or "", match["note"] or ""
    return Block(page, line, what, note, match["language"], match["text"])


def all_blocks() -> list[Block]:
    """Those of all pages."""
    return [block for page in PAGES for block in blocks(page)]


def comments(page: Path) -> int:
    """How many comments say something of a block."""
    return len(re.findall(_COMMENT, page.read_text(), re.MULTILINE))


def section(page: Path, name: str) -> str:
    """What stands between `<!-- NAME -->` and `<!-- /NAME -->`. Fails where that isn't there."""
    _, begin, rest = page.read_text().partition(f"<!-- {name} -->\n")
    found, end, _ = rest.partition(f"<!-- /{name} -->")
    assert begin, f"{page.name}: no <!-- {name} -->"
    assert end, f"{page.name}: no <!-- /{name} -->"
    return found


def rows(page: Path, name: str) -> list[list[str]]:
    """The table in a section: the cells of each row, without its head."""
    lines = [line for line in section(page, name).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def files(folder: Path) -> list[Path]:
    """Writes the files that the pages show; where they are."""
    made = []
    for block in all_blocks():
        if block.what == "file":
            path = folder / block.note
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            made.append(path)
    return made


def main() -> None:
    """Puts the table of settings as it is now into its page."""
    text = OPERATING.read_text()
    OPERATING.write_text(text.replace(section(OPERATING, "settings"), f"{settings.table()}\n"))


if __name__ == "__main__":
    main()
