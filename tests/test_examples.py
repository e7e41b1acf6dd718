"""What the docs show works: every code block runs, the tables are the options, and each example starts and answers.

What the examples do beyond that has tests of its own, in integration/ and browser/.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from tests.peer import upgrade_request
from tests.program import Program
from wsev.options import OptionsDict

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    ROOT.glob("docs/**/*.md")
)
EXAMPLES = {
    "alongside.py": "Ctrl-C",
    "chat.py": "started on",
    "echo.py": "started on",
}  # and what it says when it serves


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_code_blocks_run(path: Path) -> None:
    for example in Sybil(parsers=[PythonCodeBlockParser()], path=str(path.parent)).parse(path).examples():
        example.evaluate()


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if "<!-- table of" in path.read_text()], ids=_name)
def test_tables_are_what_the_options_and_the_flags_are(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("options_table", ROOT / "docs" / "options_table.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert path.read_text() == generator.renew(path.read_text()), "run: python docs/options_table.py --write"
    for name in OptionsDict.__annotations__:
        assert f"| `{name}` |" in path.read_text() or f"| `WSEV_{name.upper()}` |" in path.read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)):
        assert (path.parent / link).exists(), link


@pytest.mark.slow
@pytest.mark.asyncio(loop_factories=["asyncio"])  # the program chooses its own loop; this one is only the client's
@pytest.mark.parametrize("name", EXAMPLES)
async def test_example_starts_and_answers(name: str) -> None:
    program = Program(name, ready=EXAMPLES[name])
    await program.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    writer.write(upgrade_request("/"))
    assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
    writer.close()
    await writer.wait_closed()
    await program.stop()


def test_every_example_is_named_here() -> None:
    assert set(EXAMPLES) == {path.name for path in (ROOT / "examples").glob("*.py")}
