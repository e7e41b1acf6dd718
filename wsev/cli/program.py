"""Program: the Server that a module or a file makes, named as ``module:attribute`` or ``path/file.py:attribute``.

Knows neither flags nor processes.  What goes wrong is a ProgramError: one sentence that says what to do, and, where it
was the program's own code that failed, the traceback of that code alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from wsev.server import Server

__all__ = ["Program", "ProgramError"]


class ProgramError(Exception):
    """There is no Server where one was named.

    Attributes:
        trace: of the program's own code, in lines; empty if that did not fail.
    """

    def __init__(self, remedy: str, cause: Exception | None = None) -> None:
        super().__init__(remedy)
        self.trace = "".join(traceback.format_exception(cause)) if cause is not None else ""


@dataclass(frozen=True)
class Program:
    """Where a Server is.

    Attributes:
        source: the name of a module, or the path of a file.
        attribute: its name there; dots lead into objects.
    """

    source: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Make it from what a user wrote.

        Raises:
            ValueError: it is no such name; its text is the remedy.
        """
        source, _, attribute = text.rpartition(":")
        is_source = _is_file(source) or _is_dotted_name(source)
        if not is_source or not _is_dotted_name(attribute):
            raise ValueError(f"{text!r}: write module:attribute or path/file.py:attribute, such as chat:server")
        return cls(source, attribute)

    def load(self, directory: str, *, is_factory: bool = False) -> Server[Any]:
        """Import it, and find its Server.

        Args:
            directory: is put first on ``sys.path``; before it, the directory of a file.
            is_factory: the attribute is a function that makes the server.

        Raises:
            ProgramError: there is none.
        """
        sys.path.insert(0, os.path.abspath(directory))
        module = self._import(directory)
        value = self._find(module)
        if is_factory:
            value = self._call(value)
        if not isinstance(value, Server):
            raise ProgramError(f"{self} {_why_no_server(value, is_factory=is_factory)}{_servers_in(module)}")
        return value

    def _import(self, directory: str) -> ModuleType:
        importlib.invalidate_caches()  # files may have come since this process, or the one it is forked from, looked
        try:
            return _import_file(self.source) if _is_file(self.source) else importlib.import_module(self.source)
        except ProgramError:
            raise
        except Exception as error:
            error = error.with_traceback(_of_program(error.__traceback__))
            if isinstance(error, ModuleNotFoundError) and error.__traceback__ is None:
                raise ProgramError(
                    f"there is no module {error.name!r} in {os.path.abspath(directory)}, nor elsewhere on sys.path: "
                    "run it where the program is, or name that directory with --app-dir"
                ) from None
            raise ProgramError(f"{self.source} cannot be imported: mend the error above", error) from None

    def _find(self, module: ModuleType) -> Any:
        value: Any = module
        for name in self.attribute.split("."):
            try:
                value = getattr(value, name)
            except AttributeError:
                close = get_close_matches(name, vars(value), n=2) if hasattr(value, "__dict__") else []
                hint = f": did you mean {' or '.join(close)}?" if close else _servers_in(module)
                raise ProgramError(f"{self.source} has no {self.attribute!r}{hint}") from None
        return value

    def _call(self, factory: Any) -> Any:
        if not callable(factory) or isinstance(factory, Server):
            raise ProgramError(f"{self} is no function that makes a server: leave --factory out")
        try:
            return factory()
        except Exception as error:
            error = error.with_traceback(_of_program(error.__traceback__))
            raise ProgramError(f"{self} made no server: mend the error above", error) from None

    def __str__(self) -> str:
        return f"{self.source}:{self.attribute}"


def _is_file(source: str) -> bool:
    return source.endswith(".py")


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _import_file(source: str) -> ModuleType:
    path = Path(source).absolute()
    if not path.is_file():
        raise ProgramError(f"there is no file {source}: write its path as it is from here")
    name = path.stem
    if name in sys.modules:
        raise ProgramError(f"{source} has the name of a module that is in use already, {name}: rename the file")
    sys.path.insert(0, str(path.parent))  # so that it finds its neighbours, as with `python path/file.py`
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _of_program(trace: TracebackType | None) -> TracebackType | None:
    """Leave out what came before the program's own code: this file, and Python's import."""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if name != __name__ and not name.startswith(("importlib", "_frozen_importlib")):
            break
        trace = trace.tb_next
    return trace


def _why_no_server(value: Any, *, is_factory: bool) -> str:
    if is_factory:
        return f"returned no wsev.Server, but a value of type {type(value).__name__}"
    if isinstance(value, type):
        return f"is no wsev.Server, but the class {value.__name__}"
    remedy = ": if it makes one, add --factory" if callable(value) else ""
    return f"is no wsev.Server, but of type {type(value).__name__}{remedy}"


def _servers_in(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Server)]
    return f"; the servers there are {', '.join(names)}" if names else "; make one there: server = wsev.Server()"
