"""examples/chat.py as the tests of its workers run it: the answer to each request for upgrade names the worker.

Its header is "Worker", and the value the number of the process. `python tests/chatroom.py --port 8000` runs two.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

import wsev

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
chat = importlib.import_module("chat")


@chat.server.on_upgrade  # type: ignore[untyped-decorator]  # the module is known at run time only
def asked(request: wsev.Request) -> wsev.Accept:
    return wsev.Accept(headers={"Worker": str(os.getpid())})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    chat.server.run(parser.parse_args().port, workers=2)
