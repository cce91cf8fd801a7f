"""All benches on this machine, one after the other, as Markdown in docs/performance.md.

    python bench/run.py [--out docs/performance.md] [--clone] [name …]

About half an hour on two cores that nobody else uses. The file's part between the marks `<!-- tables -->` and
`<!-- /tables -->` is replaced; the text around it stays. With names (`worker`, `gateway`, …) only those
tables are replaced.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report

HERE = Path(__file__).parent
#: Those that write their own Markdown, and those whose output is Markdown.
WRITING = ("worker", "unet", "quality", "latency", "style_swap", "start", "train_speed")
PRINTING = ("gateway", "overhead", "growth", "studio")
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *WRITING, *PRINTING])
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "performance.md")
    parser.add_argument("--clone", action="store_true", help="also from a fresh clone: minutes")
    options = parser.parse_args()
    failed = []
    for name in options.names or (*WRITING, *PRINTING):
        print(f"── {name}", flush=True)
        start = time.monotonic()
        made = _run(name, ["--clone"] if options.clone and name == "start" else [])
        print(f"   {time.monotonic() - start:.0f} s", flush=True)
        if made is None:
            failed.append(name)
        else:  # at once: what comes later may be interrupted
            _put(options.out, name, made)
    for name in failed:
        print(f"bench/{name}.py failed; its table is not renewed", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, extra: list[str]) -> str | None:
    """The bench's Markdown, or None when it failed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "table.md")
        command = [sys.executable, str(HERE / f"{name}.py"), *extra]
        if name in WRITING:
            command += ["--out", str(file)]
        with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
            printed = []
            for line in process.stdout or ():
                print(line, end="", flush=True)
                printed.append(line)
        if process.returncode:
            return None
        if name in WRITING:
            return file.read_text(encoding="utf-8").strip()
        return f"### {''.join(printed).strip()}\n\n{report.stamp(command[1:])}"


def _put(out: Path, name: str, made: str) -> None:
    """Replace this bench's part between the marks, or add it."""
    text = out.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    tables, _, after = rest.partition(END)
    part = f"<!-- {name} -->\n{made}\n<!-- /{name} -->"
    known = re.compile(f"<!-- {name} -->.*<!-- /{name} -->", re.DOTALL)
    tables = known.sub(lambda _: part, tables) if known.search(tables) else f"{tables.rstrip()}\n\n{part}\n\n"
    out.write_text(f"{before}{BEGIN}{tables}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
