"""A short mark of a task's code: the same code has the same, wherever its lines have moved to.

It is made of what the interpreter runs (instructions, names, constants) of the task's function and
of the functions of the same project that it reaches by name; not of line numbers, comments or
docstrings, and not of the bodies of steps, which may change under open executions. A call by way
of a method or a table of functions is not followed, and another minor version of Python makes
other instructions. So an equal mark is a strong hint that the code is the same, no proof; nothing
that must be right rests on it (``docs/decisions/0016-…``).
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

FUNCTIONS_MAX: Final = 1_000
"""How many functions are looked into, so that nobody pays for a huge project."""
_PLAIN: Final = (str, bytes, int, float, complex, bool, type(None))
_FLAGS: Final = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
_LIBRARIES: Final = tuple(
    path
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(name))
)


def fingerprint(function: Any) -> str:
    """Give eight hexadecimal digits for the code of a function; "" where it has none."""
    if not isinstance(getattr(function, "__code__", None), CodeType):
        return ""
    mark = hashlib.blake2b(digest_size=4)
    seen: set[CodeType] = set()
    waiting = [function]
    while waiting and len(seen) < FUNCTIONS_MAX:
        one = waiting.pop()
        if one.__code__ in seen:
            continue
        seen.add(one.__code__)
        _add_code(mark, one.__code__)
        for name, value in _reached(one):
            found = _function_of(value)
            if found is not None:
                waiting.append(found)
            elif isinstance(value, _PLAIN):
                mark.update(f"{name}={value!r};".encode("utf-8", "backslashreplace"))
    return mark.hexdigest()


def _add_code(mark: Any, code: CodeType) -> None:
    mark.update(code.co_code)
    counts = code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount
    shape = code.co_names, code.co_varnames, counts, code.co_flags & _FLAGS
    mark.update(repr(shape).encode("utf-8", "backslashreplace"))
    consts = code.co_consts[_has_docstring(code) :]
    for const in consts:
        if isinstance(const, CodeType):
            _add_code(mark, const)
        else:
            mark.update(_text_of(const).encode("utf-8", "backslashreplace"))


def _has_docstring(code: CodeType) -> bool:
    """Whether the first constant is the docstring; before 3.13, its place is kept where none is."""
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & 0x4000000)
    return "<" not in code.co_name


def _text_of(const: object) -> str:
    if isinstance(const, frozenset):  # its order is that of this process's hashes
        return f"{{{','.join(sorted(map(_text_of, const)))}}};"
    return f"{const!r};"


def _reached(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Give the values that a function's code reaches by a name, in the order of its names."""
    names = list(_names_of(function.__code__))
    known = function.__globals__
    for name in names:
        value = known.get(name)
        if isinstance(value, ModuleType):
            for other in names:
                if other in vars(value):
                    yield f"{name}.{other}", vars(value)[other]
        else:
            yield name, value
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it is not filled yet
            continue


def _names_of(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names_of(const)


def _function_of(value: Any) -> FunctionType | None:
    """Give the function of this project that a value is; steps and tasks are none of it."""
    if not isinstance(value, FunctionType):
        return None
    top = (value.__module__ or "").partition(".")[0]
    if top == "outlast" or top in sys.stdlib_module_names:
        return None
    return None if value.__code__.co_filename.startswith(_LIBRARIES) else value
