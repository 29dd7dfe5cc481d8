"""A score on the screen: what it is, why, and every finished feature behind it; readable at 80 columns."""

from __future__ import annotations

from typing import Any, Final

TOP_SIGNALS: Final = 8
MOST_VALUES: Final = 4
ARROWS: Final = {"raises": "▲ raises", "lowers": "▼ lowers", "none": "- none"}


def show(reply: dict[str, Any]) -> None:
    """Print the first prediction of a V1 reply that came with features and explanation."""
    from rich.console import Console

    prediction = reply["predictions"][0]
    console = Console(highlight=False)
    for line in describe_score(reply):
        console.print(line, markup=False, soft_wrap=False)
    console.print()
    console.print(tabulate_reasons(prediction))
    for line in describe_rest(prediction):
        console.print(line, markup=False)
    console.print()
    console.print(tabulate_features(prediction["features"]))


def describe_score(reply: dict[str, Any]) -> list[str]:
    """The score, who gave it to whom, the horizons, and what is known of the entity."""
    prediction = reply["predictions"][0]
    known = "cold: nothing is known of it" if prediction["cold"] else "known"
    if prediction["degraded"]:
        known += f", degraded: {prediction['degraded']}"
    lines = [
        f"score {prediction['score']:.6f} of {prediction['entity_id']}",
        f"model {reply['model_name']} version {reply['model_version']} ({reply['revision']})",
        f"state {known}",
        f"log position {prediction['log_partition']}:{prediction['log_offset']}, age {prediction['age_s']:.0f} s",
    ]
    if "within" in prediction:
        lines.append("outcome within " + ", ".join(f"{name}: {value:.4f}" for name, value in prediction["within"].items()))
    if "slots" in prediction:
        lines += describe_slots(prediction["slots"])
    explanation = prediction["explanation"]
    gap = prediction["score"] - explanation["base"]
    lines.append(f"why: {gap:+.6f} from {explanation['base']:.6f}, which the mean training row would score")
    return lines


def describe_slots(slots: dict[str, Any]) -> list[str]:
    """When to send, and why: a line for each of the best hours, and one for what they rest on."""
    lines = [f"now {slots['now']} in {slots['time_zone']}"]
    for best in slots["best"]:
        gain = best["gain_over_now"]
        interval = f"{gain['value']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]"
        lines.append(f"send {best['begins']}, next at {best['starts_at']}: gain over now {interval}")
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in slots["weights"].items())
    lines.append(f"from {slots['reason']} ({weights}); effective sample size {slots['effective_sample_size']:.1f}")
    return lines


def tabulate_reasons(prediction: dict[str, Any]) -> Any:
    """The signals that move the score most: direction, points, and the finished values behind them."""
    from rich.table import Table

    table = Table("signal", "direction", "points", "values")
    table.columns[2].justify = "right"
    for entry in _top(prediction):
        points = f"{entry['contribution']:+.6f}"
        table.add_row(entry["signal"], ARROWS[entry["direction"]], points, describe_values(entry["signal"], entry["values"]))
    return table


def describe_rest(prediction: dict[str, Any]) -> list[str]:
    """One line for the signals that the table leaves out; none where it leaves out nothing that counts."""
    entries = prediction["explanation"]["contributions"]
    rest = [entry["contribution"] for entry in entries[len(_top(prediction)) :]]
    return [f"{len(rest)} other signals together: {sum(rest):+.6f}"] if any(rest) else []


def describe_values(signal: str, values: dict[str, Any]) -> str:
    """``count_7d 3, count_30d 9``: names without the signal's own, and no more than fit."""
    words = []
    for name, value in values.items():
        shown = value if isinstance(value, str) else describe_number(value)
        words.append(shown if name == signal else f"{name.removeprefix(f'{signal}_')} {shown}")
    more = [f"and {len(words) - MOST_VALUES} more"] if len(words) > MOST_VALUES else []
    return ", ".join([*words[:MOST_VALUES], *more])


def describe_number(value: float) -> str:
    """Whole numbers whole, with commas; others to six figures."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def tabulate_features(features: dict[str, float | None]) -> Any:
    """Every finished feature with its value."""
    from rich.table import Table

    table = Table("finished feature", "value")
    table.columns[1].justify = "right"
    for name, value in features.items():
        table.add_row(name, "" if value is None else describe_number(value))
    return table


def _top(prediction: dict[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = prediction["explanation"]["contributions"]
    return [entry for entry in entries[:TOP_SIGNALS] if entry["contribution"]]
