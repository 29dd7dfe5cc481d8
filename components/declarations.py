"""What several steps need to know of a model: its declarations."""

from features.catalogs import load_catalog
from features.declarations import Catalog, View
from models.specs import load_spec


def declarations_of(model: str) -> tuple[Catalog, View]:
    """Catalog and view of a model spec.

    Raises:
        PlumblineError: no such model, catalog or view.
    """
    spec = load_spec(model)
    catalog = load_catalog(spec.catalog)
    return catalog, catalog.view(spec.view)
