"""The command line of the benchmark suite: `python -m benchmarks run|report|compare`, or `make bench`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks import candidates, compare, network, plot, report, results, scenarios
from benchmarks.build import BuildError, build
from benchmarks.candidates import BUILD, ROOT, Candidate
from benchmarks.measure import Settings
from benchmarks.scenarios import Scenario

DOCS = ROOT / "docs" / "explanation"
BEGIN, END = "<!-- begin: python -m benchmarks report --docs -->\n", "<!-- end -->\n"

# Rounds, and seconds of each measurement.
PRESETS = {"quick": (3, 0.5), "standard": (5, 1.0), "thorough": (9, 3.0), "compare": (15, 0.5)}


def main() -> int:
    args = _arguments()
    if args.command == "report":
        _show(results.read(args.results), is_for_docs=args.docs)
        return 0
    try:
        chosen = scenarios.choose(args.scenarios.split(","))
        network.enter()
        has_libraries = build()
    except (ValueError, BuildError) as error:
        print(error, file=sys.stderr)
        return 2
    more = [scenario for scenario in chosen if scenario.is_tls or scenario.is_compressed]
    if more and not has_libraries:
        print(
            "without TLS and compression: the headers of OpenSSL or zlib (Debian: libssl-dev, zlib1g-dev) or trustme "
            "are missing"
        )
        chosen = [scenario for scenario in chosen if scenario not in more]
    return _compare(args, chosen) if args.command == "compare" else _run(args, chosen)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="measure wsev beside its peers")
    _add_measuring(run, "all")
    run.add_argument("--servers", default="all", help="names, separated by commas")
    run.add_argument("--results", type=Path, help="a file; what stands there already is not measured again")
    run.add_argument("--limit", type=float, help="begin no measurement after so many seconds; resume with --results")
    run.add_argument("--docs", action="store_true", help="renew the tables of the docs")

    shown = commands.add_parser("report", help="show the tables of an earlier run")
    shown.add_argument("results", type=Path)
    shown.add_argument("--docs", action="store_true", help="renew the tables of the docs")

    compared = commands.add_parser("compare", help="measure two commits side by side")
    _add_measuring(compared, "core", "compare")
    compared.add_argument("base", help="a revision")
    compared.add_argument("head", nargs="?", default=".", help="another; this tree, if none is given")
    compared.add_argument(
        "--fail-above", type=float, metavar="PERCENT", help="exit with 1 if head costs so much more, beyond noise"
    )

    return parser.parse_args()


def _add_measuring(parser: argparse.ArgumentParser, default: str, preset: str = "standard") -> None:
    parser.add_argument("--scenarios", default=default, help="core, all, groups, names; separated by commas")
    parser.add_argument("--preset", choices=PRESETS, default=preset)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--generator-cpu", type=int, default=1)


def _times(args: argparse.Namespace) -> tuple[int, Settings]:
    rounds, seconds = PRESETS[args.preset]
    settings = Settings(seconds=args.seconds or seconds, server_cpu=args.server_cpu, generator_cpu=args.generator_cpu)
    return args.rounds or rounds, settings


def _run(args: argparse.Namespace, chosen: list[Scenario]) -> int:
    from benchmarks.run import Run  # here, so that the tables of an earlier run need no rich

    try:
        servers: list[Candidate] = candidates.choose(args.servers.split(","))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    rounds, settings = _times(args)
    path = args.results or BUILD / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    run = Run(chosen, servers, rounds, settings, path, args.limit)
    found = run.go()
    if not run.is_complete(found):
        print(f"not complete yet: go on with --results {path}")
        return 0
    _show(found, is_for_docs=args.docs)
    print(f"\n{path}")
    return 0


def _compare(args: argparse.Namespace, chosen: list[Scenario]) -> int:
    from benchmarks.run import Run
    from benchmarks.trees import tree_of

    try:
        trees = {compare.BASE: tree_of(args.base), compare.HEAD: tree_of(args.head)}
    except BuildError as error:
        print(error, file=sys.stderr)
        return 2
    (wsev,) = candidates.choose(["wsev"])
    servers = [candidates.at(wsev, name, tree) for name, tree in trees.items()]
    rounds, settings = _times(args)
    path = BUILD / "results" / f"compare-{time.strftime('%Y%m%d-%H%M%S')}.json"
    found = Run(chosen, servers, rounds, settings, path).go()
    print(f"\nbase {args.base}, head {args.head}\n\n{compare.table(found, chosen)}")
    slower = [] if args.fail_above is None else compare.slower(found, chosen, args.fail_above / 100)
    if slower:
        print(f"\nslower by more than {args.fail_above:g} %: {', '.join(slower)}")
    return 1 if slower else 0


def _show(found: results.Results, *, is_for_docs: bool) -> None:
    text = "\n\n".join([report.tables(found), report.quality(found), report.setting(found)])
    print(text)
    if failures := report.failures(found):
        print(f"\nnot measured:\n{failures}")
    if is_for_docs:
        found.write(DOCS / "performance.json")
        (DOCS / "performance.svg").write_text(plot.svg(found))
        page = DOCS / "performance.md"
        before, rest = page.read_text().split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    sys.exit(main())
