"""Many candidates of one user: what does not depend on a candidate is computed once a user.

A fitted graph ends in blocks of columns, one beside the other. It is imported twice. The blocks that no request field reaches
are computed for the users and gathered; the others for the candidates, from the finished integers, through which all of a
state flows and which are gathered too. Every float is computed as in the uncut graph, row by row, so features are the same
bit for bit.
"""

from __future__ import annotations

from typing import Any, Final

import tensorflow as tf

from features.errors import explain
from transforms.errors import GraphError
from transforms.graph import ROW_MULTIPLE, Tensors

OWNER: Final = "owner"
"""int64 (n,): for each candidate the row of its user."""


class SplitGraph:
    """A fitted graph, cut at its finished integers and before its blocks are joined."""

    def __init__(self, transform_fn: Any) -> None:
        """Find the cuts.

        Args:
            transform_fn: of a loaded tf.Transform SavedModel.

        Raises:
            GraphError: the graph does not end in a slice of padded integers and in blocks that are joined.
        """
        graph = transform_fn.graph
        names = sorted(transform_fn.structured_input_signature[0][0])
        self._definition = graph.as_graph_def()
        self._inputs = {name: tensor.name for name, tensor in zip(names, transform_fn.inputs, strict=False)}
        self._captures = [(inner.name, outer) for outer, inner in graph.captures]
        outputs = sorted(transform_fn.structured_outputs)
        self._outputs = {name: tensor.name for name, tensor in zip(outputs, transform_fn.outputs, strict=True)}
        padded = self._end(graph, "integers", "StridedSlice", "a slice of the padded integers")
        joined = self._end(graph, "transformed", "ConcatV2", "blocks that are joined")
        self._integers = padded.inputs[0].name
        self._blocks = [(tensor.name, _find_inputs(tensor)) for tensor in joined.inputs[:-1]]

    def transform(self, users: Tensors, candidates: Tensors) -> tf.Tensor:
        """``transformed`` float32 (n, T) of n candidates of u users.

        Args:
            users: ``state``, ``now`` and the profile fields, each (u,).
            candidates: ``owner`` and the request fields, each (n,).
        """
        owner = candidates[OWNER]
        fields = {name: tensor for name, tensor in candidates.items() if name != OWNER}
        asked = {self._inputs[name] for name in fields}
        shared = [name for name, inputs in self._blocks if not inputs & asked]
        own = [name for name, inputs in self._blocks if inputs & asked]
        blank = {name: tf.zeros_like(users["now"]) if tensor.dtype == tf.int64 else tf.fill(tf.shape(users["now"]), "")
                 for name, tensor in fields.items()}  # fmt: skip
        integers, *finished = self._run({**users, **blank}, {}, [self._integers, *shared])
        # A candidate's row stands where the uncut graph would have it: padded to the same multiple.
        padded = tf.pad(owner, [[0, -tf.size(owner) % ROW_MULTIPLE]])
        rows = {name: tf.gather(tensor, owner) for name, tensor in users.items() if name != "state"}
        inputs = {**rows, "state": tf.fill(tf.shape(owner), ""), **fields}
        fed = {self._integers: tf.gather(integers, padded)}
        # Of a view without request fields nothing is left to compute.
        computed = dict(zip(own, self._run(inputs, fed, own), strict=True)) if own else {}
        computed |= {name: tf.gather(block, owner) for name, block in zip(shared, finished, strict=True)}
        return tf.concat([computed[name] for name, _ in self._blocks], axis=1)

    def _end(self, graph: Any, output: str, kind: str, expected: str) -> Any:
        """The operation that gives an output, which must be of a kind."""
        op = graph.get_tensor_by_name(self._outputs[output]).op
        while op.type == "Identity":
            op = op.inputs[0].op
        if op.type != kind:
            raise GraphError(
                explain(f"fitted graph cannot be cut at its {output}", which=self._outputs[output], got=op.type,
                        expected=expected, next_step="fit the graph again")
            )  # fmt: skip
        return op

    def _run(self, inputs: Tensors, fed: Tensors, wanted: list[str]) -> list[tf.Tensor]:
        """Tensors of the graph, given its inputs and, by name, tensors that are known already."""
        given = {self._inputs[name]: tensor for name, tensor in inputs.items()} | fed
        default_graph = tf.compat.v1.get_default_graph()
        given |= {name: default_graph.capture(outer) for name, outer in self._captures}
        return list(tf.graph_util.import_graph_def(self._definition, input_map=given, return_elements=wanted, name=""))


def _find_inputs(tensor: tf.Tensor) -> set[str]:
    """Names of the placeholders that a tensor is computed from."""
    found, seen, waiting = set(), set(), [tensor.op]
    while waiting:
        op = waiting.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        if op.type == "Placeholder":
            found.add(op.outputs[0].name)
        waiting += [each.op for each in op.inputs] + list(op.control_inputs)
    return found
