"""An InferenceService (KServe v1beta1) as this plane understands it, and what is wrong with one that it cannot run.

Names and structure are those of KServe's CRD; the rules of its webhook for ``spec.canary`` hold here too. A field that KServe
knows and that means nothing on one machine (replicas, resources, node selectors) is accepted and listed in ``ignored``; one
that would change who answers (a transformer, ``canaryTrafficPercent``) is refused, as is one that KServe does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from features.errors import explain
from inference.plane.errors import DocumentError

API_VERSION: Final = "serving.kserve.io/v1beta1"
KIND: Final = "InferenceService"
NAMESPACE: Final = "default"
STABLE: Final = "stable"
"""Name of the stable revision where ``spec.predictor.name`` gives none."""
DEPLOYMENT_MODE: Final = "serving.kserve.io/deploymentMode"
SPLIT: Final = "plumbline/split"
"""Annotation: ``sticky`` (the default) or ``random``."""
SALT: Final = "plumbline/split-salt"
"""Annotation: the salt of a sticky split; the canary's name where not given, so that each rollout draws other users."""
STICKY: Final = "sticky"
RANDOM: Final = "random"
MODEL_FORMAT: Final = "plumbline"
CONTAINER: Final = "kserve-container"
DEFAULT_TIMEOUT_S: Final = 60

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
STORAGE = re.compile(r"pvc://plumb-models/([A-Za-z0-9_][-A-Za-z0-9_.]*)/([1-9][0-9]*)/?")

ON_A_CLUSTER: Final = frozenset({
    "affinity", "annotations", "automountServiceAccountToken", "autoScaling", "containerConcurrency", "deploymentStrategy",
    "imagePullSecrets", "labels", "maxReplicas", "minReplicas", "nodeSelector", "priorityClassName", "runtimeClassName",
    "scaleMetric", "scaleMetricType", "scaleTarget", "schedulerName", "securityContext", "serviceAccountName",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
})  # fmt: skip
"""Fields of a predictor that say how a cluster runs its pods."""
OF_A_CONTAINER: Final = frozenset({
    "image", "imagePullPolicy", "lifecycle", "livenessProbe", "ports", "protocolVersion", "readinessProbe", "resources",
    "runtime", "runtimeVersion", "securityContext", "startupProbe", "volumeMounts",
})  # fmt: skip
"""Fields of a model that say how its container is run."""
AUTOSCALING: Final = ("autoScaling", "scaleMetric", "scaleMetricType", "scaleTarget")


@dataclass(frozen=True)
class Logger:
    """Where CloudEvents about requests go: ``mode`` is all, request or response."""

    mode: str
    url: str

    def wants(self, kind: str) -> bool:
        """Whether events of this kind (request or response) are sent."""
        return self.mode in ("all", kind)


@dataclass(frozen=True)
class Predictor:
    """What one revision runs. Two equal predictors are one process, whichever of the roles they stand in.

    Attributes:
        name: the revision's name, in headers, events and metrics.
        model, version: a registered model version.
        arguments: further arguments of ``plumb serve``.
        environment: (name, value) pairs for its process.
        timeout_s: seconds that a request may take; no reason for another process.
    """

    name: str
    model: str
    version: int
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    timeout_s: int = field(default=DEFAULT_TIMEOUT_S, compare=False)

    @property
    def storage_uri(self) -> str:
        return f"pvc://plumb-models/{self.model}/{self.version}"


@dataclass(frozen=True)
class Canary:
    """A second revision and the share of traffic that it gets once it is ready, in percent."""

    predictor: Predictor
    percent: int


@dataclass(frozen=True)
class Service:
    """One InferenceService.

    Attributes:
        name: the model's name in URLs.
        stable, canary: its revisions.
        logger: None where nothing is sent.
        split: ``sticky`` or ``random``.
        salt: of a sticky split.
        ignored: fields that have no meaning on one machine.
    """

    name: str
    stable: Predictor
    canary: Canary | None = None
    logger: Logger | None = None
    split: str = STICKY
    salt: str = ""
    ignored: tuple[str, ...] = ()

    def predictors(self) -> tuple[Predictor, ...]:
        """Every revision, the stable one first."""
        return (self.stable,) if self.canary is None else (self.stable, self.canary.predictor)


def read_service(document: object) -> Service:
    """Check a document and read it.

    Args:
        document: parsed YAML or JSON.
    Raises:
        DocumentError: one line on the first thing that is wrong.
    """
    content = _object(document, "document", {"apiVersion", "kind", "metadata", "spec", "status"})
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if content.get(name) != expected:
            raise refuse("document is of another kind", name, expected, repr(content.get(name)))
    metadata = content.get("metadata")
    if not isinstance(metadata, Mapping):
        raise refuse("document has no metadata", "metadata", "an object", type(metadata).__name__)
    if metadata.get("namespace", NAMESPACE) != NAMESPACE:
        raise refuse("no such namespace", "metadata.namespace", NAMESPACE, repr(metadata.get("namespace")))
    annotations = _texts(metadata.get("annotations") or {}, "metadata.annotations")
    spec = _object(content.get("spec"), "spec", {"predictor", "canary"}, refused={
        "transformer": "the lookup runs within the predictor", "explainer": "ask the predictor with explain",
    })  # fmt: skip
    ignored: list[str] = []
    stable, logger = _read_predictor(spec.get("predictor"), "spec.predictor", None, ignored)
    canary = _read_canary(spec.get("canary"), annotations, stable, ignored)
    split = annotations.get(SPLIT, STICKY)
    if split not in (STICKY, RANDOM):
        raise refuse("unknown way to split traffic", f"metadata.annotations[{SPLIT}]", f"{STICKY} or {RANDOM}", repr(split))
    salt = annotations.get(SALT, canary.predictor.name if canary else "")
    return Service(_name(metadata.get("name"), "metadata.name"), stable, canary, logger, split, salt, tuple(ignored))


def _read_canary(value: object, annotations: Mapping[str, str], stable: Predictor, ignored: list[str]) -> Canary | None:
    """The rules of KServe's ``validateCanarySpecs``, for the one canary that this plane runs."""
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) != 1:
        raise refuse("too many canaries", "spec.canary", "a list of at most one canary",
                     f"{len(value)}" if isinstance(value, list) else type(value).__name__)  # fmt: skip
    if annotations.get(DEPLOYMENT_MODE) != "Standard":
        raise refuse("canary needs Standard mode", f"metadata.annotations[{DEPLOYMENT_MODE}]", "Standard",
                     repr(annotations.get(DEPLOYMENT_MODE)))  # fmt: skip
    entry = _object(value[0], "spec.canary[0]", {"trafficPercent", "predictor"})
    percent = entry.get("trafficPercent")
    if isinstance(percent, bool) or not isinstance(percent, int) or not 0 <= percent <= 100:
        raise refuse("not a share of traffic", "spec.canary[0].trafficPercent", "an integer from 0 to 100", repr(percent))
    where = "spec.canary[0].predictor"
    content = entry.get("predictor")
    given = content if isinstance(content, Mapping) else {}
    for name in AUTOSCALING:
        if name in given:
            raise refuse("canary scales by itself", f"{where}.{name}", "no autoscaling fields", repr(given[name]))
    if "logger" in given:
        raise refuse("canary has a logger of its own", f"{where}.logger", "none: it has the stable one's", "a logger")
    predictor, _ = _read_predictor(content, where, stable, ignored)
    if predictor.name == stable.name:
        raise refuse("two revisions have one name", f"{where}.name", f"another name than {stable.name}", repr(predictor.name))
    return Canary(predictor, percent)


def _read_predictor(value: object, where: str, stable: Predictor | None, ignored: list[str]) -> tuple[Predictor, Logger | None]:
    """A predictor and its logger. A canary (``stable`` given) must be named, and inherits what it does not say."""
    content = _object(value, where, {"name", "model", "logger", "timeout"}, ON_A_CLUSTER, ignored, {
        "canaryTrafficPercent": "it belongs to Knative mode and Standard mode ignores it in silence: use spec.canary",
    })  # fmt: skip
    model = _object(content.get("model"), f"{where}.model", {"name", "modelFormat", "storageUri", "args", "env"},
                    OF_A_CONTAINER, ignored)  # fmt: skip
    kind = _object(model.get("modelFormat"), f"{where}.model.modelFormat", {"name", "version"})
    if kind.get("name") != MODEL_FORMAT:
        raise refuse("unknown model format", f"{where}.model.modelFormat.name", MODEL_FORMAT, repr(kind.get("name")))
    container = model.get("name", None if stable else CONTAINER)
    if container != CONTAINER:
        raise refuse("model runs in another container", f"{where}.model.name", CONTAINER, repr(container))
    uri = model.get("storageUri")
    found = STORAGE.fullmatch(uri) if isinstance(uri, str) else None
    if found is None:
        raise refuse("model cannot be found", f"{where}.model.storageUri", "pvc://plumb-models/MODEL/VERSION", repr(uri))
    name = _name(content.get("name", None if stable else STABLE), f"{where}.name")
    inherited = stable or Predictor(STABLE, "", 0)
    predictor = Predictor(
        name, found[1], int(found[2]),
        arguments=_arguments(model["args"], f"{where}.model.args") if "args" in model else inherited.arguments,
        environment=_environment(model.get("env") or [], f"{where}.model.env", inherited.environment),
        timeout_s=_seconds(content.get("timeout", inherited.timeout_s), f"{where}.timeout"),
    )  # fmt: skip
    return predictor, _read_logger(content.get("logger"), f"{where}.logger", ignored)


def _read_logger(value: object, where: str, ignored: list[str]) -> Logger | None:
    if value is None:
        return None
    refused = dict.fromkeys(("storage", "batchSize", "batchInterval", "marshallerUrl"), "events go to an HTTP sink")
    forwarded = frozenset({"metadataHeaders", "metadataAnnotations"})
    content = _object(value, where, {"mode", "url"}, forwarded, ignored, refused)
    mode, url = content.get("mode"), content.get("url")
    if mode not in ("all", "request", "response"):
        raise refuse("unknown logger mode", f"{where}.mode", "all, request or response", repr(mode))
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not isinstance(url, str):
        raise refuse("logger has no usable address", f"{where}.url", "http://HOST:PORT/PATH", repr(url))
    return Logger(str(mode), url)


def _object(
    value: object, where: str, known: set[str], elsewhere: frozenset[str] = frozenset(), ignored: list[str] | None = None,
    refused: Mapping[str, str] | None = None,
) -> Mapping[str, Any]:  # fmt: skip
    """An object whose fields are all known; those that mean something ``elsewhere`` only are added to ``ignored``."""
    if not isinstance(value, Mapping):
        raise refuse("not an object", where, f"an object with {', '.join(sorted(known))}", type(value).__name__)
    for name in value:
        if name in (refused or {}):
            raise refuse("field is not supported on this plane", f"{where}.{name}", "none", (refused or {})[name])
        if name in elsewhere and ignored is not None:
            ignored.append(f"{where}.{name}")
        elif name not in known:
            raise refuse("unknown field", f"{where}.{name}", " or ".join(sorted(known)), repr(name))
    return value


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value) or len(value) > 63:
        raise refuse("not a name", where, "lower-case letters, digits and hyphens, a letter first", repr(value))
    return value


def _seconds(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise refuse("not a duration", where, "whole seconds", repr(value))
    return value


def _arguments(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise refuse("not a list of arguments", where, "a list of texts", repr(value))
    return tuple(value)


def _environment(value: object, where: str, inherited: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise refuse("not a list of variables", where, "a list of {name, value}", repr(value))
    variables = dict(inherited)
    for row, entry in enumerate(value):
        pair = _texts(_object(entry, f"{where}[{row}]", {"name", "value"}), f"{where}[{row}]")
        if not pair.get("name"):
            raise refuse("variable has no name", f"{where}[{row}]", "name and value", repr(dict(pair)))
        variables[pair["name"]] = pair.get("value", "")
    return tuple(sorted(variables.items()))


def _texts(value: object, where: str) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise refuse("not texts by name", where, "names and texts (quote numbers and booleans)", repr(value))
    return value


def refuse(what: str, which: str, expected: str, got: str) -> DocumentError:
    """A ``DocumentError`` whose next step is always the same: the document must change."""
    return DocumentError(explain(what, which=which, expected=expected, got=got[:200], next_step="correct the document"))
