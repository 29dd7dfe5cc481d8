"""Catalogs that ship with Plumbline, and the one way to load any catalog."""

from __future__ import annotations

import importlib
import pkgutil

from features.checks import check_catalog
from features.declarations import Catalog
from features.errors import DeclarationError, explain


def load_catalog(name: str) -> Catalog:
    """The checked catalog of a shipped module's name (``retail``) or of a dotted module path that defines ``CATALOG``.

    Raises:
        DeclarationError: there is no such module, it defines no ``CATALOG``, or the catalog contradicts itself.

    Example:
        >>> load_catalog("retail").entities
        ('customer',)
    """
    path = name if "." in name else f"{__name__}.{name}"
    try:
        module = importlib.import_module(path)
        catalog = module.CATALOG
    except (ModuleNotFoundError, AttributeError) as error:
        shipped = ", ".join(module.name for module in pkgutil.iter_modules(__path__))
        raise DeclarationError(
            explain("catalog cannot be loaded", which=repr(name), expected=f"one of {shipped}, or a dotted module with CATALOG",
                    got=str(error), next_step="correct the name or the module path")
        ) from error  # fmt: skip
    if not isinstance(catalog, Catalog):
        raise DeclarationError(
            explain("CATALOG is no catalog", which=repr(path), expected="features.declarations.Catalog",
                    got=type(catalog).__name__, next_step="assign a Catalog to CATALOG")
        )  # fmt: skip
    check_catalog(catalog)
    return catalog
