"""JSON patches by the examples of RFC 6902's appendix A, for the operations that we take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.plane.errors import ConflictError, PatchError
from inference.plane.patch import apply_patch

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("document", "operation", "expected"),
    [
        ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": "qux"}, {"baz": "qux", "foo": "bar"}),  # A.1
        ({"foo": ["bar", "baz"]}, {"op": "add", "path": "/foo/1", "value": "qux"}, {"foo": ["bar", "qux", "baz"]}),  # A.2
        ({"baz": "qux", "foo": "bar"}, {"op": "remove", "path": "/baz"}, {"foo": "bar"}),  # A.3
        ({"foo": ["bar", "qux", "baz"]}, {"op": "remove", "path": "/foo/1"}, {"foo": ["bar", "baz"]}),  # A.4
        ({"baz": "qux", "foo": "bar"}, {"op": "replace", "path": "/baz", "value": "boo"}, {"baz": "boo", "foo": "bar"}),  # A.5
        ({"baz": "qux"}, {"op": "test", "path": "/baz", "value": "qux"}, {"baz": "qux"}),  # A.8
        ({"foo": "bar"}, {"op": "add", "path": "/child", "value": {"a": {}}}, {"foo": "bar", "child": {"a": {}}}),  # A.10
        ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": 10}, {"/": 9, "~1": 10}),  # A.14
        ({"foo": ["bar"]}, {"op": "add", "path": "/foo/-", "value": ["abc"]}, {"foo": ["bar", ["abc"]]}),  # A.16
    ],
)
def test_an_operation_does_what_the_rfc_says(
    document: dict[str, Any], operation: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert apply_patch(document, [operation]) == expected


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "test", "path": "/baz", "value": "bar"}], "document is not as expected: /baz"),  # A.9
        ([{"op": "add", "path": "/baz/bat", "value": "qux"}], "path does not exist"),  # A.12
        ([{"op": "test", "path": "/one", "value": True}], "document is not as expected"),
        ([{"op": "replace", "path": "/nothing", "value": 1}], "path does not exist"),
        ([{"op": "remove", "path": "/list/2"}], "path does not exist"),
        ([{"op": "add", "path": "/list/3", "value": 1}], "path does not exist"),
        ([{"op": "add", "path": "/list/01", "value": 1}], "not a place in a list"),
        ([{"op": "remove", "path": "/list/-"}], "path does not exist"),
        ([{"op": "move", "path": "/a", "from": "/b"}], "unknown operation"),
        ([{"op": "add", "path": "/a"}], "operation has no value"),
        ([{"op": "add", "path": "a", "value": 1}], "no usable path"),
        (["add"], "unknown operation"),
        ({"op": "add"}, "not a JSON patch"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_in_one_line(operations: object, expected: str) -> None:
    document = {"baz": "qux", "one": 1, "list": [1, 2]}
    with pytest.raises(PatchError) as raised:
        apply_patch(document, operations)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)
    assert document == {"baz": "qux", "one": 1, "list": [1, 2]}


def test_an_old_resource_version_is_a_conflict() -> None:
    with pytest.raises(ConflictError):
        apply_patch({"metadata": {"resourceVersion": "2"}}, [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}])


@given(st.dictionaries(st.text(), JSON), st.text(), JSON)
def test_what_was_added_passes_its_test_and_leaves_no_trace_once_removed(
    document: dict[str, Any], key: str, value: object
) -> None:
    path = "/" + key.replace("~", "~0").replace("/", "~1")
    added = apply_patch(document, [{"op": "add", "path": path, "value": value}, {"op": "test", "path": path, "value": value}])
    rest = {name: entry for name, entry in document.items() if name != key}
    assert added == rest | {key: value}
    assert apply_patch(added, [{"op": "remove", "path": path}]) == rest
