"""A network of two towers as one SavedModel with three more signatures, so that each tower is asked for itself.

``users`` gives a user's vector, ``campaigns`` a campaign's, ``match`` the scores of all of one by all of the other: one matrix
product. Calibration is taken into the campaigns' vectors, which makes it free: scale and shift of the logit s (u . c) + t are
s times the vector and t more beside the user's one. A request with candidates computes its user's vector once, too.
"""

from __future__ import annotations

from typing import Any, Final

import keras
import tensorflow as tf

from features.two_towers import CALIBRATION, CAMPAIGN_TOWER, USER_TOWER
from transforms.candidates import OWNER
from transforms.export import ServedModel
from transforms.graph import Tensors

USERS: Final = "users"
CAMPAIGNS: Final = "campaigns"
MATCH: Final = "match"
VECTOR: Final = "vector"


def has_towers(network: keras.Model) -> bool:
    """Whether a network's layers are two towers."""
    return {USER_TOWER, CAMPAIGN_TOWER} <= {layer.name for layer in network.layers}


class TwoTowerModel(ServedModel):
    """Graph and towers as one module."""

    def __init__(self, graph: Any, network: keras.Model, record: dict[str, Any]) -> None:
        super().__init__(graph, network, record)
        self._user_tower, self._campaign_tower = network.get_layer(USER_TOWER), network.get_layer(CAMPAIGN_TOWER)
        self._calibration = network.get_layer(CALIBRATION)
        users, campaigns = self.specs_by_owner()
        width = self._user_tower.output_shape[1]
        vectors = {name: tf.TensorSpec([None, width], tf.float32, name=name) for name in (USERS, CAMPAIGNS)}
        self.users = tf.function(self._users, input_signature=[users])
        self.campaigns = tf.function(self._campaigns, input_signature=[campaigns])
        self.match = tf.function(self._match, input_signature=[vectors])

    def functions(self) -> dict[str, Any]:
        return super().functions() | {USERS: self.users, CAMPAIGNS: self.campaigns, MATCH: self.match}

    def _users(self, inputs: Tensors) -> Tensors:
        """``vector`` float32 (u, k) and the ``finished`` features of users; request fields play no part in either's columns."""
        _, campaigns = self.specs_by_owner()
        outputs = self.graph.transform_fn({**inputs, **_blank(campaigns, tf.shape(inputs["now"]))})
        return {VECTOR: self._user_tower(outputs["transformed"], training=False), "finished": outputs["finished"]}

    def _campaigns(self, inputs: Tensors) -> Tensors:
        """``vector`` float32 (c, k) of campaigns, calibrated."""
        users, _ = self.specs_by_owner()
        rows = tf.shape(next(iter(inputs.values())))
        transformed = self.graph.transform_fn({**inputs, **_blank(users, rows)})["transformed"]
        vector = self._campaign_tower(transformed, training=False)
        scale, shift = self._calibration.kernel[0, 0], self._calibration.bias
        beside_one = tf.one_hot(tf.shape(vector)[1] - 1, tf.shape(vector)[1])
        return {VECTOR: vector * scale + shift * beside_one}

    def _match(self, inputs: Tensors) -> Tensors:
        """``score`` float32 (u, c)."""
        return {"score": tf.sigmoid(tf.linalg.matmul(inputs[USERS], inputs[CAMPAIGNS], transpose_b=True))}

    def _serve_candidates(self, inputs: Tensors) -> Tensors:
        names, _ = self.specs_by_owner()
        users = self._users({name: inputs[name] for name in names})[VECTOR]
        others = {name: tensor for name, tensor in inputs.items() if name not in names and name != OWNER}
        campaigns = self._campaigns(others)[VECTOR]
        return {"score": tf.sigmoid(tf.reduce_sum(tf.gather(users, inputs[OWNER]) * campaigns, axis=1))}


def _blank(specs: dict[str, tf.TensorSpec], shape: tf.Tensor) -> Tensors:
    return {name: tf.fill(shape, tf.constant("" if spec.dtype == tf.string else 0, spec.dtype)) for name, spec in specs.items()}
