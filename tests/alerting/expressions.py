"""Which metrics and labels the rules and dashboards name, read from their expressions."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import yaml

from monitoring.dashboards.boards import BOARDS

RULES = sorted((Path(__file__).parents[2] / "manifests" / "monitoring" / "rules").glob("*.yaml"))
WORDS = {"by", "on", "ignoring", "group_left", "and", "or", "unless", "offset", "without", "bool"}
SELECTOR = re.compile(r"(?<![\w:.])([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?(?!\s*\(|[\w:])")
GROUPING = re.compile(r"\b(?:by|on|ignoring|group_left)\s*\(([^)]*)\)")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@functools.cache
def expressions() -> dict[str, str]:
    """Every expression of rules and dashboards, by where it stands; dashboards' variables stand for everything."""
    found = {}
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            found |= {f"{path.stem}: {rule.get('alert') or rule['record']}": rule["expr"] for rule in group["rules"]}
    for board in BOARDS:
        for row in board.rows:
            for panel in row.panels:
                for number, query in enumerate(panel.queries):
                    found[f"{board.uid}: {row.title}, {panel.title}, {number}"] = query.expression
        found |= {f"{board.uid}: ${variable.label}": variable.metric for variable in board.variables}
    return {
        where: re.sub(r'=~"\$\w+"', '=~".*"', expression).replace("$__rate_interval", "1m")
        for where, expression in found.items()
    }


@functools.cache
def recorded() -> set[str]:
    """Names of the recording rules' series."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def selectors(expression: str) -> list[tuple[str, dict[str, str]]]:
    """Metrics that an expression reads, each with its matchers: label and value, with the operator before it."""
    bare = re.sub(r"\[[^\]]*\]", "", GROUPING.sub("", expression))
    texts: list[str] = []

    def keep(found: re.Match[str]) -> str:
        texts.append(found[0])
        return f"{{{len(texts) - 1}}}"

    bare = re.sub(r"\{[^}]*\}", keep, bare)
    bare = re.sub(r'"[^"]*"', "", bare)
    made = []
    for found in SELECTOR.finditer(bare):
        name, matchers = found[1], texts[int(found[2][1:-1])] if found[2] else ""
        if name not in WORDS:
            made.append((name, {label: operator + value for label, operator, value in MATCHER.findall(matchers)}))
    return made


def groupings(expression: str) -> set[str]:
    """Labels by which an expression groups or joins."""
    return {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",") if label.strip()}
