"""Everything that needs a GPU, in one command: ``python -m benchmarks.gpu [RESULTS.json]``.

The tests marked ``gpu``; the rows of a GPU beside PyTorch, eager and compiled; and the records
under compute-sanitizer, which the CUDA toolkit has. Every stage runs; the status says whether all
passed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TESTS = (sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(Path("tests", "gpu")))
SANITIZER = "compute-sanitizer"


def stages(results: str) -> dict[str, Sequence[str]]:
    """Return the command of each stage."""
    rows = (sys.executable, "-m", "benchmarks", "--gpu", "--torch-compile", "--json", results)
    checks = {
        tool: (SANITIZER, "--tool", tool, "--error-exitcode", "1", *TESTS, "-k", "records")
        for tool in ("memcheck", "racecheck")
    }
    return {"tests": TESTS, "rows": rows, **checks}


def run(name: str, command: Sequence[str]) -> bool:
    """Run a stage; return whether it passed."""
    print(f"== {name}: {' '.join(command)}", flush=True)
    if shutil.which(command[0]) is None:
        print(f"== {name}: there is no {command[0]} on this machine", flush=True)
        return False
    started = time.perf_counter()
    status = subprocess.run(command).returncode
    print(f"== {name}: exit {status} after {time.perf_counter() - started:.0f} s", flush=True)
    return status == 0


def main(arguments: Sequence[str]) -> int:
    """Run every stage and return the exit status."""
    results = arguments[0] if arguments else "gpu.json"
    passed = {name: run(name, command) for name, command in stages(results).items()}
    failed = [name for name, good in passed.items() if not good]
    print(f"failed: {', '.join(failed)}" if failed else "all stages passed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
