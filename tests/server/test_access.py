"""Signing in, tokens, grants and the audit over HTTP; and what a browser's cookie may do."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import httpx
import jwt
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from outlast.access import Grant, Role
from outlast.access.audit import Deed
from outlast.accounts import password
from outlast.accounts.desk import Desk
from outlast.errors import CannotLoad, ServerUnreachable, Unauthenticated, UsageError
from outlast.server import access, crowd
from outlast.server.auth import FirstToken
from outlast.server.known import StoreAuthenticator
from outlast.server.oidc import OpenId, OpenIdProvider
from outlast.server.serving import Address, see_somebody

from .conftest import TOKEN, World, a_world

WORDS = "four words of mine"
DEED = Deed("os:root", "cli", "test", 1)


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    password._nobodys.cache_clear()
    crowd._left.clear()
    monkeypatch.setattr(password, "_hasher", lambda: PasswordHasher(1, 8, 1))


@contextlib.asynccontextmanager
async def a_known_world(provider: Any = None) -> AsyncIterator[World]:
    """A world whose callers are those of the store, and the first token."""
    later = _Later()
    async with a_world(later) as world:
        later.it = StoreAuthenticator(world.engine, FirstToken.of(TOKEN), provider)
        yield world
        assert world.engine.store.access.defects() == []


def hold_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass for the engine: to look at a password may take longer than to wait."""
    now = world.engine.clock.now()
    monkeypatch.setattr(world.engine.clock, "now", lambda: now)


class _Later:
    it: Any = None

    async def authenticate(self, headers: Any) -> Any:
        return await self.it.authenticate(headers)


def test_a_person_signs_in_acts_and_signs_out() -> None:
    async def main() -> None:
        async with a_known_world() as world:
            roles = [{"role": "operator"}, {"role": "payload-reader", "task": "total"}]
            body = {"name": "ada", "password": WORDS, "roles": roles}
            made = await world.post("/api/v1/users", body, 201)
            assert made["roles"] == [roles[0] | {"task": ""}, roles[1]] and "argon" not in str(made)
            id = await world.start("waits", span="1h")
            del world.http.headers["authorization"]
            await world.get("/api/v1/me", 401)
            answer = await world.http.post(
                "/api/v1/session", json={"name": "ada", "password": WORDS}
            )
            cookie = answer.headers["set-cookie"]
            assert answer.status_code == 200 and "HttpOnly; SameSite=Strict; Path=/" in cookie
            assert cookie.endswith("; Secure"), "the host is not this machine"
            form = answer.json()["form"]
            text = cookie.partition("=")[2].partition(";")[0]
            assert form not in cookie and text not in answer.text
            world.http.cookies.clear()
            world.http.headers["cookie"] = f"outlast_session={text}"
            me = await world.get("/api/v1/me")
            assert me["name"] == "user:ada" and me["form"] == form
            assert "executions:operate" in me["permissions"]
            assert "access:read" not in me["permissions"]
            page = await world.get("/api/v1/executions")
            assert [one["id"] for one in page["items"]] == [id]
            problem = await world.post(f"/api/v1/executions/{id}/pause", status=403)
            assert problem["where"] == "x-outlast-form"
            wrong = {"x-outlast-form": "0" * 64}
            await world.post(f"/api/v1/executions/{id}/pause", status=403, headers=wrong)
            good = {"x-outlast-form": form}
            await world.post(f"/api/v1/executions/{id}/pause", headers=good)
            await world.get("/api/v1/users", 403)
            await world.call("DELETE", "/api/v1/session", 204, headers=good)
            world.http.headers["authorization"] = f"Bearer {TOKEN}"
            told = (await world.get("/api/v1/audit"))["items"]
            assert [(one["by"], one["what"], one["target"]) for one in told] == [
                ("user:ada", "sign_out", "user:ada"),
                ("user:ada", "pause_execution", id),
                ("user:ada", "sign_in", "user:ada"),
                ("admin", "start_execution", id),
                ("admin", "add_user", "user:ada"),
                ("admin", "add_user", "user:ada"),
                ("admin", "add_user", "user:ada"),
            ]
            assert {one["via"] for one in told} == {"api"} and WORDS not in json.dumps(told)
            chain = await world.get("/api/v1/audit/chain")
            assert chain["rows"] == 7 and chain["defects"] == []

    asyncio.run(main())


def test_what_is_signed_out_or_revoked_is_out_within_a_second() -> None:
    async def main() -> None:
        async with a_known_world() as world:
            body = {"name": "ci", "roles": [{"role": "viewer"}]}
            made = await world.post("/api/v1/tokens", body, 201)
            own = {"authorization": f"Bearer {made['token']}"}
            assert (await world.get("/api/v1/me", headers=own))["name"] == f"token:{made['id']}"
            listed = (await world.get("/api/v1/tokens"))["items"]
            assert made["token"].partition(".")[2] not in str(listed)
            assert listed[0]["used_at"] is not None
            await world.get("/api/v1/tokens", 403, headers=own)
            await world.call("DELETE", f"/api/v1/tokens/{made['id']}", 204)
            await world.call("DELETE", "/api/v1/tokens/0123456789", 404)
            until = time.monotonic() + 1
            while True:
                answer = await world.http.get("/api/v1/me", headers=own)
                if answer.status_code == 401:
                    break
                assert time.monotonic() < until + 5
                await asyncio.sleep(0.05)  # sleeps: what was found is remembered for half a second

    asyncio.run(main())


def test_nobody_signs_in_by_guessing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words for whoever is there and whoever is not; after some, a wait."""

    async def main() -> None:
        async with a_known_world() as world:
            hold_time(world, monkeypatch)
            await world.post("/api/v1/users", {"name": "ada", "password": WORDS}, 201)
            said = []
            for name in ("ada", "eve"):
                for _ in range(5):
                    body = {"name": name, "password": "a wrong password"}
                    problem = await world.post("/api/v1/session", body, 401)
                    problem.pop("instance")
                    said.append(problem)
                answer = await world.http.post("/api/v1/session", json=body)
                assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert all(one == said[0] for one in said)
            assert "set-cookie" not in answer.headers

    asyncio.run(main())


def test_grants_count_and_are_taken_back() -> None:
    async def main() -> None:
        async with a_known_world() as world:
            await world.post("/api/v1/users", {"name": "ada", "password": WORDS}, 201)
            body = {"name": "own", "owner": "ada", "roles": [{"role": "admin"}]}
            text = (await world.post("/api/v1/tokens", body, 201))["token"]
            own = {"authorization": f"Bearer {text}"}
            authenticator = StoreAuthenticator(world.engine)
            id = await world.start("asks", name="Bob")

            async def allowed() -> bool:
                identity = await authenticator.authenticate(own)
                authenticator.forget()
                return identity.rights.see(1, "asks")

            assert not await allowed()
            grant = {"who": "user:ada", "role": "viewer", "task": "asks"}
            await world.call("PUT", "/api/v1/grants", 204, json=grant)
            assert await allowed()
            page = (await world.get("/api/v1/grants"))["items"]
            assert [(one["who"], one["role"], one["task"]) for one in page] == [
                ("user:ada", "viewer", "asks")
            ]
            await world.call("DELETE", "/api/v1/grants", 204, params=grant)
            await world.call("DELETE", "/api/v1/grants", 404, params=grant)
            assert not await allowed()
            assert (await world.get(f"/api/v1/executions/{id}"))["id"] == id
            await world.call("PATCH", "/api/v1/users/ada", 200, json={"disabled": True})
            with pytest.raises(Unauthenticated):
                await allowed()
            patched = await world.call("PATCH", "/api/v1/users/ada", 200, json={"disabled": False})
            assert patched["disabled_at"] is None
            await world.call("PATCH", "/api/v1/users/eve", 404, json={"disabled": True})

    asyncio.run(main())


def test_a_wide_server_knows_somebody() -> None:
    async def main() -> None:
        async with a_known_world() as world:
            wide = Address("0.0.0.0", is_wide=True)
            await see_somebody(world.engine, Address())
            with pytest.raises(UsageError, match="nobody but the first token"):
                await see_somebody(world.engine, wide)
            desk = Desk(world.engine.store.access)
            await world.engine.journal.call(
                lambda: desk.make_token("ci", [Grant(Role.VIEWER)], DEED)
            )
            await see_somebody(world.engine, wide)

    asyncio.run(main())


# What an OpenID provider says

RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
OTHER = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
CURVE = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {"iss": "https://id.example", "aud": "outlast", "sub": "u1", "groups": ["ops", 7]}


def jwks(tmp_path: Path) -> Path:
    keys = []
    for name, private in (("rsa", RSA), ("ec", CURVE)):
        algorithm: Any = jwt.get_algorithm_by_name("RS256" if name == "rsa" else "ES256")
        form = json.loads(algorithm.to_jwk(private.public_key()))
        keys.append({**form, "kid": name, "use": "sig"})
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": keys}))
    return path


def signed(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", **claims: Any) -> str:
    said = {**CLAIMS, "exp": int(time.time()) + 300, **claims}
    given = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(given, key, algorithm, headers={"kid": kid} if kid else {})


def test_a_providers_token_is_read(tmp_path: Path) -> None:
    provider = OpenId("https://id.example", "outlast", str(jwks(tmp_path))).opened()
    assert provider.read(signed(), 1) == ("u1", ("ops",))
    assert provider.read(signed(CURVE, "ES256", "ec", groups="ops"), 1) == ("u1", ("ops",))
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    embedded = jwt.encode(
        {**CLAIMS, "exp": int(time.time()) + 300}, OTHER, "RS256",
        headers={"kid": "rsa", "jku": "https://evil.example/k", "jwk": {"kty": "oct", "k": "AA"}},
    )  # fmt: skip
    critical = jwt.encode(
        {**CLAIMS, "exp": int(time.time()) + 9}, RSA, "RS256", headers={"kid": "rsa", "crit": ["x"]}
    )
    head, body, _ = signed().split(".")
    bad = {
        "another key": signed(OTHER),
        "an unknown key": signed(kid="x"),
        "no key's name": signed(kid=None),
        "a key of its own": embedded,
        "no signature": f"{head}.{body}.",
        "another body": f"{head}.{signed(sub='u2').split('.')[1]}.{signed().split('.')[2]}",
        "another issuer": signed(iss="https://evil.example"),
        "no issuer": signed(iss=None),
        "another audience": signed(aud="other"),
        "no audience": signed(aud=None),
        "over": signed(exp=int(time.time()) - 60),
        "without end": signed(exp=None),
        "not yet": signed(nbf=int(time.time()) + 600),
        "nobody": signed(sub=None),
        "no text": signed(sub=""),
        "unsigned": jwt.encode(CLAIMS, None, "none", headers={"kid": "rsa"}),
        "a secret for a key": _confused(public),
        "what it must know": critical,
        "no token": "a.b.c",
    }  # fmt: skip
    for name, text in bad.items():
        with pytest.raises(Unauthenticated):
            raise AssertionError((name, provider.read(text, 1)))
    with pytest.raises(CannotLoad):
        OpenId("i", "a", str(tmp_path / "none.json")).opened()
    with pytest.raises(CannotLoad):
        OpenId("i", "a", "http://id.example/keys").opened()


def test_a_provider_is_not_asked_for_each_unknown_key(tmp_path: Path) -> None:
    known = jwt.PyJWKSet.from_json(jwks(tmp_path).read_text()).keys
    published = [one for one in known if one.key_id == "rsa"]
    asked: list[bool] = []
    now = [0.0]

    class Client:
        def __init__(self) -> None:
            self.cached = list(published)

        def get_signing_keys(self, refresh: bool = False) -> list[Any]:
            asked.append(refresh)
            self.cached = list(published) if refresh else self.cached
            return self.cached

    config = OpenId("https://id.example", "outlast", "https://id.example/keys")
    provider = OpenIdProvider(config, client=Client(), clock=lambda: now[0])
    assert provider.read(signed(), 1)[0] == "u1" and asked == [False]
    turned = signed(CURVE, "ES256", "ec")
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            provider.read(turned, 1)
    assert asked.count(True) == 1
    published[:] = known
    now[0] = 11.0
    assert provider.read(turned, 1)[0] == "u1" and asked.count(True) == 2


class Keys:
    """A server of keys, by TLS, that turns them over, and is down at times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.published: list[Any] = []
        self.is_down, self.asked = False, 0
        monkeypatch.setattr("urllib.request.OpenerDirector.open", self.opened)

    def opened(self, request: Any, **given: Any) -> Any:
        self.asked += 1
        if self.is_down:
            raise URLError("connection refused")
        return io.BytesIO(json.dumps({"keys": self.published}).encode())


def test_keys_turn_over_and_a_provider_that_is_down_shuts_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rsa_key, curve = json.loads(jwks(tmp_path).read_text())["keys"]
    server, now = Keys(monkeypatch), [1_000.0]
    config = OpenId("https://id.example", "outlast", "https://id.example/keys")
    client = jwt.PyJWKClient(config.keys, timeout=5, lifespan=1)
    provider = OpenIdProvider(config, client=client, clock=lambda: now[0])
    old, new = signed(), signed(CURVE, "ES256", "ec")

    server.is_down = True
    for _ in range(5):
        with pytest.raises(ServerUnreachable):
            provider.read(old, 1)
    assert server.asked == 1, "who does not answer is not asked for each request"

    server.is_down, server.published, now[0] = False, [rsa_key], now[0] + 11
    assert provider.read(old, 1)[0] == "u1"
    server.is_down, now[0] = True, now[0] + 11
    client.jwk_set_cache.lifespan = -1  # what it has kept is over
    assert provider.read(old, 1)[0] == "u1", "the last keys that were had"
    with pytest.raises(Unauthenticated):
        provider.read(new, 1)

    server.is_down, server.published, now[0] = False, [curve], now[0] + 11
    assert provider.read(new, 1)[0] == "u1"
    with pytest.raises(Unauthenticated):
        provider.read(old, 1)  # its key was taken back


def test_clocks_may_differ_by_half_a_minute_and_no_more(tmp_path: Path) -> None:
    """A nonce belongs to a browser's sign-in, not to a bearer's token: none is asked for."""
    provider = OpenId("https://id.example", "outlast", str(jwks(tmp_path))).opened()
    now = int(time.time())
    for good in ({"exp": now - 10}, {"nbf": now + 10}, {"iat": now + 10}, {"nonce": "n"}):
        assert provider.read(signed(**good), 1)[0] == "u1", good
    for bad in ({"exp": now - 120}, {"nbf": now + 120}, {"iat": now + 120}, {"aud": ["a", "b"]}):
        with pytest.raises(Unauthenticated):
            raise AssertionError((bad, provider.read(signed(**bad), 1)))
    for kind, key in (("HS256", b"outlast" * 6), ("HS512", b"k" * 64), ("RS512", RSA)):
        with pytest.raises(Unauthenticated):
            raise AssertionError((kind, provider.read(signed(key, kind), 1)))


def _confused(public: bytes) -> str:
    """A token signed by the public key as if it were a secret: what others have fallen for."""
    import base64
    import hashlib
    import hmac

    def packed(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    said = {**CLAIMS, "exp": int(time.time()) + 300}
    text = f"{packed({'alg': 'HS256', 'kid': 'rsa', 'typ': 'JWT'})}.{packed(said)}"
    digest = hmac.new(public, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def test_groups_of_a_provider_hold_roles(tmp_path: Path) -> None:
    provider = OpenId("https://id.example", "outlast", str(jwks(tmp_path))).opened()

    async def main() -> None:
        async with a_known_world(provider) as world:
            own = {"authorization": f"Bearer {signed()}"}
            me = await world.get("/api/v1/me", 403, headers=own)
            assert me["code"] == "forbidden", "nobody has granted anything to the group"
            grant = {"who": "group:ops", "role": "operator"}
            await world.call("PUT", "/api/v1/grants", 204, json=grant)
            me = await world.get("/api/v1/me", headers=own)
            assert me["name"] == "oidc:u1" and "executions:operate" in me["permissions"]
            other = {"authorization": f"Bearer {signed(OTHER)}"}
            await world.get("/api/v1/me", 401, headers=other)

    asyncio.run(main())


def test_yesterdays_password_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is changed while a sign-in with the old one is under way: behind the look at it."""

    async def main() -> None:
        async with a_known_world() as world:
            await world.post("/api/v1/users", {"name": "ada", "password": WORDS}, 201)
            look, changed = Desk.shown, []

            def slow(desk: Desk, name: str, words: str) -> Any:
                user = look(desk, name, words)
                if not changed:
                    changed.append(name)
                    Desk(world.engine.store.access).set_password(name, "quite another one", DEED)
                return user

            monkeypatch.setattr(Desk, "shown", slow)
            body = {"name": "ada", "password": WORDS}
            answer = await world.http.post("/api/v1/session", json=body)
            assert changed == ["ada"]
            assert answer.status_code == 401 and "set-cookie" not in answer.headers
            body["password"] = "quite another one"
            await world.post("/api/v1/session", body, 200)

    asyncio.run(main())


def from_address(world: World, address: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(world.app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def test_nobody_is_locked_out_by_somebody_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with a_known_world() as world:
            hold_time(world, monkeypatch)
            await world.post("/api/v1/users", {"name": "ada", "password": WORDS}, 201)
            wrong, right = ({"name": "ada", "password": one} for one in ("not mine at all", WORDS))
            async with from_address(world, "203.0.113.7") as eve:
                codes = [
                    (await eve.post("/api/v1/session", json=wrong)).status_code for _ in range(8)
                ]
                assert 429 in codes, "who guesses waits"
                assert (await eve.post("/api/v1/session", json=right)).status_code == 429
            async with from_address(world, "198.51.100.1") as ada:
                assert (await ada.post("/api/v1/session", json=right)).status_code == 200

    asyncio.run(main())


def test_one_source_tries_so_many_names_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crowd.PER_SECOND == 0.5
    monkeypatch.setattr(crowd, "BURST", 6.0)
    monkeypatch.setattr(crowd, "PER_SECOND", 0.0)  # however long each of them takes

    async def main() -> None:
        async with a_known_world() as world:
            codes = []
            # All addresses of one network of the sixth version are one source.
            for number in range(9):
                async with from_address(world, f"2001:db8:0:7::{number:x}") as eve:
                    body = {"name": f"user{number}", "password": "one for all of them"}
                    codes.append((await eve.post("/api/v1/session", json=body)).status_code)
            assert codes == [401] * 6 + [429] * 3
            async with from_address(world, "2001:db8:0:8::1") as other:
                assert (await other.post("/api/v1/session", json=body)).status_code == 401

    asyncio.run(main())


def test_the_engine_goes_on_while_passwords_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have threads of their own; who would wait long is sent away, and none fills the line."""
    door = threading.Event()

    def slowly(words: str) -> str:
        assert door.wait(100)
        return PasswordHasher(1, 8, 1).hash(words)

    monkeypatch.setattr(access, "made_of", slowly)

    async def main() -> None:
        async with a_known_world() as world:

            async def add(number: int) -> int:
                body = {"name": f"user{number}", "password": WORDS}
                return (await world.http.post("/api/v1/users", json=body)).status_code

            waiting = [asyncio.create_task(add(number)) for number in range(crowd.EACH_MAX)]
            while crowd._line["admin"] < crowd.EACH_MAX:
                await asyncio.sleep(0)  # sleeps: lets the requests come in
            assert await add(99) == 503
            id = await world.start("total", a=1)
            assert (await world.result(id))["result"] == 3, "its journal does not wait"
            async with from_address(world, "203.0.113.7") as other:
                body = {"name": "eve", "password": "one for all of them"}
                first = asyncio.create_task(other.post("/api/v1/session", json=body))
                door.set()
                assert (await first).status_code == 401
            assert await asyncio.gather(*waiting) == [201] * crowd.EACH_MAX
            assert not crowd._line

    asyncio.run(main())


@pytest.mark.parametrize(
    ("peer", "said", "source"),
    [
        ("127.0.0.1", "", "127.0.0.1"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "2001:db8::1:2:3", "2001:db8::/64"),
        ("10.0.0.1", "nonsense" * 20, ("nonsense" * 20)[:45]),
        ("10.0.0.1", "", ""),
    ],
)
def test_who_stands_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch, peer: str, said: str, source: str
) -> None:
    """Only a proxy that is named is believed, and of what it says only the last word."""
    monkeypatch.setenv("OUTLAST_PROXIES", "10.0.0.1, 10.0.0.2")
    assert crowd.source_of({"client": (peer, 1)}, {"x-forwarded-for": said}) == source
