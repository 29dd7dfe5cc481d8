"""Charts of a model of hours of the week: everybody's week, and the shape of a day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from features.slots import SLOTS
from models.charts import INK, Chart
from models.figures import BETTER, HALF, MATURED

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HOURS: Final = 24
EVERY: Final = 3
PALEST: Final = 0.05


def draw_week(shares: Sequence[float]) -> str:
    """A cell for each hour of the week, the darker the likelier, from the least likely one to the likeliest.

    Args:
        shares: (168,) a distribution.
    """
    lowest, highest = min(shares), max(shares)
    chart = Chart((900, 260), (0, HOURS), (len(DAYS), 0), margins=(64, 24, 8, 44))
    for slot, share in enumerate(shares):
        day, hour = divmod(slot, HOURS)
        opacity = PALEST + (1 - PALEST) * (share - lowest) / ((highest - lowest) or 1.0)
        x, y = chart.x(hour), chart.y(day)
        width, height = chart.x(hour + 1) - x - 1, chart.y(day + 1) - y - 1
        chart.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{BETTER}" '
            f'fill-opacity="{opacity:.3f}"><title>{DAYS[day]} {hour:02d}:00, {100 * share:.2f} %</title></rect>'
        )
    for day, name in enumerate(DAYS):
        chart.text(56, chart.y(day + 0.5) + 4, name, anchor="end", colour=INK)
    for hour in range(0, HOURS, EVERY):
        chart.text(chart.x(hour), 233, f"{hour:02d}:00")
    chart.text(chart.x(HOURS / 2), 254, "hour by the user's clock", colour=INK)
    best = max(range(SLOTS), key=lambda slot: shares[slot])
    told = f"likeliest is {DAYS[best // HOURS]} {best % HOURS:02d}:00 with {100 * highest:.2f} %, the mean {100 / SLOTS:.2f} %"
    return chart.svg("Everybody's week, if all hours were sent to alike", f"Share of responses by hour of the week; {told}.")


def draw_shape(shape: Sequence[float]) -> str:
    """How readily people respond so many hours from the middle of their day, as a share of the best hour.

    Args:
        shape: (24,) by hours after any one hour; the best one is put in the middle.
    """
    peak, highest = max(range(HOURS), key=lambda hour: shape[hour]), max(shape)
    chart = Chart(HALF, (-HOURS / 2, HOURS / 2), (0, 1.05))
    chart.axes(
        [(hour, f"{hour:+d}" if hour else "0") for hour in range(-9, 10, EVERY)],
        [(share / 4, f"{25 * share} %") for share in range(5)],
        "hours from a person's best hour", "chance against the best hour",
    )  # fmt: skip
    for after in range(-HOURS // 2, HOURS // 2):
        chart.bar((after - 0.4, after + 0.4), (0, shape[(peak + after) % HOURS] / highest), MATURED)
    sides = (shape[(peak + side) % HOURS] / highest for side in (-3, 3))
    told = " and ".join(f"{100 * share:.0f} %" for share in sides)
    return chart.svg("The shape of a day", f"Three hours before and after the best one the chance is {told} of it.")
