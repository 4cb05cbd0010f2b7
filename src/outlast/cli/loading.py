"""Find the tasks that a command names: ``FILE.py:task`` or ``package.module:task``."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from outlast.errors import CannotLoad, OutlastError, UnknownTask, UsageError

if TYPE_CHECKING:
    from outlast.engine.task.registry import Task


def load_task(target: str) -> Task[Any, Any]:
    """Import the file or module of a target and give its task.

    Without ``:task`` it must define exactly one.

    Raises:
        CannotLoad: there is no such file or module, or it raises an error while it is imported.
        UnknownTask: it has no such task.
        UsageError: no task was named, and it has several.
    """
    source, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    module = load_module(source)
    tasks = tasks_of(module)
    if name:
        found = tasks.get(name) or next(
            (task for task in tasks.values() if task.name == name), None
        )
        if found is not None:
            return found
        raise UnknownTask(
            f'there is no task "{name}"',
            where=source,
            why=_known(name, module, tasks),
            do=_names(source, tasks),
        )
    if len(tasks) == 1:
        return next(iter(tasks.values()))
    if not tasks:
        raise UnknownTask("it defines no task", where=source, do="put @task before a function")
    raise UsageError(
        f"it defines {len(tasks)} tasks",
        where=source,
        why=", ".join(tasks),
        do=_names(source, tasks),
    )


def tasks_of(module: ModuleType) -> dict[str, Task[Any, Any]]:
    """Give the tasks that a module has, by the name it has them under; those it imports last."""
    from outlast.engine.task.registry import Task

    found = {name: value for name, value in vars(module).items() if isinstance(value, Task)}
    own = {name: task for name, task in found.items() if task.fn.__module__ == module.__name__}
    return own or found


def load_module(source: str) -> ModuleType:
    """Import a file by its path, or a module by its name.

    Raises:
        CannotLoad: there is none, or it raises an error while it is imported.
    """
    is_file = source.endswith(".py") or "/" in source
    try:
        return _import_file(Path(source)) if is_file else _import_name(source)
    except OutlastError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the module's own code runs here, and may even call exit()
        raise _broken(source, error) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise CannotLoad(
            f"there is no file {path}",
            where=str(Path.cwd()),
            do="name a Python file that is there, as in outlast run hello.py:hello",
        )
    path = path.resolve()
    _look_in(path.parent)
    name = path.stem
    held = sys.modules.get(name)
    if held is not None:
        if getattr(held, "__file__", None) == str(path):
            return held
        name = f"{name}_file"  # another module has this name, for instance one of Python's own
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CannotLoad(f"{path} is no Python file", do="name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_name(name: str) -> ModuleType:
    _look_in(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            near = Path(name.replace(".", "/") + ".py")
            hint = (
                f"did you mean the file {near}?" if near.is_file() else "it is not installed here"
            )
            raise CannotLoad(
                f"there is no module {name}",
                why=hint,
                where=str(Path.cwd()),
                do="name a file as FILE.py:TASK, or a module that can be imported from here",
            ) from None
        raise
    except (TypeError, ValueError):
        raise CannotLoad(
            f'"{name}" is no name of a module', do="write FILE.py:TASK or module:TASK"
        ) from None


def _look_in(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _broken(source: str, error: BaseException) -> CannotLoad:
    from outlast import failure

    said = failure.describe(error)
    name = said.type.partition(":")[2]
    frames = [line for line in said.traceback.splitlines() if "<frozen importlib" not in line]
    where = [line.strip() for line in frames if line.lstrip().startswith("File ")]
    broken = CannotLoad(
        f"{source} cannot be imported: {name}: {said.message}".rstrip(": "),
        where=where[-1] if where else source,
        why="its own code raised this while it was imported",
        do=f"python {source}, to see it alone",
    )
    if isinstance(error, SyntaxError):
        line = f", line {error.lineno}" if error.lineno is not None else ""
        broken.where = f"{error.filename or source}{line}"
        broken.why = "it is not valid Python"
    return broken


def _known(name: str, module: ModuleType, tasks: dict[str, Any]) -> str:
    if callable(getattr(module, name, None)):
        return f"{name} is there, but is no task: it lacks @task"
    near = difflib.get_close_matches(name, tasks, 1)
    return f"did you mean {near[0]}?" if near else ""


def _names(source: str, tasks: dict[str, Any]) -> str:
    if not tasks:
        return "put @task before the function"
    return "\n".join(f"outlast run {source}:{name}" for name in list(tasks)[:5])
