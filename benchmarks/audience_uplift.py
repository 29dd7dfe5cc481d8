"""The two towers on a randomised e-mail test (Hillstrom, MineThatData 2008): whom does a mail move, on held-back customers?

    python -m benchmarks.audience_uplift FILE

A third of 64,000 customers got a mail of men's wear, a third of women's, a third none; the outcome is a visit within
two weeks. The set has no times: customers are divided at random. "No mail" is a campaign like the others here, so that uplift
is the score with the mail less the score without. Each candidate learns from the same columns; the towers by the code that
trains the shipped model, without a graph, because there are no events. Qini is the area between a candidate's curve and the
straight line of sending at random, per customer, with a bootstrap over customers.

Source: Radcliffe, Using control groups to target on predicted lift, Direct Marketing Analytics Journal, 2007.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import lightgbm
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from models.objectives import Lessons, Matured
from models.specs import load_spec
from models.train import Recipe, fit_network, predict

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]
Score = Callable[[Rows], Floats]

ARMS: Final = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
RESAMPLES: Final = 300
TOP: Final = 0.3


def read_customers(path: Path) -> tuple[Rows, NDArray[np.int64], Floats]:
    """Columns of customers, standardised; the arm of each; whether she visited."""
    frame = pl.read_parquet(path)
    words = frame.select("zip_code", "channel", "history_segment").to_dummies()
    numbers = frame.select(pl.col("recency"), pl.col("history").log1p(), "mens", "womens", "newbie")
    columns = np.concatenate([numbers.to_numpy(), words.to_numpy()], axis=1).astype(np.float64)
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    arm = np.array([ARMS.index(name) for name in frame["segment"].to_list()])
    return columns.astype(np.float32), arm, frame["visit"].to_numpy().astype(np.float64)


def with_arm(columns: Rows, arm: NDArray[np.int64]) -> Rows:
    """A customer's columns and, behind them, which mail."""
    return np.concatenate([columns, np.eye(len(ARMS), dtype=np.float32)[arm]], axis=1)


def fit_candidates(rows: Rows, visit: Floats, held: Rows, held_visit: Floats, seed: int) -> dict[str, Score]:
    """Score functions by name, each of a visit given customer and mail; recency and popularity know one side alone."""
    arms, customers = len(ARMS), rows.shape[1] - len(ARMS)
    spec = replace(load_spec("audience").network, epochs=40, batch_size=1_024, learning_rate=2e-3)
    recipe = Recipe(Matured(1, "occurs"), spec, seed, requested=tuple(range(customers, customers + arms)))
    lessons = (Lessons(part, label[:, None].astype(np.float32)) for part, label in ((rows, visit), (held, held_visit)))
    network, _ = fit_network(*lessons, recipe)
    logistic = LogisticRegression(max_iter=500).fit(rows, visit)
    crossed = LogisticRegression(max_iter=500, C=0.1).fit(_cross(rows), visit)
    params = {"objective": "binary", "verbose": -1, "learning_rate": 0.03, "num_leaves": 15, "min_data_in_leaf": 200}
    params |= {"seed": seed, "num_threads": 1}
    trees = lightgbm.train(params, lightgbm.Dataset(rows, visit), 600, [lightgbm.Dataset(held, held_visit)],
                           callbacks=[lightgbm.early_stopping(40, verbose=False)])  # fmt: skip
    shares = np.array([visit[rows[:, customers + arm] == 1].mean() for arm in range(arms)])
    return {
        "two towers": lambda part: predict(network, part),
        "popularity": lambda part: part[:, customers:] @ shares,
        "recency": lambda part: -part[:, 0].astype(np.float64),
        "logistic": lambda part: logistic.predict_proba(part)[:, 1],
        "logistic, crossed": lambda part: crossed.predict_proba(_cross(part))[:, 1],
        "lightgbm": lambda part: np.asarray(trees.predict(part)),
    }


def _cross(rows: Rows) -> Rows:
    customers = rows.shape[1] - len(ARMS)
    crossed = [rows[:, :customers] * rows[:, customers + arm, None] for arm in range(len(ARMS))]
    return np.concatenate([rows, *crossed], axis=1)


def qini_of(uplift: Floats, treated: NDArray[np.bool_], visit: Floats, weight: Floats) -> tuple[float, float]:
    """Area above the straight line, in visits per customer, and the uplift among the top ``TOP``."""
    order = np.argsort(-uplift, kind="stable")
    treated, visit, weight = treated[order], visit[order], weight[order]
    n_treated, n_control = np.cumsum(weight * treated), np.cumsum(weight * ~treated)
    y_treated, y_control = np.cumsum(weight * treated * visit), np.cumsum(weight * ~treated * visit)
    rate = y_treated / np.maximum(n_treated, 1) - y_control / np.maximum(n_control, 1)
    share = np.cumsum(weight) / weight.sum()
    gained = rate * share
    area = float(np.trapezoid(gained, share) - gained[-1] / 2)
    return area, float(rate[np.searchsorted(share, TOP)])


def judge(name: str, columns: Rows, arm: NDArray[np.int64], visit: Floats, scores: dict[str, Score]) -> None:
    """Print each candidate's Qini and top uplift for one mail against none."""
    mail = ARMS.index(name)
    part = (arm == mail) | (arm == 0)
    rows, treated, outcome = columns[part], arm[part] == mail, visit[part]
    effect = outcome[treated].mean() - outcome[~treated].mean()
    sys.stdout.write(f"{name}: {part.sum():,} held-back customers, average effect {effect:+.4f}\n")
    rng = np.random.default_rng(1)
    weights = rng.poisson(1.0, (RESAMPLES, len(rows))).astype(np.float64)
    for candidate, score in scores.items():
        given, without = (score(with_arm(rows, np.full(len(rows), which))) for which in (mail, 0))
        uplift = given - without
        if np.ptp(uplift) < 1e-9:  # knows nothing of whom: ranks by the score itself, a customer's own propensity
            uplift = given
        jitter = rng.random(len(uplift)) * 1e-9
        area, top = qini_of(uplift + jitter, treated, outcome, np.ones(len(rows)))
        drawn = np.array([qini_of(uplift + jitter, treated, outcome, weight) for weight in weights])
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        sys.stdout.write(f"  {candidate:<18} Qini {area:+.5f} [{low[0]:+.5f}, {high[0]:+.5f}]   "
                         f"uplift of the top {TOP:.0%} {top:+.4f} [{low[1]:+.4f}, {high[1]:+.4f}]\n")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    columns, arm, visit = read_customers(parser.parse_args().file)
    part = np.random.default_rng(0).choice(3, len(arm), p=[0.5, 0.15, 0.35])
    rows = [(with_arm(columns[part == number], arm[part == number]), visit[part == number]) for number in range(3)]
    scores = fit_candidates(*rows[0], *rows[1], seed=0)
    held_back = part == 2
    areas = ", ".join(f"{name} {roc_auc_score(rows[2][1], score(rows[2][0])):.3f}" for name, score in scores.items())
    sys.stdout.write(f"AUC of a visit on {held_back.sum():,} held-back customers: {areas}\n")
    for name in ARMS[1:]:
        judge(name, columns[held_back], arm[held_back], visit[held_back], scores)


if __name__ == "__main__":
    main()
