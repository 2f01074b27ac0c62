"""Values of the domain are JSON and back."""

import json
from dataclasses import dataclass, field

import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.columns import ColumnKind
from ml_core.domain.document import Document
from ml_core.domain.principal import Principal
from ml_core.exceptions import InvalidNameError
from ml_core.ids import EnvironmentName, TenantId


@dataclass(frozen=True, slots=True)
class Leaf(Document):
    name: TenantId
    kind: ColumnKind | None = None


@dataclass(frozen=True, slots=True)
class Tree(Document):
    leaf: Leaf
    leaves: tuple[Leaf, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    pair: tuple[str, int] = ("", 0)
    scopes: frozenset[Scope] = frozenset()
    other: Leaf | None = None
    derived: int = field(init=False, default=0)


TREE = Tree(
    Leaf(TenantId("acme"), ColumnKind.TEXT),
    (Leaf(TenantId("b")),),
    (("x", 1), ("y", 2)),
    ("z", 3),
    frozenset({Scope.TRAIN, Scope.READ}),
    Leaf(TenantId("c")),
)


def test_a_value_with_all_forms_of_fields_is_read_back_from_its_text() -> None:
    found = Tree.from_json(json.loads(json.dumps(TREE.to_json())))
    assert found == TREE
    assert (type(found.leaf.name), type(found.leaves[0]), type(found.counts)) == (TenantId, Leaf, tuple)


def test_the_form_is_of_plain_types_in_the_order_of_the_fields_and_without_derived_ones() -> None:
    document = TREE.to_json()
    assert list(document) == ["leaf", "leaves", "counts", "pair", "scopes", "other"]
    assert document["scopes"] == ["read", "train"]
    assert (type(document["leaf"]["name"]), type(document["leaf"]["kind"])) == (str, str)


def test_absent_members_have_their_defaults_and_unknown_ones_are_ignored() -> None:
    assert Tree.from_json({"leaf": {"name": "acme", "size": 3}, "later": True}) == Tree(Leaf(TenantId("acme")))


def test_a_name_is_parsed_again() -> None:
    with pytest.raises(InvalidNameError):
        Leaf.from_json({"name": "../acme"})


def test_a_principal_keeps_its_rights() -> None:
    principal = Principal("key:1", frozenset({Scope.TRAIN}), frozenset({EnvironmentName("staging")}), TenantId("acme"))
    assert Principal.from_json(json.loads(json.dumps(principal.to_json()))) == principal
