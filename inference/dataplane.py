"""KServe's data plane with honest readiness, and with every undecodable request answered as the caller's mistake."""

from __future__ import annotations

import struct
from typing import Any

from kserve.errors import InferenceError, InvalidInput, ModelNotFound
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from inference import metrics
from inference.endpoint import ScoringModel
from inference.errors import bad_request

UNDECODABLE = (InvalidInput, InferenceError, KeyError, TypeError, ValueError, AttributeError, struct.error)


class ScoringDataPlane(DataPlane):
    """Decodes strictly, and calls a model ready only if it answers."""

    def __init__(self, revision: str, **kserve: Any) -> None:
        super().__init__(**kserve)
        self._revision = revision

    def decode(self, body: Any, headers: Any, protocol_version: str = "v1", model_name: str | None = None) -> Any:
        """KServe's decoding; whatever it cannot unpack is a bad request, never a server error.

        Raises:
            RequestError: the body is no JSON, or its binary part does not fit its header.
        """
        try:
            return super().decode(body, headers, protocol_version, model_name)
        except UNDECODABLE as error:
            metrics.REQUESTS.labels(model_name or self._only_model().name, self._revision, metrics.BAD_REQUEST).inc()
            raise bad_request("request cannot be decoded", which=f"{protocol_version} body", expected="JSON, or JSON with "
                              "binary tensors behind it", got=f"{type(error).__name__}: {error}"[:200]) from error  # fmt: skip

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        """Whether the model answers.

        KServe asks before each prediction too, with the health check disabled: then only whether it is being served.

        Raises:
            ModelNotFound: no model of this name is served here.
        """
        model = self._model_registry.get_model(model_name)
        if model is None:
            raise ModelNotFound(model_name)
        return bool(model.ready) if disable_predictor_health_check else await model.answers()

    async def ready(self) -> bool:
        """Whether every model answers; a server without a model is not ready."""
        models = list(self._model_registry.get_models().values())
        return bool(models) and all([await model.answers() for model in models])

    def _only_model(self) -> ScoringModel:
        model: ScoringModel = next(iter(self._model_registry.get_models().values()))
        return model


class FixedRepository(ModelRepositoryExtension):
    """Models are chosen when the server starts: nobody can load or unload one over the network."""

    async def load(self, model_name: str) -> None:
        """Refuse."""
        raise NotImplementedError(f"model {model_name!r} cannot be loaded: this server serves the version it was started with")

    async def unload(self, model_name: str) -> None:
        """Refuse."""
        raise NotImplementedError(f"model {model_name!r} cannot be unloaded: stop the server instead")
