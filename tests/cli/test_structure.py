"""The commands that tell of trees, streams and progress."""

from __future__ import annotations

from .conftest import Terminal

PROGRAM = """
from outlast import After, Engine, Fatal, ask, progress, sleep, step, stream, task

FIRST = []

@step(retries=1)
async def talk(words: list[str]) -> int:
    for word in words:
        await stream("draft", word)
    if len(FIRST) < 1:
        FIRST.append(1)
        raise ValueError("once")
    return len(words)

@task
async def leaf(n: int) -> int:
    if n == 2:
        raise Fatal("two is too many")
    return n

@task
async def middle(n: int) -> list:
    return [str(one) for one in await leaf.map(range(n), on_error="collect")]

@task
async def root(n: int) -> int:
    await progress(1, 4, "a quarter")
    await middle(n)
    await stream("log", {"n": n})
    await talk(["a", "b"])
    return n

@task
async def again(n: int) -> int:
    await stream("count", n)
    if n:
        again.continue_as_new(n - 1)
    return n

@task
async def slow() -> None:
    await stream("draft", "one\x1b[31m")
    await stream("draft", await ask("go on?", str))

if __name__ == "__main__":
    with Engine() as engine:
        first = engine.start(root, 3)
        first.result()
        after = leaf.options(after=After(first, need="end")).start(1)
        after.result()
        engine.start(again, 1).result()
        print(first.id)
"""


def of_program(terminal: Terminal, *words: str) -> None:
    (terminal.directory / "structure.py").write_text(PROGRAM)
    assert terminal.run("run", "structure.py:" + words[0], *words[1:], "-q").code == 0


def test_a_tree_is_drawn_with_all_levels(terminal: Terminal) -> None:
    of_program(terminal, "root", "--n", "3")
    (root,) = terminal.here("ls", "--roots", "-o", "ids").out.split()
    drawn = terminal.here("tree", root).out.splitlines()
    assert [line.split("ex_")[0] for line in drawn] == [
        "", "└─ ", "   ├─ ", "   ├─ ", "   └─ ",
    ]  # fmt: skip
    assert "root  ✓ succeeded" in drawn[0] and "middle as middle#1" in drawn[1]
    assert "leaf as leaf#3  ✗ failed" in drawn[4] and drawn[4].endswith("two is too many")
    assert len(terminal.here("tree", root, "--depth", "1").out.splitlines()) == 2
    cut = terminal.here("tree", root, "--limit", "1").out.splitlines()
    assert "… 2 older ones" in cut[2] and "leaf#3" in cut[3]
    form = terminal.here("tree", root, "-o", "json").json
    leaves = form["children"][0]["children"]
    assert [leaf["state"] for leaf in leaves] == ["succeeded", "succeeded", "failed"]
    ids = terminal.here("tree", root, "-o", "ids").out.split()
    assert ids == [root, form["children"][0]["id"], *(leaf["id"] for leaf in leaves)]


def test_show_tells_of_parents_children_and_progress(terminal: Terminal) -> None:
    of_program(terminal, "root", "--n", "7")
    (root,) = terminal.here("ls", "--roots", "-o", "ids").out.split()
    said = terminal.here("show", root).out
    assert "✓ middle#1" in said and "children 1\n" in said
    assert "progress 1 of 4 (25 %), a quarter" in said and "streams  draft (4), log (1)" in said
    (middle,) = terminal.here("ls", "--parent", root, "-o", "ids").out.split()
    said = terminal.here("show", middle).out
    assert f"parent   {root}  root (succeeded), as middle#1" in said
    assert "children 7, the newest of them here" in said and "✗ leaf#3" in said
    form = terminal.here("show", middle, "-o", "json").json
    assert form["parent"] == root and form["children_count"] == 7 and len(form["children"]) == 5
    wide = terminal.here("ls", "-o", "wide", "--roots").out
    assert "PROGRESS" in wide and "1 of 4 (25 %)" in wide
    assert terminal.here("ls", "-o", "json", "--roots").json["items"][0]["progress"]["done"] == 1


def test_show_tells_what_goes_on_as_what(terminal: Terminal) -> None:
    of_program(terminal, "again", "--n", "1")
    last, first = terminal.here("ls", "-o", "ids").out.split()
    assert f"goes on  as {last}" in terminal.here("show", first).out
    assert f"goes on  from {first}" in terminal.here("show", last).out
    assert terminal.here("show", last, "-o", "json").json["continued_from"] == first


def test_a_stream_is_written_item_by_item(terminal: Terminal) -> None:
    of_program(terminal, "root", "--n", "0")
    (root,) = terminal.here("ls", "--roots", "-o", "ids").out.split()
    done = terminal.here("stream", root, "draft")
    assert done.out == "a\nb\na\nb\n"
    assert "talk#1 began again: attempt 2" in done.err
    assert terminal.here("stream", root, "draft", "--after", "3").out == "b\n"
    assert terminal.here("stream", root, "log", "-f").out == '{"n":0}\n'
    items = terminal.here("stream", root, "draft", "-o", "json").lines
    assert [(item["number"], item["attempt"], item["part"]) for item in items] == [
        (1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 2, 2),
    ]  # fmt: skip
    several = terminal.here("stream", root)
    assert several.code != 0 and "has several streams" in several.err
    none = terminal.here("stream", terminal.here("ls", "-o", "ids").out.split()[0])
    assert none.code != 0 and "has no stream yet" in none.err


def test_a_stream_goes_on_with_what_goes_on_as_new(terminal: Terminal) -> None:
    of_program(terminal, "again", "--n", "2")
    first = terminal.here("ls", "--task", "again", "-o", "ids").out.split()[-1]
    for more in ([], ["-f"]):
        done = terminal.here("stream", first, "count", *more)
        assert (done.out, done.err.count("goes on as ex_")) == ("2\n1\n0\n", 2)
    items = terminal.here("stream", first, "-o", "json").lines
    assert [(item["number"], item["value"]) for item in items] == [(1, 2), (1, 1), (1, 0)]
    assert len({item["id"] for item in items}) == 3


def test_a_stream_is_followed_from_another_process(terminal: Terminal) -> None:
    (terminal.directory / "structure.py").write_text(PROGRAM)
    assert terminal.run("start", "structure.py:slow").code == 0
    following = terminal.spawn("stream", "last", "draft", "-f")
    serving = terminal.spawn("worker", "structure.py")
    following.line_with("one\\x1b[31m")
    terminal.here("answer", "last", "two")
    following.line_with("two")
    assert following.process.wait(100) == 0
    serving.kill()


def test_watch_tells_how_far_it_is(terminal: Terminal) -> None:
    of_program(terminal, "root", "--n", "1")
    (root,) = terminal.here("ls", "--roots", "-o", "ids").out.split()
    watched = terminal.here("watch", root)
    assert "… 1 of 4 (25 %), a quarter" in watched.out + watched.err
