"""Every `plumb` command that a runbook, a guide or an alert tells somebody to type is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer._click.exceptions import UsageError
from typer.core import TyperGroup

from plumb import alert_view
from plumb.app import root

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs" / "runbooks").glob("*.md")), ROOT / "docs" / "rollouts.md", ROOT / "README.md"]
RULES = sorted((ROOT / "manifests" / "monitoring" / "rules").glob("*.yaml"))
COMMAND = typer.main.get_command(root)
NUMBERS = {"FROM": "1", "TO": "2", "NUMBER": "3"}
"""What stands in a page for a version or a rollout's number."""


def fenced(text: str) -> Iterator[str]:
    """Whole command lines of code blocks."""
    for block in re.findall(r"```\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("plumb "):
                yield line.strip()


def inline(text: str) -> Iterator[str]:
    """Commands in running text, which may leave out what is not at issue."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for found in re.findall(r"`(?:\.venv-monitoring/bin/)?(plumb [^`]+)`", prose):
        yield " ".join(found.split())


def split(line: str) -> list[str]:
    """Words after ``plumb``, without a comment, and with numbers where a page names one."""
    return [NUMBERS.get(word, word.removesuffix("...")) for word in shlex.split(line, comments=True)[1:]]


def find(words: list[str]) -> tuple[typer.Context, list[str]]:
    """The command that words name, in its context, and what follows."""
    context = COMMAND.make_context("plumb", list(words))
    rest = [*context._protected_args, *context.args]
    while isinstance(context.command, TyperGroup) and rest and not rest[0].startswith("-"):
        command = context.command.get_command(context, rest[0])
        assert command is not None, f"there is no command {rest[0]!r} in {context.command_path}"
        context = type(context)(command, parent=context, info_name=rest[0])
        rest = rest[1:]
    return context, rest


def whole_lines() -> list[tuple[str, str]]:
    return [(page.name, line) for page in PAGES for line in fenced(page.read_text())]


def next_steps() -> list[tuple[str, str]]:
    """What `plumb alerts show` says to type next."""
    said = [*alert_view.NEXT.values(), *alert_view.START.values()]
    return [("plumb alerts show", line.format(service="churn", model="churn")) for line in said if line.startswith("plumb ")]


def mentions() -> list[tuple[str, str]]:
    found = [(page.name, line) for page in PAGES for line in inline(page.read_text())]
    rules = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    said = [text for rule in rules for text in rule.get("annotations", {}).values()]
    return found + [("rules", re.sub(r"{{.*?}}", "LABEL", line)) for text in said for line in inline(text)]


@pytest.mark.parametrize(("page", "line"), whole_lines() + next_steps(), ids=lambda each: each[:60])
def test_a_command_line_of_a_page_is_taken_as_it_stands(page: str, line: str) -> None:
    context, rest = find(split(line))
    context.command.parse_args(context, rest)


@pytest.mark.parametrize(("page", "line"), mentions(), ids=lambda each: each[:60])
def test_a_command_that_a_page_mentions_exists_with_its_options(page: str, line: str) -> None:
    words = split(re.sub(r"\[.*?\]|\|\S*|,$", "", line))
    context, rest = find(words)
    known = {name for option in context.command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    named = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert named <= known, f"{context.command_path} has {sorted(known)}"


def test_pages_and_rules_do_name_commands() -> None:
    assert "rules" in {page for page, _ in mentions()}
    assert len(whole_lines()) > 50
    assert {page.name for page in PAGES} <= {page for page, _ in [*whole_lines(), *mentions()]}


@pytest.mark.parametrize("line", ["plumb alert list", "plumb alerts ack A --until 2h", "plumb drift check --modell churn"])
def test_what_the_command_line_refuses_is_found(line: str) -> None:
    with pytest.raises((AssertionError, UsageError)):
        test_a_command_line_of_a_page_is_taken_as_it_stands("", line)
