"""Request fields that nobody sends: what is known of the entities that a request names by the keys of its view's joins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from features.declarations import View
from features.joins import Join
from features.online.records import encode_entity_ids
from features.online.store import OnlineReader
from inference.lookup import Inputs
from inference.requests import ScoreRequest

if TYPE_CHECKING:
    from inference.predictor import Predictor


class Joiner:
    """Reads the states of joined entities and lets the model finish them; safe to call from several threads."""

    def __init__(self, view: View, predictor: Predictor, stores: Mapping[str, OnlineReader]) -> None:
        """Take what answers.

        Args:
            stores: of the joined views, by the view's name.
        """
        self._joins, self._predictor, self._stores = view.joins, predictor, stores

    def fill(self, request: ScoreRequest, inputs: Inputs) -> Inputs:
        """The inputs with every join's fields in the place of its key.

        Raises:
            EntityIdError: a key is no usable id.
            StoreError, StoreUnavailable: the store's.
        """
        if not self._joins:
            return inputs
        now_us = np.repeat(np.array(request.now_us, dtype=np.int64), request.counts)
        tensors, degraded = dict(inputs.tensors), list(inputs.degraded)
        for join in self._joins:
            keys: Sequence[str] = request.fields[join.key]
            del tensors[join.key]
            states, reasons = self._look_up(join, keys)
            tensors |= self._predictor.join(join, [states.get(key, b"") for key in keys], now_us)
            owners = chain.from_iterable([row] * count for row, count in enumerate(request.counts))
            for owner, key in zip(owners, keys, strict=True) if reasons else ():
                degraded[owner] = degraded[owner] or reasons.get(key)
        return replace(inputs, tensors=tensors, degraded=degraded)

    def _look_up(self, join: Join, keys: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
        """States by key, and why one is worse than it could be; a key without state is an entity of which nothing is known."""
        named = list(dict.fromkeys(key for key in keys if key))
        if not named:
            return {}, {}
        found = self._stores[join.view].get_many(named, profiles=False)
        reasons = {key: reason for key, reason in zip(named, found.degraded, strict=True) if reason is not None}
        return dict(zip(named, found.states, strict=True)), reasons


def check_keys(view: View, fields: Mapping[str, Sequence[Any]]) -> None:
    """Raise ``EntityIdError`` where a request names an entity by what can be no id, before it is merged with others."""
    for join in view.joins:
        encode_entity_ids([key for key in fields[join.key] if key])
