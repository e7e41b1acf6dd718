"""Two commits side by side: each in a working tree of its own below build/bench, its core built there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.build import BuildError
from benchmarks.candidates import BUILD, ROOT

HERE = "."  # the tree that this runs from, with what is not committed


def tree_of(revision: str) -> Path:
    """Where the wsev of a revision lies, built.

    Raises:
        BuildError: there is no such revision, or its core cannot be built.
    """
    if revision == HERE:
        _build(ROOT)
        return ROOT
    commit = _git("rev-parse", "--verify", f"{revision}^{{commit}}")
    tree = BUILD / "trees" / commit[:12]
    if not tree.exists():
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", str(tree), commit)
    _build(tree)
    return tree


def _build(tree: Path) -> None:
    """Again only what has changed."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{tree}: {done.stderr}")


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(done.stderr.strip())
    return done.stdout.strip()
