"""The README's fenced blocks, and what the comment above each says of it.

`<!-- run -->`: it is run. `<!-- shows -->`: what the block before it prints. `<!-- file: PATH -->`:
a file's content. `<!-- mongo -->`: queries for the Mongo shell. No comment: it is only to be read.

    python -m tests.readme.blocks      brings the README's table of settings up to date
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from service import settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
_BLOCK = re.compile(r"^<!-- (?:(?P<what>run|shows|mongo)|file: (?P<path>\S+)) -->\n", re.MULTILINE)
_FENCE = re.compile(r"```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """`what` is the comment's word, `path` what stands after it."""

    what: str
    path: str
    language: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    """Those with a comment, in order. Fails where a comment has no block right below it."""
    found = []
    for comment in _BLOCK.finditer(text):
        fence = _FENCE.match(text, comment.end())
        line = text.count("\n", 0, comment.end()) + 1
        assert fence, f"README.md:{line}: no fenced block follows"
        what, path = comment["what"] or "file", comment["path"] or ""
        found.append(Block(what, path, fence["language"], fence["text"], line))
    return found


def section(text: str, name: str) -> str:
    """What stands between `<!-- NAME -->` and `<!-- /NAME -->`."""
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]


def files(text: str, folder: Path) -> list[Path]:
    """Writes the files that the README shows; where they are."""
    made = []
    for block in blocks(text):
        if block.what == "file":
            path = folder / block.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            made.append(path)
    return made


def main() -> None:
    """Puts the table of settings as it is now into the README."""
    text = README.read_text()
    README.write_text(text.replace(section(text, "settings"), f"{settings.table()}\n"))


if __name__ == "__main__":
    main()
