"""How a suspension as ``code_mismatch`` is told: both sides, why, and what can be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from outlast.cli.words import moment, one_line
from outlast.lifecycle import Execution, State
from outlast.lifecycle.reason import account

SAFE = "It is safe and parked: nothing was run twice, nothing is lost."


def facts_of(record: Execution) -> Mapping[str, Any] | None:
    """Give what an execution that today's code does not fit says about it; None for others."""
    detail = record.detail or {}
    if record.state is not State.SUSPENDED or detail.get("code") != "code_mismatch":
        return None
    return detail


def difference(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Show what is recorded, and below it what today's code asks for, each with its label."""
    recorded, wanted = facts.get("recorded"), facts.get("wanted")
    if not isinstance(recorded, Mapping) or not isinstance(wanted, Sequence):
        where = facts.get("where")
        return [("code", one_line(where))] if where else []
    before = [one_line(key) for key in facts.get("before", ())]
    after = [one_line(key) for key in facts.get("after", ())]
    lines = [("recorded", " → ".join([*before, _said(recorded), *after]))]
    same = [one for one in wanted if one.get("key") == recorded.get("key")]
    asked = same or wanted
    if facts.get("ended"):
        lines.append(("code wants", " → ".join([*before, f"nothing more: {facts['ended']}"])))
    elif asked:
        said = " or ".join(map(_said, asked[:3])) + (" or more" if len(asked) > 3 else "")
        if _differs_within(recorded, same):
            said += ", but another one"
        lines.append(("code wants", " → ".join([*before, one_line(said, 400)])))
        places = dict.fromkeys(str(one["where"]) for one in asked[:3] if one.get("where"))
        lines += [("", one_line(place)) for place in places]
    else:
        standing = facts.get("standing") or "it waits for nothing that is recorded"
        lines.append(("code wants", " → ".join([*before, f"nothing: {one_line(standing, 400)}"])))
    return lines


def _differs_within(recorded: Mapping[str, Any], same: Sequence[Mapping[str, Any]]) -> bool:
    """Whether both sides would look alike, as only the arguments differ."""
    return bool(same) and _said(recorded) == _said(same[0])


def _said(call: Mapping[str, Any]) -> str:
    kind, key, digest = call.get("kind"), call.get("key") or call.get("name"), call.get("digest")
    if kind == "timer" and isinstance(digest, int):
        return f"{one_line(key)} until {moment(digest)}"
    if kind == "ask" and call.get("title"):
        return f'{one_line(key)} "{one_line(call["title"], 60)}"'
    if kind == "event":
        return f"wait_for {one_line(call.get('name') or key)}"
    return one_line(key)


def codes(facts: Mapping[str, Any]) -> str:
    """Say which code it was recorded by, and which there is now."""
    now, then = facts.get("now") or {}, facts.get("then") or {}
    said = f"today's is {_code(now)}" if now else ""
    if then:
        at = f", started {moment(then['at'])}" if isinstance(then.get("at"), int) else ""
        said = f"recorded by {_code(then)}{at}; {said}"
        if then.get("code") and then.get("code") == now.get("code"):
            said += " (so it differs in what the code reads, or in a step's types)"
    return said


def _code(stamp: Mapping[str, Any]) -> str:
    version = f"version {one_line(stamp['version'], 40)}, " if stamp.get("version") else ""
    return f"{version}code {one_line(stamp.get('code') or 'unknown', 40)}"


FORKABLE: Final = frozenset({"step", "input", "child"})
"""What a fork can begin from; timers and signals are no steps."""


def choices(id: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give the ways out: what to type, and what it does."""
    found = []
    version = (facts.get("then") or {}).get("version")
    recorded = facts.get("recorded") or {}
    if recorded.get("kind") in FORKABLE:
        found.append(
            (f"outlast fork {id} --from {one_line(recorded['key'])}", "run today's code from there")
        )
    if version:
        found.append(
            (f"outlast resume {id} --pin {one_line(version)}", "leave it to code of that version")
        )
    found.append((f"outlast resume {id}", "once the old code is back"))
    if recorded:
        found.append(('if changed("NAME"): …', "around the edit; deploy it, then resume"))
    found.append((f"outlast cancel {id}", "give it up"))
    return found


def told(record: Execution, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Tell all of it, in lines with their labels."""
    row = f", row {facts['seq']}" if "seq" in facts else ""
    lines = [("where", f"{record.id}, task {one_line(record.task)}{row}"), *difference(facts)]
    lines.append(("why", one_line(account(facts), 400)))
    said = codes(facts)
    if said:
        lines.append(("", said))
    ways = choices(record.id, facts)
    width = max(len(command) for command, _ in ways)
    label = "do one"
    for command, what in ways:
        lines.append((label, f"{command:<{width}}  {what}"))
        label = ""
    return lines
