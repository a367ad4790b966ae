"""`python -m tools.fuzz TARGET`: run a target, or all in turn, for a time or a number of cases."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported; strange names are no reason to ask the hub

from tools.fuzz._runner import Tally, fuzz, replay
from tools.fuzz._targets import TARGETS

_TURN = 10  # cases of a target before the next one's turn
_GIGABYTES = 12  # of addresses; what wants more is to say so in a plain message


def main() -> int:
    """Run what the command line says; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS, "all", "replay"])
    parser.add_argument("file", nargs="?", type=Path, help="a finding, for replay")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cases", type=int, help="of each target, in place of a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_GIGABYTES * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    if given.target == "replay":
        outcome, finding = replay(TARGETS, given.file)
        print(outcome if finding is None else finding.told)
        return int(finding is not None)
    given.findings.mkdir(exist_ok=True)
    names = list(TARGETS) if given.target == "all" else [given.target]
    return _round_robin(names, given.seconds, given.cases, given.seed, given.findings.resolve())


def _round_robin(names: list[str], seconds: float, cases: int | None, seed: int, folder: Path) -> int:
    tallies = {name: Tally() for name in names}
    ends, done = time.monotonic() + seconds, 0
    while done < cases if cases is not None else time.monotonic() < ends:
        turn = _TURN if cases is None else min(_TURN, cases - done)
        for name in names:
            known = len(tallies[name].findings)
            fuzz(TARGETS[name], tallies[name], seed, done, turn, folder)
            for place in list(tallies[name].findings)[known:]:
                print(f"{name}: {place}", flush=True)
        done += turn
    for name, tally in tallies.items():
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in tally.outcomes.most_common())
        print(
            f"{name}: {tally.cases} cases in {tally.seconds:.0f} s, {len(tally.findings)} kinds of finding ({outcomes})"
        )
    return int(any(tally.findings for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
