"""Imports go down: each `import` and `cimport` of the package is read and held against the order of its rooms.

A room that is not in the order fails too, so that who adds one decides where it stands.  Imports for type checkers
alone (`if TYPE_CHECKING:`) may go up: they join no two rooms when the program runs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Top to bottom; a room may import those below it.
ROOMS = [
    "__main__",
    "cli",
    "__init__",
    "asgi",
    "publisher",
    "server",
    "serving",
    "routes",
    "stats",
    "fanout",
    "listeners",
    "workers",
    "brokers",
    "topics",
    "handshake",
    "deflate",
    "handler",
    "_core",
    "options",
    "close",
    "errors",
]
CORE = [
    "connection",
    "timeouts",
    "receiver",
    "closer",
    "dispatch",
    "eager",
    "writer",
    "acceptor",
    "transport",
    "asyncio_output",
    "output",
    "poller",
    "ring",
    "descriptor",
    "addresses",
    "loop",
    "messages",
    "rules",
    "frames",
    "buffers",
    "head",
    "linux",
    "system",
]
BELOW_CORE = ["close", "errors"]  # all that the core may know of wsev

CYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from ([\w.]+) c?import (?:\(([^)]*)\)|(.+))|c?import ([\w.]+))", re.MULTILINE
)  # from A import (B, over several lines) | from A import B, C | import A

SOURCES = sorted(path for kind in ("py", "pyx", "pxd") for path in (ROOT / "wsev").rglob(f"*.{kind}"))


def _module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports_of_python(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for_checkers = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for branch in node.body
        for child in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if node in for_checkers:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import: write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imports_of_cython(source: str) -> Iterator[str]:
    code = re.sub(r"#.*|\\\n", "", source)
    for module, in_parentheses, names, whole in CYTHON_IMPORT.findall(code):
        if whole:
            yield whole
        for name in (in_parentheses or names).split(","):
            if name.strip():
                yield f"{module}.{name.split()[0]}"


def _imports(path: Path) -> list[list[str]]:
    """Return what a file imports of wsev, each as the parts of its name."""
    source = path.read_text()
    found = _imports_of_python(source) if path.suffix == ".py" else _imports_of_cython(source)
    return [name.split(".") for name in found if name.split(".")[0] == "wsev"]


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_imports_go_down(path: Path) -> None:
    room, *within = _module_of(path).split(".")[1:]
    for _, *target in _imports(path):
        imported = target[0] if target and target[0] in ROOMS else "__init__"
        if imported != room:
            assert ROOMS.index(imported) > ROOMS.index(room), f"{room} imports {imported}, which stands above it"
        elif room == "_core" and within[0] != target[1]:
            assert CORE.index(target[1]) > CORE.index(within[0]), f"{within[0]} imports {target[1]}, above it"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name == "_core"], ids=lambda path: path.name)
def test_the_core_knows_errors_and_close_codes_only(path: Path) -> None:
    assert {target[1] for target in _imports(path)} <= {"_core", *BELOW_CORE}


def test_every_room_stands_in_the_order() -> None:
    assert {_module_of(path).split(".")[1] for path in SOURCES} <= set(ROOMS)
    assert {path.stem for path in SOURCES if path.parent.name == "_core"} <= {"__init__", *CORE}


@pytest.mark.parametrize(("library", "room"), [("uvicorn", "asgi"), ("click", "cli")])
def test_a_library_is_imported_in_one_room_only(library: str, room: str) -> None:
    users = {
        _module_of(path).split(".")[1]
        for path in SOURCES
        if path.suffix == ".py" and any(name.split(".")[0] == library for name in _imports_of_python(path.read_text()))
    }
    assert users == {room}
