"""What a rollout is to do and by what it is judged: stages, gates, and how often it may roll a good canary back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from features.errors import explain
from monitoring.errors import PlanError
from monitoring.verdicts import Severity

MEASURES: Final = {
    "errors": "share of requests that failed, canary less stable",
    "latency": "share of requests slower than twice stable's median of the moment, canary less stable",
    "degraded": "share of answers given without the store, canary less stable",
    "score": "largest difference in the share of scores in any range",
    "features": "largest difference in the share of a feature's values in any range, missing ones included",
    "labels": "mean log loss, or absolute bias, on matured labels, canary less stable",
    "estimate": "log loss that the scores themselves expect (no labels needed), canary less stable",
}
"""The gates there are, and what each one's tolerance is measured in."""

PROOFS: Final = ("bound", "bake")
MAX_STAGES: Final = 20


@dataclass(frozen=True)
class GateSpec:
    """One gate.

    A gate fails when its test is sure that the canary is worse *and* the effect is at least ``tolerance`` (in the unit of
    ``MEASURES``). ``severity`` says what a failure does. ``proof`` says what a pass takes: "bound", that the canary is
    shown to be at most ``tolerance`` worse; "bake", that nothing was found in the stage's time and users. ``least_users``
    replaces the stage's; 0 waits for nobody.
    """

    kind: str
    tolerance: float
    severity: Severity = Severity.ROLL_BACK
    proof: str = "bake"
    least_users: int | None = None


@dataclass(frozen=True)
class Stage:
    """Percent of the users on the canary, for at least ``bake_s`` seconds and ``least_users`` different canary users."""

    percent: int
    bake_s: int
    least_users: int


@dataclass(frozen=True)
class Plan:
    """A rollout's course.

    ``false_rollback_rate`` bounds the chance that the whole rollout, all gates, slices, stages and looks together, rolls
    back a canary that is equal to stable. A stage that stays inconclusive for ``hold_s`` seconds after its bake pages;
    ``blind_s`` seconds without requests of either revision fail the check on data. ``require`` names monitors outside the
    controller ("drift.stable.features") without whose pass no stage ends.
    """

    stages: tuple[Stage, ...]
    gates: tuple[GateSpec, ...]
    false_rollback_rate: float = 0.01
    hold_s: int = 1_800
    blind_s: int = 60
    require: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_plan(self)


def check_plan(plan: Plan) -> None:
    """Refuse a plan that could never end or never begin.

    Raises:
        PlanError: percents do not rise within (0, 100], a gate is unknown or named twice, or a number is out of its range.
    """
    percents = [stage.percent for stage in plan.stages]
    rising = all(low < high for low, high in zip([0, *percents], percents, strict=False))
    if not 1 <= len(percents) <= MAX_STAGES or not rising or percents[-1] >= 100:
        raise _refusal("stages", f"1 to {MAX_STAGES} percents that rise and stay above 0 and below 100", str(percents))
    for stage in plan.stages:
        if stage.bake_s < 0 or stage.least_users < 1:
            raise _refusal(f"stage {stage.percent:g} %", "bake_s >= 0 and least_users >= 1", str(stage))
    kinds = [gate.kind for gate in plan.gates]
    if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(MEASURES):
        raise _refusal("gates", f"each at most once of {', '.join(MEASURES)}", str(kinds))
    for gate in plan.gates:
        if gate.proof not in PROOFS or not gate.tolerance > 0 or (gate.least_users is not None and gate.least_users < 0):
            raise _refusal(f"gate {gate.kind}", f"tolerance > 0, proof of {', '.join(PROOFS)}, least_users >= 0", str(gate))
    if not 0 < plan.false_rollback_rate < 1:
        raise _refusal("false_rollback_rate", "a probability between 0 and 1", str(plan.false_rollback_rate))
    if plan.hold_s <= 0 or plan.blind_s <= 0:
        raise _refusal("hold_s and blind_s", "positive seconds", f"{plan.hold_s} and {plan.blind_s}")


_Part = TypeVar("_Part", Stage, GateSpec)


def read_plan(mapping: object) -> Plan:
    """A plan from the mapping that a YAML or JSON file holds; what it leaves out is as in ``DEFAULT_PLAN``.

    Example:
        >>> read_plan({"stages": [{"percent": 10, "bake_s": 60, "least_users": 50}]}).stages[0].percent
        10

    Raises:
        PlanError: a key is unknown, a value is of another type, or the plan contradicts itself (``check_plan``).
    """
    known = {field.name for field in fields(Plan)}
    if not isinstance(mapping, Mapping) or not set(mapping) <= known:
        raise _refusal("keys", f"some of {', '.join(sorted(known))}", str(mapping))
    stages = _read_parts(mapping.get("stages"), Stage) or DEFAULT_PLAN.stages
    gates = _read_parts(mapping.get("gates"), GateSpec) or DEFAULT_PLAN.gates
    return Plan(
        stages,
        gates,
        _number(mapping.get("false_rollback_rate", DEFAULT_PLAN.false_rollback_rate), "false_rollback_rate"),
        _whole(_number(mapping.get("hold_s", DEFAULT_PLAN.hold_s), "hold_s"), "hold_s"),
        _whole(_number(mapping.get("blind_s", DEFAULT_PLAN.blind_s), "blind_s"), "blind_s"),
        _read_names(mapping.get("require", ())),
    )


def describe_plan(plan: Plan) -> dict[str, Any]:
    """The mapping that ``read_plan`` turns into the same plan."""
    return {
        **plan.__dict__,
        "stages": [dict(stage.__dict__) for stage in plan.stages],
        "gates": [{**gate.__dict__, "severity": str(gate.severity)} for gate in plan.gates],
        "require": list(plan.require),
    }


def _read_names(names: object) -> tuple[str, ...]:
    if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise _refusal("require", "a list of monitors' names", str(names))
    return tuple(names)


def _read_parts(parts: object, kind: type[_Part]) -> tuple[_Part, ...]:
    if parts is None:
        return ()
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not all(isinstance(part, Mapping) for part in parts):
        raise _refusal(f"{kind.__name__} list", "a list of mappings", str(parts))
    return tuple(_read_part(part, kind) for part in parts)


def _read_part(part: Mapping[str, Any], kind: type[_Part]) -> _Part:
    known = {field.name: field for field in fields(kind)}
    if not set(part) <= set(known):
        raise _refusal(kind.__name__, f"some of {', '.join(known)}", str(dict(part)))
    values: dict[str, Any] = {}
    for name, value in part.items():
        if name in ("kind", "proof"):
            values[name] = str(value)
        elif name == "severity":
            values[name] = _severity(value)
        elif name == "least_users" and value is None:
            values[name] = None
        else:
            number = _number(value, name)
            values[name] = number if name == "tolerance" else _whole(number, name)
    try:
        return kind(**values)
    except TypeError as error:
        raise _refusal(kind.__name__, f"all of {', '.join(known)} that have no default", str(error)) from error


def _severity(value: object) -> Severity:
    if value not in list(Severity):
        raise _refusal("severity", f"one of {', '.join(Severity)}", str(value))
    return Severity(str(value))


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refusal(name, "a number", repr(value))
    return float(value)


def _whole(number: float, name: str) -> int:
    if number != int(number):
        raise _refusal(name, "a whole number", repr(number))
    return int(number)


def _refusal(which: str, expected: str, got: str) -> PlanError:
    return PlanError(explain("rollout plan refused", which=which, expected=expected, got=got, next_step="correct the plan"))


DEFAULT_PLAN: Final = Plan(
    stages=(Stage(5, 600, 200), Stage(25, 900, 500), Stage(50, 900, 1_000)),
    gates=(
        GateSpec("errors", 0.01, proof="bound"),
        GateSpec("latency", 0.10, proof="bound"),
        GateSpec("degraded", 0.02, proof="bound"),
        GateSpec("score", 0.10),
        GateSpec("features", 0.10, least_users=20),
        GateSpec("labels", 0.02, least_users=0),
        GateSpec("estimate", 0.02, severity=Severity.PAGE),
    ),
)
"""5, 25 and 50 %, then promotion, in 40 minutes at the soonest; a good canary is rolled back in at most 1 % of rollouts."""
