"""Rules and routes of Prometheus and Alertmanager, as their own tools judge them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from services.servers import find_program

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests" / "monitoring"
RULES = sorted((MANIFESTS / "rules").glob("*.yaml"))
CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))


def call(*words: str | Path) -> str:
    done = subprocess.run([find_program(str(words[0])), *map(str, words[1:])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_promtool_and_amtool_accept_every_file() -> None:
    assert "FAILED" not in call("promtool", "check", "rules", *RULES)
    call("promtool", "check", "config", MANIFESTS / "prometheus.yml")
    call("amtool", "check-config", MANIFESTS / "alertmanager.yml")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_stay_quiet_when_not(path: Path) -> None:
    assert "FAILED" not in call("promtool", "test", "rules", path)


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires, quiet = set(), set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                (fires if check["exp_alerts"] else quiet).add(check["alertname"])
    names = {rule["alert"] for rule in alerts()}
    assert fires == quiet == names


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_what_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["labels"]["kind"]
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url"}
    assert len(said["summary"]) < 120
    assert not said["summary"].endswith(".")
    assert said["description"].endswith(".")
    runbook = ROOT / said["runbook_url"]
    assert runbook.is_file()
    assert f"`{rule['alert']}`" in runbook.read_text(), f"{runbook.name} does not name the alert that leads to it"


@pytest.mark.parametrize(("severity", "receiver"), [("page", "page"), ("ticket", "ticket")])
def test_severity_decides_who_is_told(severity: str, receiver: str) -> None:
    words = ("config", "routes", "test", f"--config.file={MANIFESTS / 'alertmanager.yml'}", f"severity={severity}")
    assert call("amtool", *words, "service=churn", "model=churn").strip() == receiver


def test_alerts_are_grouped_by_service_and_model_and_no_secret_is_in_the_repository() -> None:
    content = yaml.safe_load((MANIFESTS / "alertmanager.yml").read_text())
    assert content["route"]["group_by"] == ["service", "model"]
    assert content["receivers"] == [{"name": "page"}, {"name": "ticket"}]


def test_what_inhibits_or_is_inhibited_is_an_alert_that_there_is() -> None:
    names, kinds = {rule["alert"] for rule in alerts()}, {rule["labels"]["kind"] for rule in alerts()}
    for rule in yaml.safe_load((MANIFESTS / "alertmanager.yml").read_text())["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            label, _, value = matcher.partition("=")
            known = {"alertname": names, "kind": kinds, "job": {"plane"}}[label]
            assert set(value.strip('~"').split("|")) <= known, matcher
