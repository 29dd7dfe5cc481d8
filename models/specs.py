"""What a model is: label, population, cutoffs, network, baselines and what it takes to be blessed.

A spec is frozen data. Everything else in this room is a function of a spec and of rows, so a new model is a new spec.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from features.declarations import Condition
from features.errors import explain
from features.layout import DAY_S
from models.errors import SpecError
from models.metrics import Metric
from models.slot_spec import SlotSpec
from models.spec_checks import check_spec, require

SPEC_MODULES: Final = ("churn", "returning", "redemption", "propensity", "cancellation", "audience", "send_time")
"""Modules of this room that hold specs, each a tuple ``SPECS``, in the order they are listed."""


@dataclass(frozen=True)
class Attribution:
    """An outcome counts for its last touch alone: the newest one at or before it, no older than ``window_s``.

    Attributes:
        touches: event types that are touches.
        window_s: an outcome later than this after its last touch counts for none.
        match: attribute that touch and outcome must share (a campaign, an offer); empty for none.
    """

    touches: tuple[str, ...]
    window_s: int
    match: str = ""


@dataclass(frozen=True)
class Exclusion:
    """An outcome is void once one of these events follows it within ``window_s``: an order that is cancelled, say.

    ``match`` names the attribute that both must share (an order's number); empty for none.
    """

    event_types: tuple[str, ...]
    window_s: int
    match: str = ""


@dataclass(frozen=True)
class Closing:
    """Events after which no outcome can follow: an arrival ends the time in which a booking can be cancelled.

    A hazard knows a closed row to its horizon, long before that has passed. A row does not mature by it: the rows that
    close early are those without an outcome, and taking them alone would understate the rate.
    ``match`` names the attribute that closing event and touch must share; empty for none.
    """

    event_types: tuple[str, ...]
    match: str = ""


@dataclass(frozen=True)
class LabelSpec:
    """What is predicted for a row at (entity, now).

    Attributes:
        outcome: event types that count as the outcome.
        horizon_s: the outcome counts if its event_time is in (now, now + horizon_s].
        positive: ``occurs`` labels a row 1 if the outcome happens within the horizon, ``absent`` if it does not.
        label_delay_s: how long after it happened an outcome may still arrive; a row is matured once horizon and
            delay have passed.
        where: conditions that every outcome event must meet.
        attribution: counts an outcome only for the row at its last touch; None where every outcome counts.
        exclusion: what makes an outcome void; None where nothing does.
        closing: what ends the wait for an outcome before the horizon; None where nothing does.
        earlier_horizons_s: shorter horizons that a hazard model also answers for, and that reports show.
    """

    outcome: tuple[str, ...]
    horizon_s: int
    positive: Literal["occurs", "absent"]
    label_delay_s: int
    where: tuple[Condition, ...] = ()
    attribution: Attribution | None = None
    exclusion: Exclusion | None = None
    closing: Closing | None = None
    earlier_horizons_s: tuple[int, ...] = ()


@dataclass(frozen=True)
class Population:
    """Who gets a row at a cutoff, from what was known by then.

    An entity is in once an ``entered_by`` event is known, out once a ``left_by`` event is known that is not older than
    the newest known entry, and in again with a newer entry. With ``active_within_s`` the newest known entry must also be
    no older than that many seconds.
    """

    entered_by: tuple[str, ...]
    left_by: tuple[str, ...] = ()
    active_within_s: int | None = None


@dataclass(frozen=True)
class CutoffPlan:
    """When rows are drawn.

    Attributes:
        every_s: distance of the base dates, whole days.
        most: how many base dates at most, the newest ones.
        warm_up_s: no base date sooner than this after the first event is known.
        validation_share: share of entities held out for early stopping and calibration. They are whole entities: the
            label windows of one entity's rows overlap, so a later row of a trained entity would be no fresh evidence.
        hold_out: ``entities``, or ``newest`` for the newest rows instead, where what is asked about changes more than who
            is asked: a calibration by later campaigns holds for campaigns that are to come.
        rows_at_most: larger draws are thinned by a hash of (entity, base date), the test to a third of them.
        at_events: draw a row at each event of these types instead of at base dates; request fields of the same names as
            the event's attributes take their values.
        cold_share: share of rows that are repeated with an empty state and default profile values, so that the score of an
            unknown user is learned, too. Copies of test rows get the split ``cold``.
    """

    every_s: int
    most: int = 60
    warm_up_s: int = 60 * DAY_S
    validation_share: float = 0.2
    hold_out: Literal["entities", "newest"] = "entities"
    rows_at_most: int = 120_000
    at_events: tuple[str, ...] = ()
    cold_share: float = 0.05


@dataclass(frozen=True)
class Learning:
    """How delayed labels are learned from, and by what.

    Attributes:
        method: ``matured`` uses only rows whose horizon has passed. ``hazard`` learns a discrete hazard over delay buckets
            from censored rows too, and answers for any horizon. ``fake_negative`` takes every row for a negative until its
            outcome arrives and weighs the loss so that the bias cancels.
        learner: ``network``, or ``lightgbm`` where boosting wins clearly; its trees become TensorFlow operations.
        delay_buckets_s: ascending upper edges of the hazard's buckets; the last one is the horizon.
    """

    method: Literal["matured", "hazard", "fake_negative"] = "matured"
    learner: Literal["network", "lightgbm"] = "network"
    delay_buckets_s: tuple[int, ...] = ()


@dataclass(frozen=True)
class NetworkSpec:
    """A small feed-forward network: the mean logit of ``members`` equal stacks of ``hidden`` units, then calibration.

    Without ``hidden`` it is a logistic regression, one for each output; ``weight_decay`` then holds for its only layer.
    ``standardise`` fits it to inputs of mean 0 and deviation 1, which the first layer takes in afterwards: where rows are
    few, decay then weighs columns alike, those of texts and masks included. ``vector`` makes it two towers: ``members`` stacks
    each for user and request, whose vectors of that length are multiplied (``models.towers``); 0 for one network.
    """

    hidden: tuple[int, ...] = (32, 16)
    members: int = 2
    vector: int = 0
    dropout: float = 0.2
    weight_decay: float = 1e-4
    standardise: bool = False
    learning_rate: float = 3e-3
    epochs: int = 30
    patience: int = 4
    batch_size: int = 1_024


@dataclass(frozen=True)
class Slice:
    """Rows whose finished feature is in [low, high]; reports show every slice apart."""

    name: str
    feature: str
    low: float
    high: float


@dataclass(frozen=True)
class Gate:
    """What blessing takes, on the test rows.

    Attributes:
        metric: which figure is compared.
        must_beat: baselines that the model must beat: the paired interval of the gain lies above zero.
        must_match: baselines that may not be better than the model by more than noise and ``margin``: blessing is
            refused where the whole interval of the gain lies below ``-margin``.
        margin: in units of the metric.
        max_calibration_error: upper bound of the model's expected calibration error (its point value), and of the gap
            between mean score and share of positives among users whose state is unknown.
        slice_reference: baseline that no slice may do worse than where there is no champion: what would be done without
            the model.
        slice_margin: in units of the metric; a slice is harmed where it does worse than the champion or the reference by
            more than this and by more than noise.
        least_slice_rows, least_slice_positives: slices with fewer rows, or fewer of either label, are shown but not judged.
    """

    metric: Metric = "log_loss"
    must_beat: tuple[str, ...] = ("prior", "recency")
    must_match: tuple[str, ...] = ("logistic", "lightgbm")
    margin: float = 0.005
    max_calibration_error: float = 0.05
    slice_reference: str = "recency"
    slice_margin: float = 0.01
    least_slice_rows: int = 100
    least_slice_positives: int = 20


@dataclass(frozen=True)
class ModelSpec:
    """One model.

    Attributes:
        name: as it is trained, registered and served.
        title: one line for people.
        catalog, view: whose features it reads.
        recency: finished feature of the rule of thumb; 0 means that it is missing.
        activity: finished feature that counts what a user did; reports show users with 0, 1-4 and 5 or more apart.
        learning, network: how it is learned.
        baselines: names of ``models.baselines``.
        refit: after the evaluated network, train the served one by the same recipe on all matured rows. The evaluated
            one knows nothing of the last horizon before the test cutoff; where a season matters, that is worth much.
        slots: for a model of hours of the week, which counts it learns from; None for all others.
    """

    name: str
    title: str
    catalog: str
    view: str
    label: LabelSpec
    population: Population
    cutoffs: CutoffPlan
    recency: str
    activity: str
    learning: Learning = Learning()
    network: NetworkSpec = NetworkSpec()
    baselines: tuple[str, ...] = ("prior", "recency", "logistic", "lightgbm")
    gate: Gate = Gate()
    slices: tuple[Slice, ...] = ()
    refit: bool = True
    slots: SlotSpec | None = None


@cache
def all_specs() -> dict[str, ModelSpec]:
    """Every shipped spec by name: in the order of ``SPEC_MODULES``.

    Raises:
        SpecError: two specs share a name, or one contradicts itself.
    """
    found: dict[str, ModelSpec] = {}
    for module in SPEC_MODULES:
        for spec in importlib.import_module(f"models.{module}").SPECS:
            require(spec.name not in found, spec, "a name of its own", "a name taken by another spec")
            check_spec(spec)
            found[spec.name] = spec
    return found


def load_spec(name: str) -> ModelSpec:
    """The spec of a model.

    Raises:
        SpecError: there is none of that name.

    Example:
        >>> load_spec("churn").label.positive
        'occurs'
    """
    specs = all_specs()
    if name in specs:
        return specs[name]
    raise SpecError(
        explain(
            "unknown model",
            which=repr(name),
            expected=f"one of {', '.join(specs)}",
            got=repr(name),
            next_step="correct the name; `plumb models specs` lists them",
        )
    )
