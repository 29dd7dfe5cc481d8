"""``make bench-send-time``: how well the hour at which users respond is found, beside what the data allow.

On simulated users with a planted best hour: the share whose learned hour lies within one hour of it, by opens, beside the
Bayes-optimal guess of somebody who knows how opens come about; with sending hours even and biased 10:1, corrected and not; each
on worlds of several seeds, with bootstrap intervals over users. On the hours of a question-and-answer site, in time order: NLL
and top 3 beside both histograms, with intervals.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from plumb.settings import prepare_native_libraries

prepare_native_libraries(os.environ)

import numpy as np  # noqa: E402 - TensorFlow reads the environment while it loads
import polars as pl  # noqa: E402

from benchmarks.send_time_bound import guess_best_hours, true_rates  # noqa: E402
from components.declarations import declarations_of  # noqa: E402
from components.training_rows import build_training_rows  # noqa: E402
from features.importing import import_files, prepare_import  # noqa: E402
from features.slots import FACTS, SLOTS  # noqa: E402
from features.workspace import Workspace  # noqa: E402
from models.cutoffs import TEST  # noqa: E402
from models.evaluation import read_evaluation  # noqa: E402
from models.metrics import METRIC_TITLES, SLOT_METRICS  # noqa: E402
from models.slot_learning import fit_slots  # noqa: E402
from models.slot_rows import read_slot_rows, rows_to_learn  # noqa: E402
from models.specs import ModelSpec, load_spec  # noqa: E402
from simulation import simulate  # noqa: E402
from transforms.fit import fit_graph  # noqa: E402

MODEL: Final = "send_time"
BINS: Final = ((0, 0), (1, 4), (5, 9), (10, 19), (20, 39), (40, 10_000))
DAY_HOURS: Final = 24
RESAMPLES: Final = 1_000
Array = np.ndarray[Any, np.dtype[Any]]


def make_rows(root: Path, model: str, imports: Sequence[tuple[Path, str]]) -> Path:
    """Import files and finish a model's rows; the path of its features."""
    workspace = Workspace(root)
    catalog, view = declarations_of(model)
    for path, mapping in imports:
        import_files(prepare_import(workspace, mapping, catalog=None, now_us=0), [path])
    build_training_rows(workspace, model, 0, root / "rows.parquet")
    fit_graph(root / "rows.parquet", catalog, view, root / "graph")
    return root / "graph" / "features.parquet"


def best_working_hour(preference: Array) -> Array:
    """(n,) hour of the day at which working days are best."""
    hours: Array = preference.reshape(-1, 7, DAY_HOURS)[:, :5].sum(axis=1).argmax(axis=1)
    return hours


def hours_apart(one: Array, other: Array) -> Array:
    """(n,) distance around the clock."""
    apart = np.abs(one - other)
    return np.minimum(apart, DAY_HOURS - apart)


@dataclass(frozen=True)
class Guessed:
    """Guesses of the best hours of one or more worlds' users.

    Attributes:
        opens, planted: (n,) opens before the guess, and the true hour.
        guesses: (n,) hours by who guesses.
    """

    opens: Array
    planted: Array
    guesses: dict[str, Array]

    def hits(self, name: str) -> Array:
        """(n,) whether a guess is at most one hour off."""
        near: Array = hours_apart(self.guesses[name], self.planted) <= 1
        return near


def pool(worlds: Sequence[Guessed]) -> Guessed:
    """All worlds' users."""
    names = worlds[0].guesses
    return Guessed(
        np.concatenate([world.opens for world in worlds]),
        np.concatenate([world.planted for world in worlds]),
        {name: np.concatenate([world.guesses[name] for world in worlds]) for name in names},
    )


def measure_simulated(
    root: Path, sending_hours: str, seed: int, options: argparse.Namespace, console: Console
) -> Guessed:  # fmt: skip
    """One world's guesses; prints the strengths and how intervals of the gain fare."""
    summary = simulate(
        users=options.users,
        days=options.days,
        seed=seed,
        out_dir=root / "out",
        sending_hours=sending_hours,
        truth_users=0,
    )
    imports = [(summary.events_path, "subscription"), (summary.accounts_path, "subscription_accounts")]
    features = make_rows(root / "workspace", MODEL, imports)
    spec = load_spec(MODEL)
    assert spec.slots is not None
    ways: dict[str, ModelSpec] = {"corrected": spec, "uncorrected": replace(spec, slots=replace(spec.slots, sends=""))}
    outputs, test = {}, None
    for way, chosen in ways.items():
        assert chosen.slots is not None
        rows = read_slot_rows(features, chosen.slots)
        network, fit = fit_slots(chosen, rows_to_learn(rows, as_served=False), seed=seed)
        test = rows.of(TEST)
        outputs[way] = network.predict(test.transformed, batch_size=4_096, verbose=0)
        console.print(
            f"{sending_hours}, seed {seed}, {way}: {fit.steps} steps; "
            + ", ".join(f"{k} {v:.2f}" for k, v in fit.strengths.items())
        )
    assert test is not None
    now_us = read_now(root / "workspace" / "rows.parquet")
    truth = pl.read_parquet(root / "out" / "truth_users.parquet")
    truth = pl.DataFrame({"user_id": test.entity_ids}).join(truth, on="user_id", how="left", maintain_order="left")
    planted = truth["best_hour_weekday"].to_numpy()
    bound = guess_best_hours(root / "out" / "events.parquet", truth, now_us)
    guesses = {way: best_working_hour(found[:, 1 : 1 + SLOTS]) for way, found in outputs.items()} | {"bound": bound}
    print_intervals(console, outputs["corrected"], truth)
    found = Guessed(test.acts.sum(axis=1), planted, guesses)
    some = found.opens > 0
    console.print(
        f"{sending_hours}, seed {seed}, {some.sum():,} users with opens: "
        + ", ".join(f"{name} {found.hits(name)[some].mean():.3f}" for name in guesses)
    )
    return found


def read_now(path: Path) -> Array:
    """(n,) ``now`` of the test's matured rows, in file order, UTC microseconds."""
    rows = pl.read_parquet(path, columns=["now", "split", "matured"])
    now: Array = rows.filter((pl.col("split") == TEST) & pl.col("matured"))["now"].dt.epoch("us").to_numpy()
    return now


def print_shares(console: Console, sending_hours: str, found: Guessed) -> None:
    """Share of users within one hour of the planted one, by opens, and what lies between corrected and the others."""
    title = f"sending hours {sending_hours}: share within one hour of the planted hour, all seeds"
    table = Table("opens", "users", *found.guesses, title=title)
    for low, high in (*BINS, (1, 10_000)):
        chosen = (found.opens >= low) & (found.opens <= high)
        shares = [_show_mean(found.hits(name)[chosen]) if chosen.any() else "" for name in found.guesses]
        table.add_row("0" if high == 0 else f"{low}-{high}" if high < 10_000 else f"{low}+", f"{chosen.sum():,}", *shares)
    console.print(table)
    some = found.opens > 0
    hits = {name: found.hits(name)[some].astype(float) for name in found.guesses}
    console.print(
        f"users with opens: corrected less uncorrected {_show_mean(hits['corrected'] - hits['uncorrected'])}, "
        f"bound less corrected {_show_mean(hits['bound'] - hits['corrected'])}"
    )


def _show_mean(values: Array) -> str:
    """A mean with its 95 % bootstrap interval over users."""
    weights = np.random.default_rng(0).multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
    low, high = np.quantile(weights @ values / len(values), (0.025, 0.975))
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def print_intervals(console: Console, outputs: Array, truth: pl.DataFrame) -> None:
    """How often the interval of the best slot's gain over now holds the true one, and what waiting truly gains."""
    rates = true_rates(truth)
    facts = {name: outputs[:, 1 + SLOTS + number] for number, name in enumerate(FACTS)}
    now, best = facts["now"].astype(int), facts["best_1"].astype(int)
    user = np.arange(len(outputs))
    gain = rates[user, best] / rates[user, now] - 1
    inside = (facts["gain_low_1"] <= gain) & (gain <= facts["gain_high_1"])
    reach = np.log1p(facts["gain_high_1"]) - np.log1p(facts["gain_low_1"])
    for name, chosen in (("with opens", facts["effective_sample_size"] > 0), ("without", facts["effective_sample_size"] == 0)):
        other = chosen & (now != best)
        console.print(
            f"users {name}: 95 % intervals of the gain hold the true one in {inside[other].mean():.3f} of {other.sum():,} "
            f"cases; their ends lie a factor of {np.exp(np.median(reach[other])):.1f} apart"
        )
    effective = np.quantile(facts["effective_sample_size"], (0.1, 0.5, 0.9)).round(1).tolist()
    console.print(
        f"chance of an open at the best slot {rates[user, best].mean():.3f}, at now {rates[user, now].mean():.3f}, at the "
        f"truly best {rates.max(axis=1).mean():.3f}; effective sample size {effective} at 10, 50 and 90 %"
    )


def measure_site(root: Path, events: Path, console: Console) -> None:
    """Print the question-and-answer site's table."""
    from models.evaluate import evaluate
    from models.train import train

    spec = load_spec("active_hours")
    features = make_rows(root, spec.name, [(events, "mathoverflow_events")])
    train(spec, features, root / "network", seed=0)
    evaluate(spec, features, root / "network", root / "evaluation.json", seed=0)
    found = read_evaluation(root / "evaluation.json")
    heads = [METRIC_TITLES[metric] for metric in SLOT_METRICS]
    table = Table(
        "", *heads, *(f"gain in {head}" for head in heads[::2]), title=f"{found['actions']:,} actions of the last month"
    )
    for name, figures in found["candidates"].items():
        gains = found["gains"].get(name)
        shown = [_figure(gains[metric]) if gains else "" for metric in SLOT_METRICS[::2]]
        table.add_row(
            "this model" if name == "network" else name, *(_figure(figures[metric]) for metric in SLOT_METRICS), *shown
        )
    console.print(table)


def _figure(figure: dict[str, float]) -> str:
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6, 7])
    parser.add_argument("--site", type=Path, help="events of SNAP's sx-mathoverflow as Parquet")
    options = parser.parse_args()
    console = Console(width=180)
    with TemporaryDirectory() as folder:
        for sending_hours in ("uniform", "biased"):
            worlds = [
                measure_simulated(Path(folder) / f"{sending_hours}-{seed}", sending_hours, seed, options, console)
                for seed in options.seeds
            ]
            print_shares(console, sending_hours, pool(worlds))
        if options.site:
            measure_site(Path(folder) / "site", options.site, console)


if __name__ == "__main__":
    main()
