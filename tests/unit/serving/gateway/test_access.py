"""Tokens: what is kept of them, and who comes in."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from data.errors import Conflict, NotAllowed, NotFound, TokenRefused, UsageError
from serving.gateway.access import Gate, Identity, Role, create, revoke, rotate, secret
from serving.gateway.store import Store, unscoped
from serving.gateway.store.repositories import audit, tokens
from tests.gateway_rows import dump

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.fixture(autouse=True)
def clock(store: Store) -> list[dt.datetime]:
    now = [NOW]
    store.clock = lambda: now[0]
    return now


def issue(store: Store, tenant: str, **values: object) -> tuple[str, str]:
    asked = {"role": Role.APP, "name": "app"} | values
    with store.write(tenant, "test") as scope:
        made = create(scope, **asked)  # type: ignore[arg-type]
    return made.row.id, made.text


@pytest.mark.parametrize("kind", ["api_key", "bearer"])
@pytest.mark.parametrize("role", list(Role))
def test_a_token_opens_for_its_tenant_and_role(store: Store, tenant: str, kind: str, role: Role) -> None:
    key, text = issue(store, tenant, kind=kind, role=role, subject="ada")
    assert re.fullmatch(r"rt[kb]_[0-9a-f]{16}_[\w-]{43}", text)
    gate = Gate(store)
    assert gate.open(text) == gate.open(text, kind) == Identity(tenant, role, "ada", f"token:{key}")
    with pytest.raises(TokenRefused):
        gate.open(text, "bearer" if kind == "api_key" else "api_key")


def test_the_secret_is_kept_nowhere(store: Store, tenant: str) -> None:
    _, text = issue(store, tenant)
    with store.write(tenant, "test") as scope:
        made = create(scope, role=Role.ADMIN, name="boss")
    everything = repr(dump(store, tenant))
    for token in (text, made.text):
        assert token.split("_", 2)[2] not in everything
        assert secret.digest(token) in everything
    assert made.text not in repr(made)


def test_what_is_not_a_good_token_is_refused_in_the_same_words(
    store: Store, tenant: str, clock: list[dt.datetime]
) -> None:
    key, text = issue(store, tenant)
    _, expiring = issue(store, tenant, lives=HOUR)
    other, revoked = issue(store, tenant)
    with store.write(tenant, "test") as scope:
        revoke(scope, other)
    clock[0] += HOUR
    wrong = [
        None,
        "",
        "x",
        "\0",
        "é\ud800",
        text[:-1],
        text + "a",
        text.upper(),
        text[:-1] + ("A" if text[-1] != "A" else "B"),
        text.replace("rtk_", "rtb_"),
        "rtk_" + "0" * 16 + "_" + "A" * 43,
        f" {text}",
        expiring,
        revoked,
        "a" * 100_000,
    ]
    said = set()
    for token in wrong:
        with pytest.raises(TokenRefused) as error:
            Gate(store).open(token)
        said.add(str(error.value))
    assert len(said) == 1
    assert Gate(store).open(text).actor == f"token:{key}"


def test_unknown_tokens_are_compared_too(store: Store, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = issue(store, tenant)
    compared: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "serving.gateway.access.secret.hmac.compare_digest",
        lambda one, other: bool(compared.append((one, other))) or one == other,
    )
    gate = Gate(store)
    for token in (text, None, "nonsense", "rtk_" + "0" * 16 + "_" + "A" * 43):
        before = len(compared)
        try:
            gate.open(token)
        except TokenRefused:
            assert token != text
        assert len(compared) == before + 1


def test_rotation_overlaps_and_then_the_old_one_ends(
    store: Store, tenant: str, clock: list[dt.datetime]
) -> None:
    key, old = issue(store, tenant, role=Role.REVIEWER, subject="eve", kind="bearer")
    with store.write(tenant, "test") as scope:
        new = rotate(scope, key, overlap=HOUR)
    gate = Gate(store)
    first, second = gate.open(old), gate.open(new.text)
    assert (first.role, first.subject) == (second.role, second.subject) == (Role.REVIEWER, "eve")
    clock[0] += HOUR
    with pytest.raises(TokenRefused):
        gate.open(old)
    gate.open(new.text)
    with pytest.raises(Conflict), store.write(tenant, "test") as scope:
        rotate(scope, key, overlap=HOUR)


def test_rotation_without_overlap_never_lengthens_a_life_and_keeps_its_length(
    store: Store, tenant: str, clock: list[dt.datetime]
) -> None:
    key, old = issue(store, tenant, lives=HOUR)
    clock[0] += HOUR / 2
    with store.write(tenant, "test") as scope:
        new = rotate(scope, key, overlap=5 * HOUR)
        assert tokens.get(scope, key).expires_at == NOW + HOUR
        assert new.row.expires_at == clock[0] + HOUR
        with pytest.raises(Conflict, match="successor"):
            rotate(scope, key, overlap=HOUR)
        newer = rotate(scope, new.row.id, overlap=dt.timedelta(0))
    gate = Gate(store)
    gate.open(old)
    gate.open(newer.text)
    with pytest.raises(TokenRefused):
        gate.open(new.text)


def test_a_revoked_token_is_refused_from_the_next_request_on(store: Store, tenant: str) -> None:
    key, text = issue(store, tenant)
    gate = Gate(store)
    gate.open(text)
    for _ in range(2):
        with store.write(tenant, "test") as scope:
            revoke(scope, key)
    with pytest.raises(TokenRefused):
        gate.open(text)
    with pytest.raises(Conflict), store.write(tenant, "test") as scope:
        rotate(scope, key, overlap=HOUR)


def test_another_tenants_token_can_not_be_touched(store: Store, tenant: str, other: str) -> None:
    key, text = issue(store, other)
    with store.write(tenant, "mallory") as scope:
        for call in (lambda: revoke(scope, key), lambda: rotate(scope, key, overlap=HOUR)):
            with pytest.raises(NotFound):
                call()
    assert Gate(store).open(text).tenant == other


def test_roles() -> None:
    me = Identity("t", Role.REVIEWER, "s", "a")
    me.require(Role.REVIEWER)
    me.require(Role.APP, Role.REVIEWER)
    for allowed in ((Role.APP,), (Role.ADMIN,), ()):
        with pytest.raises(NotAllowed):
            me.require(*allowed)
    Identity("t", Role.ADMIN, "s", "a").require(Role.APP)


def test_the_old_services_key(store: Store, tenant: str) -> None:
    gate = Gate(store, static_key="abc123", static_tenant=tenant)
    assert gate.open("abc123").role is Role.APP
    assert gate.open("abc123", "api_key").tenant == tenant
    for token, kind in (("abc123", "bearer"), ("abc12", None), ("abc1234", None), ("", None)):
        with pytest.raises(TokenRefused):
            gate.open(token, kind)
    _, text = issue(store, tenant)
    assert gate.open(text).tenant == tenant
    with pytest.raises(TokenRefused):
        Gate(store, static_key="", static_tenant=tenant).open("")
    with pytest.raises(ValueError, match="tenant"):
        Gate(store, static_key="abc")


def test_use_is_noted_now_and_then(store: Store, tenant: str, clock: list[dt.datetime]) -> None:
    key, text = issue(store, tenant)
    gate = Gate(store)

    def used() -> dt.datetime | None:
        with store.read(tenant) as scope:
            return tokens.get(scope, key).last_used_at

    assert used() is None
    gate.open(text)
    clock[0] += dt.timedelta(minutes=1)
    gate.open(text)
    assert used() == NOW
    clock[0] += dt.timedelta(minutes=5)
    gate.open(text)
    assert used() == clock[0]


def test_everything_is_in_the_audit_log(store: Store, tenant: str) -> None:
    key, _ = issue(store, tenant)
    with store.write(tenant, "command:root") as scope:
        made = rotate(scope, key, overlap=HOUR)
        revoke(scope, made.row.id)
    with store.read(tenant) as scope:
        found = [(row.action, row.actor) for row in audit.entries(scope)]
        assert audit.verify(scope) == []
    assert found == [
        ("token.create", "test"),
        ("token.create", "command:root"),
        ("token.rotate", "command:root"),
        ("token.revoke", "command:root"),
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"name": " "},
        {"name": "a\nb"},
        {"name": "x" * 201},
        {"subject": " "},
        {"lives": dt.timedelta(0)},
        {"lives": dt.timedelta(days=999999999)},
    ],
)
def test_what_no_token_may_be(store: Store, tenant: str, values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        issue(store, tenant, **values)


def test_a_token_is_found_by_its_public_half_only(store: Store, tenant: str) -> None:
    key, text = issue(store, tenant)
    found = unscoped.find_token(store, text.split("_")[1])
    assert found is not None
    assert found.id == key
