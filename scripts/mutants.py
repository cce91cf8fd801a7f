"""Break the code in the ways of tests/faults/mutants.toml and show that a scenario notices each.

The working tree is never touched: each mutant is a copy of it in a temporary folder. First all named tests
must be green as the tree is. Exit code 1 when a mutant survives, or no longer fits the code.

    .venv/bin/python scripts/mutants.py [--all] [part of a name]

Ten of them, or `--all`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
GREEN, RED = 0, 1  # pytest's exit codes: all passed, some failed


@dataclass(frozen=True)
class Mutant:
    what: str
    file: str
    old: str
    new: str
    test: str
    also: bool = False


def main() -> int:
    every = "--all" in sys.argv
    wanted = next((argument for argument in sys.argv[1:] if argument != "--all"), "")
    listed = tomllib.loads((ROOT / "tests/faults/mutants.toml").read_text())["mutant"]
    mutants = [m for m in (Mutant(**each) for each in listed) if wanted in m.what and (every or not m.also)]
    print(f"{len(mutants)} mutants; first their tests on the code as it is", flush=True)
    if _run(ROOT, sorted({mutant.test for mutant in mutants})) != GREEN:
        print("the tests are not green without a mutation: mend that first")
        return 1
    print("| mutant | outcome | seconds |\n|---|---|---|", flush=True)
    outcomes = []
    for mutant in mutants:
        started = time.monotonic()
        outcomes.append(_outcome(mutant))
        print(f"| {mutant.what} | {outcomes[-1]} | {time.monotonic() - started:.0f} |", flush=True)
    return 0 if set(outcomes) == {"red"} else 1


def _outcome(mutant: Mutant) -> str:
    with tempfile.TemporaryDirectory(prefix="itemforge-mutant-") as name:
        tree = Path(name)
        for part in ("src", "tests"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        (tree / "starter").symlink_to(ROOT / "starter")
        shutil.copy(ROOT / "pyproject.toml", tree)
        file = tree / mutant.file
        code = file.read_text()
        if code.count(mutant.old) != 1:
            return f"no longer fits {mutant.file}: `old` stands there {code.count(mutant.old)} times"
        file.write_text(code.replace(mutant.old, mutant.new))
        output = tree / "output"
        found = _run(tree, [mutant.test], output)
        if "from pytest-timeout" in output.read_text():  # nothing noticed the mutant: it was too slow
            return "OUT OF TIME: try again on a less busy machine"
        return {GREEN: "SURVIVED", RED: "red"}.get(found, f"pytest ended with {found}")


def _run(tree: Path, tests: list[str], output: Path | None = None) -> int:
    """pytest in `tree`, on the package in `tree`; its exit code. It speaks to the terminal or into a file."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    env = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    with output.open("w") if output else nullcontext() as file:
        return subprocess.run(command, cwd=tree, env=env, stdout=file, stderr=file).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
