"""Signing out ends the cookie's session, and no token that came along in a header."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from serving.gateway.access import Role, create
from serving.gateway.app import create_app
from serving.gateway.door import COOKIE, PAGE
from serving.gateway.gateway import Gateway

ROUTE = "/review/api/session"


@pytest.fixture
def client(gateway: Gateway) -> Iterator[TestClient]:
    with TestClient(create_app(gateway=gateway), headers={PAGE: "1"}) as found:
        yield found


def token_of(gateway: Gateway, kind: str = "bearer") -> str:
    with gateway.store.write(gateway.tenant, "test") as scope:
        return create(scope, role=Role.REVIEWER, name="eve", subject="eve", kind=kind).text  # type: ignore[arg-type]


@pytest.mark.parametrize("header", ["x-api-key", "authorization", None])
def test_the_session_alone_ends(gateway: Gateway, client: TestClient, header: str | None) -> None:
    text = token_of(gateway, "api_key" if header == "x-api-key" else "bearer")
    client.post(ROUTE, json={"token": token_of(gateway)}).raise_for_status()
    session = client.cookies[COOKIE]
    also = {header: f"Bearer {text}" if header == "authorization" else text} if header else {}
    assert client.delete(ROUTE, headers=also).status_code == 204
    client.cookies.set(COOKIE, session, path="/review")
    assert client.get(ROUTE).status_code == 401
    client.cookies.clear()
    if header:
        assert client.get(ROUTE, headers=also).status_code == 200


def test_a_token_that_somebody_put_into_the_cookie_is_no_session(
    gateway: Gateway, client: TestClient
) -> None:
    text = token_of(gateway)
    client.cookies.set(COOKIE, text, path="/review")
    assert client.delete(ROUTE).status_code == 204
    client.cookies.clear()
    assert client.get(ROUTE, headers={"authorization": f"Bearer {text}"}).status_code == 200
