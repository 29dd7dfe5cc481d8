"""What is wrong with a window's data, found before any test of drift sees it; and the columns that remain to be tested.

A missing value would make a test's p-value missing too, so that 2 % of them hide any shift; a category that the reference
lacks would make another raise. Both are findings of their own, and the tests get the values that are left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift.detectors import compare_shares
from monitoring.drift.sample import Floats, Sample
from monitoring.drift.settings import DriftSettings

MISSING, NOT_FINITE, UNSEEN, ABSENT, SHARE = "missing", "not finite", "unseen", "absent", "share"
LEAST_EXPECTED = 5
"""Chi-square wants at least so many expected in each cell (Cochran, 1954); rarer categories are taken together."""
MOST_TIMES = 4
"""Of a category at most so many times the reference's rows are tested."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one feature; ``value`` and ``reference`` are shares of the rows."""

    feature: str
    kind: str
    value: float
    reference: float
    p_value: float
    detail: str = ""


@dataclass(frozen=True)
class Column:
    """One feature's present values on both sides: float32, or codes 0 to ``categories`` - 1 (0 of them for a number)."""

    name: str
    reference: Floats
    window: Floats
    categories: int = 0


@dataclass(frozen=True)
class Prepared:
    """Columns fit to be tested, names of those with too few values left, and what was found on the way."""

    columns: tuple[Column, ...]
    too_few: tuple[str, ...]
    findings: tuple[Finding, ...]


def prepare(reference: Sample, window: Sample, settings: DriftSettings, chance: float, *, least: int | None = None) -> Prepared:
    """Find what is wrong and leave what can be tested.

    Args:
        chance: of any false finding in this window; divided among the features.
        least: a feature with fewer present values in the reference cannot be tested; ``least_rows`` where left out.
    """
    chance /= max(len(reference.feature_names) + len(reference.flags), 1)
    columns: list[Column] = []
    findings: list[Finding] = []
    found = [*_numbers(reference, window, settings, chance)]
    found += [_category(name, reference, window, settings, chance) for name in reference.categories]
    for column, wrong in found:
        columns += [] if column is None else [column]
        findings += wrong
    least = settings.least_rows if least is None else least
    enough = [len(column.reference) >= least and len(column.window) >= settings.least_rows for column in columns]
    fit = tuple(column for column, is_enough in zip(columns, enough, strict=True) if is_enough)
    too_few = tuple(column.name for column, is_enough in zip(columns, enough, strict=True) if not is_enough)
    return Prepared(fit, too_few, tuple(findings))


def check_flags(reference: Sample, window: Sample, settings: DriftSettings, chance: float) -> tuple[Finding, ...]:
    """Rows' own troubles (cold, degraded) whose share has changed; only where the reference has such rows, too."""
    chance /= max(len(reference.feature_names) + len(reference.flags), 1)
    shared = [name for name in reference.flags if name in window.flags]
    found = (_missing(name, reference.flags[name], window.flags[name], settings, chance) for name in shared)
    return tuple(replace(each, kind=SHARE) for part in found for each in part)


Found = tuple[Column | None, list[Finding]]


def _numbers(reference: Sample, window: Sample, settings: DriftSettings, chance: float) -> Iterator[Found]:
    # Features one after another: a column of a row-wise matrix would be read at a cache line a value.
    old, new = np.ascontiguousarray(reference.numbers.T), np.ascontiguousarray(window.numbers.T)
    place = {name: number for number, name in enumerate(window.names)}
    for number, name in enumerate(reference.names):
        if name not in place:
            yield None, [Finding(name, ABSENT, 1.0, 0.0, 0.0, "the window has no such feature")]
        else:
            yield _number(name, old[number], new[place[name]], settings, chance)


def _number(name: str, old: Floats, new: Floats, settings: DriftSettings, chance: float) -> Found:
    old_present, new_present = np.isfinite(old), np.isfinite(new)
    if old_present.all() and new_present.all():
        return Column(name, old, new), []
    findings = _missing(name, np.isnan(old), np.isnan(new), settings, chance)
    infinite = float(np.isinf(new).mean()) if len(new) else 0.0
    if infinite > settings.missing_floor:
        findings.append(Finding(name, NOT_FINITE, infinite, float(np.isinf(old).mean()), 0.0, "infinite values"))
    return Column(name, old[old_present], new[new_present]), findings


def _category(name: str, reference: Sample, window: Sample, settings: DriftSettings, chance: float) -> Found:
    if name not in window.categories:
        return None, [Finding(name, ABSENT, 1.0, 0.0, 0.0, "the window has no such feature")]
    old, new = reference.categories[name], window.categories[name]
    findings = _missing(name, _nulls(old), _nulls(new), settings, chance)
    known = old.drop_null().unique()
    codes_old = pc.index_in(old.drop_null(), value_set=known).to_numpy(zero_copy_only=False)
    present = new.drop_null()
    codes_new = pc.index_in(present, value_set=known)
    unseen = pc.is_null(codes_new).to_numpy(zero_copy_only=False)
    if unseen.any() and unseen.mean() > settings.unseen_floor:
        findings.append(_unseen(name, present, unseen, len(old)))
    left = codes_new.drop_null().to_numpy(zero_copy_only=False)
    if len(left) > MOST_TIMES * len(codes_old):
        # Of few rows beside very many, a value that is gone would be expected too rarely for a test, and taken for a rare one.
        left = left[np.linspace(0, len(left) - 1, MOST_TIMES * len(codes_old)).astype(np.int64)]
    pooled_old, pooled_new, count = pool_rare(codes_old, left)
    return Column(name, pooled_old, pooled_new, count), findings


def pool_rare(
    reference: npt.NDArray[np.integer], window: npt.NDArray[np.integer]
) -> tuple[Floats, Floats, int]:  # fmt: skip
    """Codes of both sides, the most frequent first, with all too rare for a chi-square test as one last code; and how many
    codes there are."""
    count = int(max(reference.max(initial=0), window.max(initial=0))) + 1
    old, new = np.bincount(reference, minlength=count), np.bincount(window, minlength=count)
    both = old + new
    smaller = min(len(reference), len(window)) / max(len(reference) + len(window), 1)
    order = np.argsort(-both, kind="stable")
    frequent = int((both * smaller >= LEAST_EXPECTED).sum())
    rank = np.empty(count, np.int64)
    rank[order] = np.minimum(np.arange(count), frequent)
    kept = min(frequent + 1, count)
    if kept > 1 and both[order[kept - 1 :]].sum() * smaller < LEAST_EXPECTED:
        rank, kept = np.minimum(rank, kept - 2), kept - 1
    return rank[reference].astype(np.float32), rank[window].astype(np.float32), kept


def _missing(
    name: str, old: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_], settings: DriftSettings, chance: float
) -> list[Finding]:
    before, now = float(old.mean()) if len(old) else 0.0, float(new.mean()) if len(new) else 0.0
    if abs(now - before) < settings.missing_floor or not len(old) or not len(new):
        return []
    p_value = compare_shares(old, new)
    return [Finding(name, MISSING, now, before, p_value)] if p_value <= chance else []


def _unseen(name: str, present: pa.Array, unseen: npt.NDArray[np.bool_], reference_rows: int) -> Finding:
    values = present.filter(pa.array(unseen)).value_counts()
    ranked = sorted(values.to_pylist(), key=lambda entry: (-entry["counts"], entry["values"]))
    # A value whose true share is s is missed by all n rows of the reference with chance (1 - s)^n.
    share = float(unseen.mean())
    named = ", ".join(str(entry["values"]) for entry in ranked[:5])
    return Finding(name, UNSEEN, share, 0.0, float((1 - share) ** reference_rows), named)


def _nulls(values: pa.Array) -> npt.NDArray[np.bool_]:
    nulls: npt.NDArray[np.bool_] = values.is_null().to_numpy(zero_copy_only=False)
    return nulls
