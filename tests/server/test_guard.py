"""What is turned away before anybody is asked who calls; JSON of one meaning; the first token."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from outlast.errors import BadRequest, Unauthenticated, UsageError
from outlast.server.auth import FirstToken, token_path
from outlast.server.guard import BODY_SECONDS, Guard, read_body
from outlast.server.serving import Address, first_token
from outlast.server.strict import BODY_BYTES_MAX, DEPTH_MAX, looked_through

from .conftest import World

HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


def test_hosts_and_origins(tell: Any) -> None:
    async def story(world: World) -> None:
        for host in ("evil.example", "test.evil.example", "", "test@evil", "evil@test", "evil:80"):
            await world.get("/healthz", 421, headers={"host": host})
        await world.get("/healthz", headers={"host": "TEST:7575"})
        body = {"task": "total", "input": {"a": 1}}
        for origin in ("http://evil.example", "null", "http://test.evil"):
            headers = {"origin": origin}
            problem = await world.post("/api/v1/executions", body, 403, headers=headers)
            assert problem["code"] == "bad_request"
        await world.post("/api/v1/executions", body, 201, headers={"origin": "http://test"})
        await world.get("/healthz", headers={"origin": "http://evil.example"})  # reads nothing out

    tell(story)


def test_an_address_has_no_line_ends(tell: Any) -> None:
    async def story(world: World) -> None:
        for path in ("/healthz%0a", "/api/v1/me%0A", "/api/v1/me%00", "/api/v1/executions/a%0ab"):
            await world.get(path, 400)

    tell(story)


def test_every_answer_has_the_security_headers(tell: Any) -> None:
    async def story(world: World) -> None:
        for path in ("/healthz", "/nowhere", "/api/v1/tasks", "/api/v1/executions/none"):
            answer = await world.http.get(path)
            assert HEADERS.items() <= dict(answer.headers).items()
            assert "server" not in answer.headers
        answer = await world.http.get("/healthz", headers={"host": "evil"})
        assert HEADERS.items() <= dict(answer.headers).items()

    tell(story)


def test_limits_stand_before_the_question_who_calls(tell: Any) -> None:
    async def story(world: World) -> None:
        unknown = {"authorization": "Bearer nobody"}
        await world.get("/healthz?" + "x" * 9_000, 414, headers=unknown)
        await world.get("/api/v1/tasks", 431, headers={**unknown, "x": "y" * 20_000})
        await world.get("/api/v1/tasks", 401, headers=unknown)

    tell(story)


def test_a_body_is_read_no_further_than_it_may_go() -> None:
    taken = 0

    async def endless() -> dict[str, Any]:
        nonlocal taken
        taken += 65_536
        return {"type": "http.request", "body": b" " * 65_536, "more_body": True}

    async def main() -> None:
        with pytest.raises(BadRequest) as caught:
            await read_body({"headers": []}, endless)
        assert caught.value.status == 413
        assert taken <= BODY_BYTES_MAX + 65_536
        said = {"headers": [(b"content-length", b"999999999")]}
        with pytest.raises(BadRequest):
            await read_body(said, endless)  # not begun at all
        assert taken <= BODY_BYTES_MAX + 65_536

    asyncio.run(main())


def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BODY_SECONDS == 10
    monkeypatch.setattr("outlast.server.guard.BODY_SECONDS", 0.01)

    async def never() -> dict[str, Any]:
        return await asyncio.get_running_loop().create_future()

    async def main() -> None:
        with pytest.raises(BadRequest) as caught:
            await read_body({"headers": []}, never)
        assert caught.value.status == 408

    asyncio.run(main())


def test_too_many_at_once_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.server.guard.INSIDE_MAX", 1)
    statuses: list[int] = []

    async def main() -> None:
        inside = asyncio.Event()
        leave = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            inside.set()
            await leave.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])
                if message["status"] == 503:
                    assert (b"retry-after", b"1") in message["headers"]

        guard = Guard(app, ("test",))
        scope = {"type": "http", "method": "GET", "headers": [(b"host", b"test")],
                 "raw_path": b"/", "query_string": b""}  # fmt: skip
        first = asyncio.create_task(guard(scope, None, send))  # type: ignore[arg-type]
        await inside.wait()
        await guard(scope, None, send)  # type: ignore[arg-type]
        leave.set()
        await first
        await guard(scope, None, send)  # type: ignore[arg-type]

    asyncio.run(main())
    assert statuses == [503, 200, 200]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"a": {"b": 1, "b": 2}}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1} {"a": 2}',
        '{"a": 1,}',
        "{'a': 1}",
        '{"a": "\xff"}'.encode("latin-1"),
        "[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1),
        "[" * 100_000,
        "",
        "\ufeff{}",
    ],
)
def test_json_has_one_meaning(text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(BadRequest):
        looked_through(data)


def test_json_may_be_deep_as_far_as_it_goes_and_wide() -> None:
    looked_through(("[" * DEPTH_MAX + "]" * DEPTH_MAX).encode())
    looked_through(json.dumps([{"a": "[[[{{{" * 100}] * 1_000).encode())


def test_bodies_are_strict(tell: Any) -> None:
    async def story(world: World) -> None:
        path = "/api/v1/executions"

        async def refused(status: int, **more: Any) -> dict[str, Any]:
            return await world.call("POST", path, status, **more)

        media = {"content-type": "application/json"}
        problem = await refused(400, content='{"task": "a", "task": "b"}', headers=media)
        assert "twice" in problem["why"]
        problem = await refused(422, json={"task": "total", "tusk": 1})
        assert problem["errors"] == [
            {"path": "$", "message": "Object contains unknown field `tusk`"}
        ]
        problem = await refused(422, json={"task": "total", "priority": "high"})
        assert problem["errors"][0]["path"] == "$.priority"
        problem = await refused(422, json={"task": "total", "input": {"a": "x"}})
        assert problem["errors"][0]["path"] == "$.input.a"
        problem = await refused(422, json={"task": "total", "input": {"z": 1}})
        assert problem["code"] == "wrong_arguments"
        problem = await refused(422, json={"task": "none"})
        assert problem["code"] == "unknown_task" and problem["do"] == ["GET /api/v1/tasks"]
        await refused(415, content="{}", headers={"content-type": "text/plain"})
        await refused(415, content="{}")
        await refused(413, json={"task": "total", "input": {"a": "x" * BODY_BYTES_MAX}})
        assert (await world.get(f"{path}?stat=x", 422))["errors"][0]["path"] == "$"
        assert (await world.get(f"{path}?limit=0", 422))["errors"][0]["path"] == "$.limit"
        await world.get(f"{path}?limit=1&limit=2", 400)
        await world.call("DELETE", path, 405)
        await world.get("/api/v1/nowhere", 404)

    tell(story)


def test_the_first_token_is_drawn_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "x.db.token"
    made, token = FirstToken.at(path)
    assert token is not None and token.startswith("otk_")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in path.read_text() and list(tmp_path.iterdir()) == [path]
    path.chmod(0o644)
    again, shown = FirstToken.at(path)
    assert shown is None and stat.S_IMODE(path.stat().st_mode) == 0o600

    async def known(one: FirstToken, header: str) -> str:
        return (await one.authenticate({"authorization": header})).name

    for one in (made, again):
        assert asyncio.run(known(one, f"Bearer {token}")) == "admin"
        for wrong in ("", "Bearer", "Bearer x", f"Basic {token}", f"Bearer {token}x", token):
            with pytest.raises(Unauthenticated):
                asyncio.run(known(one, wrong))


def test_a_token_of_the_environment_is_taken_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_TOKEN", "short")
    with pytest.raises(UsageError, match="too short"):
        first_token("memory:")
    monkeypatch.setenv("OUTLAST_TOKEN", "x" * 20)
    assert first_token("memory:")[1] is None
    monkeypatch.delenv("OUTLAST_TOKEN")
    assert first_token("memory:")[1] is not None
    assert token_path("memory:") is None


def test_other_machines_are_let_in_on_request_only() -> None:
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        Address(host).check()
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org"):
        with pytest.raises(UsageError, match="in plain"):
            Address(host).check()
        Address(host, is_wide=True).check()
