"""The hours at which a user acts, as TensorFlow operations: a shrunken histogram of the week that corrects for sending hours.

With o the user's actions by slot (hour of the week), m what she was sent by slot, and K a kernel that spreads an event over
hours near it and over other days:

    propensity      pi = C (m K + k_sends * policy) / (M + k_sends), policy being everyone's shares of sends; C carries a share
                    into the next hour, because what is sent at ten to twelve is opened after twelve
    weights         w = min((1 / 168) / pi, cap), the inverse propensity against an even week
    evidence        n = (sum w o)^2 / (sum w^2 o), Kish's effective sample size; h = w o n / (sum w o)
    expected        q = b * rhythm + (1 - b) * segment, where the rhythm is what her hours say under the shape of day that all
                    share (``models.slot_rhythm``); segment = blend(its members' actions, everyone), everyone =
                    blend(all, even week), the actions of many weighted alike by the policy
    own hours       p = blend(h, q)
    blend(h, prior) = (h + k_raw * (h K + k * prior) / (n + k)) / (n + k_raw)

so that p is everybody's without data and the user's own histogram with much. ``p`` is what the user would do were all hours
sent to alike; ``observed``, proportional to p * pi, is what will be seen under the policy as it is, by which p is fitted and
judged. All strengths k, the share b and the widths of K are fitted (``models.slot_learning``).

Source: Horvitz and Thompson, A generalization of sampling without replacement from a finite universe, 1952; Kish, Survey
sampling, 1965 (effective sample size); MacKay and Peto, A hierarchical Dirichlet language model, 1995 (strengths that are
fitted); Ionides, Truncated importance sampling, 2008 (the cap).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.slots import OUTPUT_NAMES, SLOTS
from models.slot_rhythm import Common, Placed, Rhythm, expect_week, moved_from_prior, place_users, vary_ratio
from models.slot_schedule import plan_slots
from models.slot_spec import STRENGTHS

DAY_HOURS: Final = 24
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class SlotColumns:
    """Where the inputs lie among the T columns: 168 counts each of ``acts`` and ``sends`` (none: nothing is sent), the one-hot
    ``segments`` (none: one for all), and the three readings of the clock."""

    acts: tuple[int, ...]
    sends: tuple[int, ...]
    segments: tuple[int, ...]
    clock: tuple[int, ...]


class Posterior(NamedTuple):
    """What is believed of n users; tensors (n, 168) or (n, 1).

    Attributes:
        preference: the distribution over slots if all were sent to alike.
        propensity: shares of sends by slot.
        evidence: events behind each slot's probability.
        effective: effective sample size of the user's own actions.
        placed: what is believed of the hours at which her days lie.
        own, segment: the parts of the distribution that come from the user and from the segment; the rest is everyone's.
    """

    preference: tf.Tensor
    propensity: tf.Tensor
    evidence: tf.Tensor
    effective: tf.Tensor
    own: tf.Tensor
    segment: tf.Tensor
    placed: Placed


@keras.saving.register_keras_serializable("plumbline")
class SlotPosterior(keras.layers.Layer):
    """(n, T) float32 -> (n, 1 + 168 + F) float32: the score, the distribution, and ``slot_schedule.FACTS``."""

    def __init__(self, columns: Mapping[str, Sequence[int]], weight_cap: float, **options: Any) -> None:
        """A layer that reads these columns; ``set_prior`` and ``strengths`` fill it."""
        super().__init__(**options)
        self.columns = SlotColumns(**{name: tuple(places) for name, places in columns.items()})
        self.weight_cap = float(weight_cap)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the strengths, neutral, and the prior, even."""
        groups = max(len(self.columns.segments), 1)
        self.strengths = self.add_weight(name="strengths", shape=(len(STRENGTHS),), initializer="ones")
        self.acts = self.add_weight(name="acts", shape=(groups, SLOTS), initializer="zeros", trainable=False)
        self.policy = self.add_weight(
            name="policy", shape=(SLOTS,), initializer=keras.initializers.Constant(1 / SLOTS), trainable=False
        )
        even = 1 / DAY_HOURS
        shapes: dict[str, tuple[tuple[int, ...], float]] = {
            "shape": ((DAY_HOURS,), 1.0), "centres": ((DAY_HOURS,), even), "shifts": ((DAY_HOURS,), even),
            "days": ((SLOTS // DAY_HOURS,), 1.0), "spread": ((), 1.0),
        }  # fmt: skip
        self.rhythm = Common(
            *(
                self.add_weight(name=name, shape=shape, initializer=keras.initializers.Constant(value), trainable=False)
                for name, (shape, value) in shapes.items()
            )
        )

    def set_prior(self, acts: Matrix, policy: Matrix) -> None:
        """Take actions by segment (G, 168) and shares of sends (168,)."""
        self.acts.assign(acts)
        self.policy.assign(policy)

    def set_rhythm(self, rhythm: Rhythm) -> None:
        """Take the shape of a day that all share."""
        for weight, value in zip(self.rhythm, vars(rhythm).values(), strict=True):
            weight.assign(value)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The score, the distribution over slots, and what a scheduler asks."""
        believed = self.believe(inputs)
        clock = tf.gather(inputs, self.columns.clock, axis=1)
        parts = (believed.effective, believed.own, believed.segment)
        common = self._common()
        score, facts = plan_slots(
            believed.preference, believed.evidence, clock, tf.concat(parts, axis=1),
            vary=lambda one, other: vary_ratio(common, believed.placed, one, other),
        )  # fmt: skip
        return tf.concat([score, believed.preference, facts], axis=1)

    def observed(self, inputs: tf.Tensor, placed: Placed | None = None) -> tf.Tensor:
        """(n, 168): where the next action will be seen, under the sending policy as it is."""
        believed = self.believe(inputs, placed)
        seen = believed.preference * believed.propensity
        return seen / tf.reduce_sum(seen, axis=1, keepdims=True)

    def place(self, inputs: tf.Tensor) -> Placed:
        """What is believed of the hours at which users' days lie."""
        return place_users(self._common(), *self.count(inputs))

    def count(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(n, 168) actions, and occasions where they have their effect; alike in every hour where nothing is sent."""
        acts = tf.maximum(tf.gather(inputs, self.columns.acts, axis=1), 0.0)
        if not self.columns.sends:
            return acts, tf.repeat(tf.reduce_mean(acts, axis=1, keepdims=True), SLOTS, axis=1)
        return acts, self._carry(tf.maximum(tf.gather(inputs, self.columns.sends, axis=1), 0.0))

    def believe(self, inputs: tf.Tensor, placed: Placed | None = None) -> Posterior:
        """The posterior of rows; ``placed`` where it is known already."""
        raw, user, segment, sends = tf.unstack(tf.exp(self.strengths[:4]))
        kernel = self.kernel()
        propensity = self._propensity(inputs, kernel, sends)
        counts = tf.maximum(tf.gather(inputs, self.columns.acts, axis=1), 0.0)
        weights = tf.minimum(1 / (SLOTS * propensity), self.weight_cap)
        weighted = weights * counts
        total = tf.reduce_sum(weighted, axis=1, keepdims=True)
        effective = tf.math.divide_no_nan(tf.square(total), tf.reduce_sum(weights * weighted, axis=1, keepdims=True))
        evidence = weighted * tf.math.divide_no_nan(effective, total)
        acts = self._weigh_prior()
        everyone = _blend(tf.reduce_sum(acts, axis=0, keepdims=True), tf.ones([1, SLOTS]) / SLOTS, kernel, raw, 1.0)
        priors = _blend(acts, everyone, kernel, raw, segment)
        member, part, common = self._member(inputs), tf.sigmoid(self.strengths[9]), self._common()
        placed = self.place(inputs) if placed is None else placed
        expected = part * expect_week(common, placed) + (1 - part) * tf.matmul(member, priors)
        preference = _blend(evidence, expected, kernel, raw, user)
        own_raw, own = effective / (effective + raw), effective / (effective + user)
        known = tf.matmul(member, tf.reduce_sum(acts, axis=1, keepdims=True))
        own_part = own_raw + (1 - own_raw) * own
        own_part += (1 - own_part) * part * moved_from_prior(common, placed)
        spread = (
            tf.square(own_raw)
            + 2 * own_raw * (1 - own_raw) * tf.linalg.diag_part(kernel)[None, :]
            + tf.square(1 - own_raw) * tf.reduce_sum(tf.square(kernel), axis=0)[None, :]
        )
        behind = (effective + user) * preference / spread
        segment_part = (1 - own_part) * (1 - part) * known / (known + segment)
        return Posterior(preference, propensity, behind, effective, own_part, segment_part, placed)

    def kernel(self) -> tf.Tensor:
        """(168, 168): row t says how an event at slot t is divided among slots; von Mises over hours, a mixture over days."""
        apart = np.arange(DAY_HOURS)[:, None] - np.arange(DAY_HOURS)[None, :]
        closeness = tf.constant(np.cos(2 * np.pi * apart / DAY_HOURS) - 1, tf.float32)
        hours = tf.exp(tf.exp(self.strengths[4]) * closeness)
        hours = hours / tf.reduce_sum(hours, axis=1, keepdims=True)
        shares = tf.unstack(tf.nn.softmax(self.strengths[5:8]))
        days = tf.add_n([share * tf.constant(matrix, tf.float32) for share, matrix in zip(shares, _day_mixes(), strict=True)])
        product = tf.einsum("ab,cd->acbd", days, hours)
        return tf.reshape(product, [SLOTS, SLOTS])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """(n, 1 + 168 + F)."""
        return (input_shape[0], 1 + len(OUTPUT_NAMES))

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes; strengths and prior are weights."""
        columns = {name: list(places) for name, places in vars(self.columns).items()}
        return {**super().get_config(), "columns": columns, "weight_cap": self.weight_cap}

    def _common(self) -> Common:
        return Common(*map(tf.convert_to_tensor, self.rhythm))

    def _propensity(self, inputs: tf.Tensor, kernel: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
        policy = tf.convert_to_tensor(self.policy)[None, :]
        if not self.columns.sends:
            return tf.repeat(self._carry(policy), tf.shape(inputs)[0], axis=0)
        sent = tf.maximum(tf.gather(inputs, self.columns.sends, axis=1), 0.0)
        shares = (tf.matmul(sent, kernel) + strength * policy) / (tf.reduce_sum(sent, axis=1, keepdims=True) + strength)
        return self._carry(shares)

    def _carry(self, shares: tf.Tensor) -> tf.Tensor:
        """(n, 168): shares of sends, of which a part has its effect an hour later."""
        part = tf.sigmoid(self.strengths[8])
        return (1 - part) * shares + part * tf.roll(shares, 1, axis=1)

    def _weigh_prior(self) -> tf.Tensor:
        """(G, 168): what segments did, weighted by the policy's propensities; their totals stay."""
        acts = tf.convert_to_tensor(self.acts)
        weights = tf.minimum(1 / (SLOTS * self._carry(tf.convert_to_tensor(self.policy)[None, :])), self.weight_cap)
        weighted = acts * weights
        totals = [tf.reduce_sum(counts, axis=1, keepdims=True) for counts in (acts, weighted)]
        return weighted * tf.math.divide_no_nan(*totals)

    def _member(self, inputs: tf.Tensor) -> tf.Tensor:
        if not self.columns.segments:
            return tf.ones([tf.shape(inputs)[0], 1])
        return tf.gather(inputs, self.columns.segments, axis=1)


def _blend(counts: tf.Tensor, prior: tf.Tensor, kernel: tf.Tensor, raw: tf.Tensor, strength: tf.Tensor | float) -> tf.Tensor:
    """(n, 168) distributions: counts, drawn towards the same counts smoothed, drawn towards the prior."""
    total = tf.reduce_sum(counts, axis=1, keepdims=True)
    smooth = (tf.matmul(counts, kernel) + strength * prior) / (total + strength)
    blended = (counts + raw * smooth) / (total + raw)
    return blended / tf.reduce_sum(blended, axis=1, keepdims=True)


def _day_mixes() -> tuple[Matrix, ...]:
    """Three (7, 7) ways to divide an event among days: its own, those of its kind (working day or weekend), all."""
    kind = np.array([0] * 5 + [1] * 2)
    same_kind = (kind[:, None] == kind[None, :]).astype(np.float32)
    return np.eye(7, dtype=np.float32), same_kind / same_kind.sum(axis=1, keepdims=True), np.full((7, 7), 1 / 7, np.float32)
