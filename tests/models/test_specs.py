"""Shipped specs fit their catalogs; unknown and contradictory ones are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from features.catalogs import load_catalog
from features.declarations import window_features
from features.layout import DAY_S
from models.errors import SpecError
from models.spec_checks import check_spec
from models.specs import Attribution, Exclusion, Gate, Learning, ModelSpec, all_specs, load_spec


@pytest.mark.parametrize("spec", all_specs().values(), ids=lambda spec: spec.name)
def test_a_shipped_spec_names_only_what_its_catalog_declares(spec: ModelSpec) -> None:
    catalog = load_catalog(spec.catalog)
    view = catalog.view(spec.view)
    for name in (*spec.label.outcome, *spec.population.entered_by, *spec.population.left_by):
        assert catalog.event_type(name).entity == view.entity
    numbers = {feature.name for feature in window_features(catalog.signals_of(view))}
    derived = {entry.name for entry in (*view.elapsed, *view.ratios)}
    fields = {entry.name for entry in (*catalog.profile_fields_of(view), *view.request) if entry.dtype == "int64"}
    assert spec.recency in derived | fields
    assert spec.activity in numbers
    assert {entry.feature for entry in spec.slices} <= numbers | derived | fields


def test_churn_is_a_cancellation_and_retail_churn_is_silence() -> None:
    assert (load_spec("churn").label.outcome, load_spec("churn").label.positive) == (("cancellation",), "occurs")
    assert (load_spec("churn_retail").label.outcome, load_spec("churn_retail").label.positive) == (("order",), "absent")


def test_an_unknown_model_is_refused_in_one_line_that_names_the_known_ones() -> None:
    with pytest.raises(
        SpecError,
        match=r"^unknown model: 'chrun'; expected one of churn, churn_retail, returning, [a-z_, ]+; got 'chrun'; next: [^\n]+$",
    ):
        load_spec("chrun")


def test_a_spec_that_contradicts_itself_is_refused() -> None:
    spec = load_spec("churn")
    wrong = [
        replace(spec, label=replace(spec.label, horizon_s=0)),
        replace(spec, label=replace(spec.label, label_delay_s=-1)),
        replace(spec, cutoffs=replace(spec.cutoffs, every_s=3_600)),
        replace(spec, cutoffs=replace(spec.cutoffs, validation_share=0)),
        replace(spec, baselines=("prior",)),
        replace(spec, gate=Gate(must_beat=("champion",))),
        replace(spec, learning=Learning("hazard", delay_buckets_s=(30 * DAY_S,))),
        replace(spec, learning=Learning("hazard", delay_buckets_s=(45 * DAY_S, 90 * DAY_S))),
        replace(spec, learning=Learning("fake_negative", learner="lightgbm")),
        replace(spec, label=replace(spec.label, attribution=Attribution(("session",), DAY_S))),
        replace(spec, label=replace(spec.label, exclusion=Exclusion(("refund",), 15 * DAY_S))),
    ]
    for entry in wrong:
        with pytest.raises(SpecError, match="model spec contradicts itself: 'churn'"):
            check_spec(entry)
