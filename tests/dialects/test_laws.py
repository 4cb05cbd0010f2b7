"""Every history is told by the other system's own law, and every edge of that law is used.

A dialect sees of an execution what ``canonical.situation`` names, which is finitely much. So the
steps from all situations are all the steps there are, and what holds for them holds for histories
of any length; the long random ones below try that argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given

from outlast.dialects import DIALECTS, Dialect, is_final, missing_edges, project, status_of
from outlast.lifecycle import FINAL, BrokenLog, Execution, Transition
from tests.lifecycle.test_fold import histories

from . import seeds
from .canonical import Life, all_of_length, every_step, situations, walks
from .laws import (
    WAYS,
    against_the_law,
    breaches,
    faults,
    impossible_traces,
    synthetic_paths,
    without_synthetic,
    witnessed,
)

NEVER_TAKEN: dict[str, set[tuple[str | None, str]]] = {name: set() for name in DIALECTS}
"""Edges of a document that no row of ours takes in one hop, with the reason: there is none."""

every_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)


def test_the_situations_are_many_and_all_states_are_among_them() -> None:
    seen = {(state, water, cause, held) for state, water, cause, held, _ in situations()}
    assert len(seen) == 85
    assert sum(state not in FINAL for state, *_ in seen) == 73
    assert len(every_step()) > 1_500


@every_dialect
def test_every_step_from_every_situation_is_legal(dialect: Dialect) -> None:
    assert [(b, life.rows) for life in every_step() for b in breaches(dialect, life)] == []


@every_dialect
def test_every_short_history_is_legal(dialect: Dialect) -> None:
    lives = list(all_of_length(6))
    assert len(lives) > 5_000
    assert [(b, life.rows) for life in lives for b in breaches(dialect, life)] == []


@given(walks())
def test_every_long_history_is_legal(life: Life) -> None:
    for dialect in DIALECTS.values():
        assert breaches(dialect, life) == []


@given(histories())
def test_every_history_of_the_fold_is_legal(history: tuple[list[Transition], Execution]) -> None:
    rows, record = history
    for dialect in DIALECTS.values():
        assert breaches(dialect, Life(record, tuple(rows))) == []


@given(walks())
def test_a_longer_log_tells_the_same_beginning(life: Life) -> None:
    for dialect in DIALECTS.values():
        told = project(dialect, life.rows)
        for length in range(1, len(life.rows)):
            begun = project(dialect, life.rows[:length])
            assert begun == [one for one in told if one.seq <= length]


@every_dialect
def test_every_edge_of_the_document_is_taken(dialect: Dialect) -> None:
    taken = witnessed(dialect, every_step())
    names = {(edge.source, edge.target, edge.name) for edge in dialect.edges}
    assert taken == names
    wanted = seeds.EDGES[dialect.name] | seeds.REPAIRS.get(dialect.name, set())
    assert wanted - {edge[:2] for edge in taken} == NEVER_TAKEN[dialect.name]


@every_dialect
def test_every_trace_of_the_document_can_happen(dialect: Dialect) -> None:
    assert impossible_traces(dialect) == []


@every_dialect
def test_the_ways_without_an_edge_are_those_of_the_design(dialect: Dialect) -> None:
    assert synthetic_paths(dialect, every_step()) == set(WAYS[dialect.name].split())


@every_dialect
def test_a_way_is_a_shortest_path_of_the_document(dialect: Dialect) -> None:
    edges = seeds.EDGES[dialect.name] | seeds.REPAIRS.get(dialect.name, set())
    for way in dialect.ways:
        assert set(pairwise(way.words)) <= edges
        reached: set[str | None] = {way.words[0]}
        for _ in way.words[2:]:
            reached |= {target for source, target in edges if source in reached}
            assert way.words[-1] not in reached, f"{way.words} is not the shortest"


@every_dialect
def test_a_system_is_told_as_the_design_says(dialect: Dialect) -> None:
    assert list(faults(dialect, every_step())) == []


@given(walks())
def test_flyte_never_goes_back(life: Life) -> None:
    dialect = DIALECTS["flyte-action"]
    numbers = [
        dialect.numbers[one.target] for one in project(dialect, life.rows) if one.action == "a0"
    ]
    assert numbers == sorted(numbers)


@given(walks())
def test_julep_could_have_written_its_types_in_this_order(life: Life) -> None:
    types = [one.name for one in project(DIALECTS["julep"], life.rows) if one.name is not None]
    for last, following in zip([None, *types], types, strict=False):
        assert following in seeds.JULEP_NEXT[last].split()


@every_dialect
def test_a_strict_view_knows_the_missing_edges(dialect: Dialect) -> None:
    for life in every_step():
        missing = missing_edges(dialect, life.rows)
        ways = synthetic_paths(dialect, [life])
        ends = {(way.split(">")[0], way.split(">")[-1]) for way in ways}
        assert {(str(source), str(target)) for _, source, target in missing} == ends


def test_a_log_that_cannot_be_is_refused() -> None:
    dialect = DIALECTS["julep"]
    rows = next(life.rows for life in every_step() if len(life.rows) > 3)
    with pytest.raises(BrokenLog, match="empty"):
        project(dialect, [])
    with pytest.raises(BrokenLog, match="first row"):
        status_of(dialect, rows[1:])
    with pytest.raises(BrokenLog, match="refused"):
        project(dialect, [*rows[:2], rows[1]])


# Planted faults: what the laws above are worth.


@pytest.mark.parametrize("name", [name for name in DIALECTS if WAYS[name].split()])
def test_leaving_out_what_is_synthetic_is_seen(name: str) -> None:
    told = [project(DIALECTS[name], life.rows) for life in every_step()]
    assert any(one.is_synthetic for hops in told for one in hops)
    broken = [hops for hops in told if list(against_the_law(DIALECTS[name], hops)) == []]
    mended = list(map(without_synthetic, told))
    assert broken == told
    assert any(list(against_the_law(DIALECTS[name], hops)) for hops in mended)


@every_dialect
def test_a_missing_edge_is_seen(dialect: Dialect) -> None:
    for edge in dialect.edges:
        left = [one for one in dialect.edges if one is not edge]
        assert next(_all_faults(replace(dialect, edges=left)), None) is not None, edge


@every_dialect
def test_a_missing_way_is_seen(dialect: Dialect) -> None:
    for way in dialect.ways:
        left = [one for one in dialect.ways if one is not way]
        assert next(_all_faults(replace(dialect, ways=left)), None) is not None, way


@every_dialect
def test_an_invented_edge_is_seen(dialect: Dialect) -> None:
    known = {(edge.source, edge.target) for edge in dialect.edges}
    used = {tuple(way.split(">")) for way in WAYS[dialect.name].split()}
    for way in used:
        source = None if way[0] == "None" else dialect.words(way[0])
        edge = replace(dialect.edges[0], source=source, target=dialect.words(way[-1]))
        assert (edge.source, edge.target) not in known
        more = (*dialect.edges, edge)
        assert next(_all_faults(replace(dialect, edges=more)), None) is not None, edge


@every_dialect
def test_a_missing_line_is_seen(dialect: Dialect) -> None:
    for line in dialect.lines:
        left = [one for one in dialect.lines if one is not line]
        assert next(_all_faults(replace(dialect, lines=left)), None) is not None, line


@every_dialect
def test_a_wrong_end_is_seen(dialect: Dialect) -> None:
    for state, word in dialect.finals.items():
        for other in dialect.finals.values():
            if other is not word:
                finals = {**dialect.finals, state: other}
                fault = next(_all_faults(replace(dialect, finals=finals)), None)
                assert fault is not None, (state, other)


def test_a_trace_that_cannot_happen_is_seen() -> None:
    """If waits and pauses were told as running, nothing would lead to awaiting_input any more."""
    dialect = DIALECTS["julep"]
    left = [line for line in dialect.lines if line.word != "awaiting_input"]
    missing = set(impossible_traces(replace(dialect, lines=left)))
    assert missing == {("starting", "awaiting_input"), ("running", "awaiting_input")}


def test_without_its_repair_autopilotcx_cannot_tell_a_paused_execution() -> None:
    dialect = DIALECTS["autopilotcx"]
    (repair,) = [edge for edge in dialect.edges if edge.is_repair]
    broken = replace(dialect, edges=[edge for edge in dialect.edges if edge is not repair])
    assert is_final(broken, repair.source)
    assert any("cannot be told" in fault for fault in _all_faults(broken))


def _all_faults(dialect: Dialect) -> Iterator[str]:
    return faults(dialect, every_step())
