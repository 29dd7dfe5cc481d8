"""A short document of sections, tables and facts, as Markdown and as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and what there is to say of each."""

    facts: Mapping[str, str]


@dataclass(frozen=True)
class Items:
    """A list; with ``code`` each entry is a command to type."""

    entries: tuple[str, ...]
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Columns by their heads; the first names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


@dataclass(frozen=True)
class Drawing:
    """An SVG; Markdown leaves it out, so it must not say what no table says."""

    svg: str


Block = Text | Facts | Items | Table | Drawing


@dataclass(frozen=True)
class Section:
    """A headline and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A document of some kind about one thing that has a status, good or bad, with the reasons for it."""

    title: str
    subtitle: str
    status: str
    reasons: tuple[str, ...]
    sections: tuple[Section, ...]
    footer: str
    good: bool = True
    kind: str = "model card"


def render_html(document: Document) -> str:
    """The document as one HTML page, for the screen and for paper."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests |= {
        "text": lambda block: isinstance(block, Text), "facts": lambda block: isinstance(block, Facts),
        "items": lambda block: isinstance(block, Items), "table": lambda block: isinstance(block, Table),
    }  # fmt: skip
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template("card.html.j2").render(document=document, css=css)


def render_markdown(document: Document) -> str:
    """The document as GitHub-flavoured Markdown.

    Example:
        >>> table = Table(("name", "rows"), (("a|b", "3"),), "Counts.")
        >>> print(render_markdown(Document("T", "S", "good", (), (Section("One", (table,)),), "end")))
        # T
        <BLANKLINE>
        S
        <BLANKLINE>
        **Status:** good
        <BLANKLINE>
        ## One
        <BLANKLINE>
        Counts.
        <BLANKLINE>
        | name | rows |
        |---|--:|
        | a\\|b | 3 |
        <BLANKLINE>
        end
        <BLANKLINE>
    """
    parts = [f"# {document.title}", document.subtitle, f"**Status:** {document.status}"]
    if document.reasons:
        parts.append("\n".join(f"- {reason}" for reason in document.reasons))
    for section in document.sections:
        parts.append(f"## {section.title}")
        parts += [text for block in section.blocks if (text := _block_as_markdown(block))]
    return "\n\n".join([*parts, document.footer]) + "\n"


def _block_as_markdown(block: Block) -> str:
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Facts):
        return _table_as_markdown(("", ""), [(f"**{name}**", value) for name, value in block.facts.items()], ("---", "---"))
    if isinstance(block, Items):
        return _items_as_markdown(block)
    if isinstance(block, Table):
        rule = ("---", *["--:"] * (len(block.head) - 1))
        return f"{block.caption}\n\n{_table_as_markdown(block.head, list(block.rows), rule)}"
    return ""


def _items_as_markdown(block: Items) -> str:
    if block.code:
        return "\n".join(("```", *block.entries, "```"))
    return "\n".join(f"- {entry}" for entry in block.entries)


def _table_as_markdown(head: tuple[str, ...], rows: list[tuple[str, ...]], rule: tuple[str, ...]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])
