"""All benches of the worker on this machine, one after the other, as Markdown.

    python bench/run.py [--out docs/performance-worker.md] [--clone]

About a quarter of an hour on two cores that nobody else uses. The file's part between the marks
`<!-- tables -->` and `<!-- /tables -->` is replaced; the text around it stays.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
BENCHES = ("worker.py", "unet.py", "quality.py", "latency.py", "style_swap.py", "start.py")
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "performance-worker.md")
    parser.add_argument("--clone", action="store_true", help="also from a fresh clone: minutes")
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder, "tables.md")
        for bench in BENCHES:
            extra = ["--clone"] if options.clone and bench == "start.py" else []
            print(f"── {bench}", flush=True)
            start = time.monotonic()
            command = [sys.executable, str(HERE / bench), *extra, "--out", str(tables)]
            if subprocess.run(command, cwd=HERE.parent).returncode:
                failed.append(bench)
            print(f"   {time.monotonic() - start:.0f} s", flush=True)
        made = tables.read_text(encoding="utf-8") if tables.exists() else ""
    text = options.out.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    options.out.write_text(f"{before}{BEGIN}\n\n{made}{END}{after}", encoding="utf-8")
    for name in failed:
        print(f"{name} failed; its table is missing", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
