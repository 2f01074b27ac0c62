"""Names: what their grammars accept, and what the message says when they don't."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.exceptions import InvalidNameError
from ml_core.ids import Digest, EnvironmentName, ModelId, ModelRef, TenantId, VersionId, VersionRef

BAD_NAMES = ["", "../etc", "..", "Acme", "1abc", "a" * 300, "tenänt", "a b", "a/b", "a\n", "a\0", "-a", "a.b"]


@pytest.mark.parametrize("kind", [TenantId, ModelId, EnvironmentName])
@pytest.mark.parametrize("text", BAD_NAMES)
def test_a_bad_name_is_refused_with_the_rule(kind, text):
    """The message shows the name, cut to a readable length, and the rule that it breaks."""
    with pytest.raises(InvalidNameError) as caught:
        kind(text)
    assert "beginning with a letter" in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", ["tenant_123", "a", "acme-corp", "a" * 40])
def test_existing_names_are_accepted(text):
    """Names that users have already."""
    assert TenantId(text) == text


@pytest.mark.parametrize("text", ["1.0.0", "2026-11-24", "v1+build.7", "1"])
def test_versions_may_have_points(text):
    """A version is the caller's own text."""
    assert VersionId(text) == text


@pytest.mark.parametrize("text", [".", "..", "../1", "1/2", "", "a" * 65, "1\n"])
def test_a_version_can_not_be_a_path(text):
    """Nothing that could climb out of a folder."""
    with pytest.raises(InvalidNameError):
        VersionId(text)


@given(st.text())
def test_whatever_is_accepted_is_safe_in_a_path(text):
    """No accepted name has a separator, a blank or a dot at its beginning."""
    for kind in (TenantId, ModelId, VersionId, EnvironmentName, Digest):
        try:
            name = kind(text)
        except InvalidNameError:
            continue
        assert not set(name) & set("/\\ \n\0%?#")
        assert not name.startswith(".")


def test_a_name_survives_pickling():
    """Ray moves names between processes."""
    ref = VersionRef(TenantId("acme"), ModelId("tickets"), VersionId("1"))
    again = pickle.loads(pickle.dumps(ref))
    assert again == ref
    assert type(again.tenant_id) is TenantId


def test_a_model_names_its_route():
    """Every derived name comes from the id itself."""
    ref = VersionRef(TenantId("acme"), ModelId("tickets"), VersionId("1"))
    assert ref.model == ModelRef(TenantId("acme"), ModelId("tickets"))
    assert ref.model.route == "/t/acme/models/tickets"
