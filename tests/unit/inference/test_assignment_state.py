"""Who may ask: keys and tenants as the assignment says, at once and without a lock."""

from __future__ import annotations

import pytest

from ml_core.domain.api_key import ApiKey, Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.exceptions import AuthenticationError, ModelNotReadyError
from ml_core.ids import TenantId
from ml_core.inference.assignment import Assignment

ACME = TenantId("acme")


@pytest.fixture
def key():
    return ApiKey.generate()


@pytest.fixture
def record(key):
    return key.record(ACME, frozenset({Scope.PREDICT}))


@pytest.fixture
def assignment(key, record):
    assignment = Assignment()
    assignment.apply(AssignmentDelta(1, True, {ACME: True}, {}, {record.ref: record}))
    return assignment


def header(key):
    return f"Bearer {key}".encode()


def test_a_known_key_names_its_tenant(assignment, key, record):
    """The first time by its hash, then by its header; the scheme in any case."""
    for text in (header(key), header(key), b"bearer " + str(key).encode()):
        principal = assignment.principal(text)
        assert (principal.name, principal.tenant_id, principal.scopes) == (f"key:{key.key_id}", ACME, record.scopes)
    assert assignment.principal(header(key)) is assignment.principal(header(key))


@pytest.mark.parametrize(
    "text",
    [None, b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"Bearer mlk_0123456789abcdef_", b"Bearer \xff\xfe", b"mlk_x"],
)
def test_anything_else_is_refused(assignment, text):
    """With a remedy, and never with another error."""
    with pytest.raises(AuthenticationError):
        assignment.principal(text)


def test_a_wrong_secret_is_refused(assignment, key):
    """The key id alone opens nothing."""
    wrong = ApiKey(key.key_id, ApiKey.generate().secret)
    with pytest.raises(AuthenticationError):
        assignment.principal(header(wrong))


def test_a_revoked_key_stops_working_at_once(assignment, key, record):
    """Although its header is remembered."""
    assignment.principal(header(key))
    assignment.apply(AssignmentDelta(2, False, {}, {}, {record.ref: None}))
    with pytest.raises(AuthenticationError):
        assignment.principal(header(key))


def test_an_id_that_two_tenants_have_opens_each_its_own(assignment, key, record):
    """One tenant's key is found beside another's of the same id, and goes without it."""
    other = TenantId("globex")
    twin = ApiKey(key.key_id, ApiKey.generate().secret)
    theirs = twin.record(other, frozenset({Scope.ADMIN}))
    assignment.apply(AssignmentDelta(2, False, {other: True}, {}, {theirs.ref: theirs}))
    assert assignment.principal(header(key)).tenant_id == ACME
    assert assignment.principal(header(twin)).tenant_id == other
    assignment.apply(AssignmentDelta(3, False, {}, {}, {theirs.ref: None}))
    assert assignment.principal(header(key)).tenant_id == ACME
    with pytest.raises(AuthenticationError):
        assignment.principal(header(twin))


def test_the_keys_of_a_deleted_tenant_stop_working(assignment, key):
    """Even if the delta does not name them."""
    assignment.principal(header(key))
    assignment.apply(AssignmentDelta(2, False, {ACME: False}, {}, {}))
    with pytest.raises(AuthenticationError):
        assignment.principal(header(key))


def test_a_snapshot_forgets_the_keys_it_does_not_name(assignment, key):
    """After a resynchronisation only what is there counts."""
    assignment.principal(header(key))
    assignment.apply(AssignmentDelta(2, True, {ACME: True}, {}, {}))
    with pytest.raises(AuthenticationError):
        assignment.principal(header(key))


def test_a_promotion_does_not_forget_who_is_who(assignment, key, record):
    """A delta without keys keeps the remembered headers."""
    assignment.principal(header(key))
    remembered = assignment._principals
    assignment.apply(AssignmentDelta(2, False, {}, {}, {}))
    assert assignment._principals is remembered


def test_before_the_first_snapshot_nobody_is_called_unknown(key):
    """A good key is not told that it is bad because the replica knows nothing yet."""
    with pytest.raises(ModelNotReadyError):
        Assignment().principal(header(key))
