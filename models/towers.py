"""Two towers: a user's vector and a campaign's vector, whose product is the logit; each is made without the other.

The user's tower sees the columns of signals and profiles, the campaign's those of request fields. So a campaign that nobody has
been sent yet has a vector like any other, from what it says of itself; and all users by all campaigns is one matrix product.

    logit = v_user . v_campaign + b_user + b_campaign

The biases are linear in the columns: without anything to learn from ``v`` this is a logistic regression. They stand in the
vectors themselves, beside a one, so that the product alone is the logit: [v_user, b_user, 1] . [v_campaign, 1, b_campaign].
Each tower has several members, stacks that start from weights of their own. Their vectors stand side by side, which makes the
product the mean of the members' products.

Source: Yi et al., Sampling-bias-corrected neural modeling for large corpus item recommendations, RecSys 2019 (two towers);
Rendle, Factorization machines, ICDM 2010 (a linear model beside products of vectors).
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import pyarrow.parquet as pq

from features.catalogs import load_catalog
from features.errors import explain
from features.two_towers import CAMPAIGN_TOWER, USER_TOWER
from models.errors import TrainingError
from models.specs import ModelSpec, NetworkSpec


def requested_columns(spec: ModelSpec, features_path: Path) -> tuple[int, ...]:
    """Numbers of the transformed columns that come from request fields.

    Args:
        spec: names the view.
        features_path: what fitting the graph wrote; ``transformed_groups`` (JSON) in its schema's metadata.
    Raises:
        TrainingError: the view has no request field, or one of its ratios is shrunken by one: a user's columns would then
            hang on the campaign.
    """
    view = load_catalog(spec.catalog).view(spec.view)
    fields = {entry.name for entry in view.request}
    mixed = [ratio.name for ratio in view.ratios if ratio.shrink is not None and ratio.shrink.by in fields]
    if not fields or mixed:
        raise TrainingError(
            explain("view cannot be parted between two towers", which=f"view {view.key} of model {spec.name!r}",
                    expected="request fields, and no ratio shrunken by one of them", got=", ".join(mixed) or "no request field",
                    next_step="describe campaigns by request fields, and shrink by a profile field")
        )  # fmt: skip
    groups = json.loads(pq.read_schema(features_path).metadata[b"transformed_groups"])
    return tuple(number for number, group in enumerate(groups) if group in fields)


def build_towers(inputs: int, requested: tuple[int, ...], spec: NetworkSpec) -> keras.Model:
    """(n, inputs) float32 -> (n, 1) float32, a logit; its towers give (n, members * vector + 2)."""
    transformed = keras.Input((inputs,), dtype="float32", name="transformed")
    others = tuple(number for number in range(inputs) if number not in set(requested))
    user = _build_tower(inputs, others, spec, USER_TOWER)(transformed)
    campaign = _build_tower(inputs, requested, spec, CAMPAIGN_TOWER)(transformed)
    return keras.Model(transformed, keras.layers.Dot(axes=1, name="product")([user, campaign]))


def _build_tower(inputs: int, columns: tuple[int, ...], spec: NetworkSpec, name: str) -> keras.Model:
    layers, decay = keras.layers, keras.regularizers.L2(spec.weight_decay)
    transformed = keras.Input((inputs,), dtype="float32")
    own = keras.ops.take(transformed, list(columns), axis=1)
    vectors = []
    for _ in range(spec.members):
        hidden = own
        for units in spec.hidden:
            hidden = layers.Dense(units, activation="relu", kernel_regularizer=decay)(hidden)
            hidden = layers.Dropout(spec.dropout)(hidden)
        vectors.append(layers.Dense(spec.vector, kernel_regularizer=decay)(hidden))
    bias = layers.Dense(1, kernel_regularizer=decay, kernel_initializer="zeros", use_bias=name == USER_TOWER)(own)
    beside = (bias, keras.ops.ones_like(bias)) if name == USER_TOWER else (keras.ops.ones_like(bias), bias)
    shares = [vector * spec.members**-0.5 for vector in vectors]
    return keras.Model(transformed, layers.Concatenate()([*shares, *beside]), name=name)
