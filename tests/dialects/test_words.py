"""The words, edges and names are those of the documents, to the letter."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from outlast.dialects import DIALECTS, Dialect, Edge, actionqueue, flyte_action, is_final, julep

from . import seeds

every_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)


def pairs(dialect: Dialect, *, repairs: bool) -> set[tuple[str | None, str]]:
    return {(edge.source, edge.target) for edge in dialect.edges if edge.is_repair is repairs}


def test_the_dialects_are_these() -> None:
    assert list(DIALECTS) == ["julep", "flyte", "flyte-action", "actionqueue", "autopilotcx"]


@every_dialect
def test_the_edges_are_those_of_the_document(dialect: Dialect) -> None:
    assert pairs(dialect, repairs=False) == seeds.EDGES[dialect.name]
    assert pairs(dialect, repairs=True) == seeds.REPAIRS.get(dialect.name, set())
    words = {word for pair in seeds.EDGES[dialect.name] for word in pair if word is not None}
    assert set(dialect.words) == words
    assert {word for word in dialect.words if is_final(dialect, word)} == seeds.FINALS[dialect.name]
    assert dialect.initial == seeds.INITIAL[dialect.name]


@every_dialect
def test_an_invented_edge_is_seen(dialect: Dialect) -> None:
    known = {(edge.source, edge.target) for edge in dialect.edges}
    for source in dialect.words:
        for target in dialect.words:
            if (source, target) not in known:
                more = replace(
                    dialect, edges=(*dialect.edges, Edge(source, target, None, "nowhere"))
                )
                assert pairs(more, repairs=False) != seeds.EDGES[dialect.name]


def test_the_counts_are_those_of_the_design() -> None:
    born = {name: sum(source is not None for source, _ in seeds.EDGES[name]) for name in DIALECTS}
    assert born == {
        "julep": 14,
        "flyte": 10,
        "flyte-action": 13,
        "actionqueue": 17,
        "autopilotcx": 8,
    }


def test_julep_has_nine_types_and_takes_two_other_names() -> None:
    assert set(julep.Type) == set(seeds.JULEP_TYPES.split())
    assert {edge.name for edge in julep.EDGES} == {None, *julep.Type}
    accepted = {*julep.Type, *julep.DIALECT.aliases}
    assert set(seeds.JULEP_PAGE_TYPES.split()) <= accepted
    assert set(julep.DIALECT.aliases.values()) <= set(julep.Type)


def test_julep_says_which_edges_only_one_of_its_lists_has() -> None:
    lists = {
        "bullets": seeds.bullets(seeds.JULEP_BULLETS),
        "diagram": set(seeds.diagram(seeds.JULEP_DIAGRAM)),
    }
    for edge in julep.EDGES:
        if edge.source is not edge.target:
            said = {name for name, known in lists.items() if (edge.source, edge.target) in known}
            assert said == {name for name in lists if name in edge.origin}, edge


@pytest.mark.parametrize("name", ["flyte", "flyte-action"])
def test_flyte_calls_its_edges_as_the_diagram_does(name: str) -> None:
    labels = seeds.diagram(seeds.FLYTE_DIAGRAM)
    said = {(edge.source, edge.target): edge.name for edge in DIALECTS[name].edges}
    assert {pair: said[pair] for pair in labels} == labels


def test_flyte_has_ten_numbers() -> None:
    wanted = {word: int(n) for word, n in re.findall(r"(\w+) (\d+)", seeds.FLYTE_NUMBERS)}
    assert wanted == flyte_action.NUMBERS
    assert list(wanted) == list(flyte_action.ActionPhase)
    assert sorted(wanted.values()) == list(range(1, 11))
    assert list(DIALECTS["flyte"].words) == list(wanted)[:8]


def test_actionqueue_calls_its_edges_as_the_comments_do() -> None:
    comments = seeds.actionqueue()
    for edge in actionqueue.EDGES:
        comment = comments[edge.source, edge.target]
        assert (edge.name or "") == re.sub(r"^(when|if) ", "", comment) or (
            edge.target == "Canceled" and edge.name == "cancellation" and not comment
        )


def test_actionqueue_has_its_labels_and_variants() -> None:
    display = dict(line.split() for line in seeds.ACTIONQUEUE_DISPLAY.strip().splitlines())
    assert display == actionqueue.LABELS
    assert list(display) == list(actionqueue.RunState)


def test_autopilotcx_has_its_names_values_and_edges() -> None:
    dialect = DIALECTS["autopilotcx"]
    values = dict(re.findall(r'(\w+) = "(\w+)"', seeds.AUTOPILOTCX_VALUES))
    assert {word.name: word.value for word in dialect.words} == values
    assert {word.value: label for word, label in dialect.labels.items()} == {
        value: name for name, value in values.items()
    }
    listed = seeds.autopilotcx()
    for edge in dialect.edges:
        if not edge.is_repair and edge.source is not None:
            said = re.sub(r"^(when|on) ", "", listed[edge.source, edge.target])
            assert edge.name == said
