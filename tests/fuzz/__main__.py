"""Fuzzes the C parts, the codec, the head of a request and inflating: `python -m tests.fuzz --help`.

C parts run under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer (clang); the rest is held, input by
input, against parsers that share no code with it.  A finding is written below build/fuzz and ends the run with 1; its
file replays it.  What is tried first lies in corpus/: inputs that were findings once, and for C parts those that reach
all of the code.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path
from random import Random, SystemRandom

from tests.fuzz.targets import TARGETS, Target

HERE = Path(__file__).parent
C = HERE.parents[1] / "wsev" / "_core" / "c"
BUILD = HERE.parents[1] / "build" / "fuzz"
CORPUS = HERE / "corpus"
# Of each the environment; what stands before the first dash names the source.
C_TARGETS: dict[str, dict[str, str]] = {"mask": {}, "mask-baseline": {"BASELINE": "1"}, "utf8": {}}


def fuzz_c(name: str, inputs: int, seconds: float) -> bool:
    """Run one of the C targets; False for a finding."""
    clang = shutil.which("clang")
    if clang is None:
        print(f"{name:13} not run: no clang (Debian and Ubuntu: apt install clang)", flush=True)
        return True
    (BUILD / name).mkdir(parents=True, exist_ok=True)
    source = name.partition("-")[0]
    program = program_of(name)
    sources = [str(HERE / f"{source}.c"), str(C / f"{source}.c")]
    flags = [
        "-O1",
        "-g",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-fsanitize=fuzzer,address,undefined",
        "-fno-sanitize-recover",
    ]
    subprocess.run([clang, *flags, f"-I{C}", *sources, "-o", str(program)], check=True)
    command = [str(program), f"-runs={inputs}", f"-max_total_time={int(seconds)}", "-max_len=4096"]
    command += ["-print_final_stats=1", f"-artifact_prefix={BUILD}/{name}-", str(BUILD / name), str(CORPUS / source)]
    began = time.monotonic()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=os.environ | C_TARGETS[name])
    if done.returncode:
        print(done.stderr)
        return False
    count = int(next(line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line))
    print(told(name, count, began), flush=True)
    return True


def program_of(name: str) -> Path:
    return BUILD / f"fuzz_{name}"


def told(name: str, count: int, began: float) -> str:
    return f"{name:13} {count:>11,} inputs, {count / (time.monotonic() - began):>7,.0f} a second, no finding"


def fuzz(name: str, target: Target, inputs: int, seconds: float, seed: int) -> bool:
    """Run one of the Python targets; False for a finding."""
    for path in sorted((CORPUS / name).glob("*")):
        if not holds(name, target, path.read_bytes()):
            return False
    random = Random(f"{name} {seed}")
    began = shown = time.monotonic()
    count = 0
    while count < inputs and time.monotonic() - began < seconds:
        for _ in range(min(200, inputs - count)):
            if not holds(name, target, target.make(random)):
                return False
            count += 1
        if time.monotonic() - shown > 1 and sys.stdout.isatty():
            shown = time.monotonic()
            print(f"\r{name:13} {count:>11,} inputs, {count / (shown - began):>7,.0f} a second", end="", flush=True)
    print(f"\r{told(name, count, began)}; seed {seed}", flush=True)
    return True


def holds(name: str, target: Target, data: bytes) -> bool:
    try:
        target.check(data)
    except Exception:
        BUILD.mkdir(parents=True, exist_ok=True)
        path = BUILD / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
        path.write_bytes(data)
        traceback.print_exc()
        print(f"\n{name}: a finding; again with: python -m tests.fuzz --replay {path}", file=sys.stderr)
        return False
    return True


def main() -> int:
    names = [*C_TARGETS, *TARGETS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names)}; all, if none is named")
    parser.add_argument("--inputs", type=int, default=10**9, help="at most so many of each target")
    parser.add_argument("--seconds", type=float, default=60.0, help="at most so long for each target")
    parser.add_argument("--seed", type=int, default=None, help="of the Python targets; a new one, if not given")
    parser.add_argument("--replay", type=Path, help="only this input, of the target that its name begins with")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        name = next(name for name in sorted(names, reverse=True) if arguments.replay.name.startswith(f"{name}-"))
        if name in C_TARGETS:
            return subprocess.run([program_of(name), arguments.replay], env=os.environ | C_TARGETS[name]).returncode
        return 0 if holds(name, TARGETS[name], arguments.replay.read_bytes()) else 1
    if unknown := set(arguments.targets) - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: the targets are {', '.join(names)}")
    seed = SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    good = True
    for name in arguments.targets or names:
        if name in TARGETS:
            good = fuzz(name, TARGETS[name], arguments.inputs, arguments.seconds, seed) and good
        else:
            good = fuzz_c(name, arguments.inputs, arguments.seconds) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
