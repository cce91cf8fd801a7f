"""Writes the table of settings into README.md, or with --check says whether it is up to date.

Usage: python scripts/settings_table.py [--check]
"""

import sys
from pathlib import Path

from pydantic import SecretStr

from itemforge.settings import ClientSettings, GatewaySettings, LogSettings, WorkerSettings

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- settings -->", "<!-- /settings -->"
PROCESSES: tuple[tuple[str, type[LogSettings]], ...] = (
    ("gateway", GatewaySettings),
    ("worker", WorkerSettings),
    ("client", ClientSettings),
)


def rows() -> list[tuple[str, str, str, str]]:
    """Variable, processes, default and meaning of every setting."""
    found: dict[str, tuple[list[str], str, str]] = {}
    for process, settings in PROCESSES:
        for name, field in settings.model_fields.items():
            variable = str(field.validation_alias or f"ITEMFORGE_{name.upper()}")
            default = "" if field.default is None else field.default
            shown = "(RabbitMQ's)" if isinstance(default, SecretStr) else str(default)
            used, _, _ = found.setdefault(variable, ([], shown, field.description or ""))
            used.append(process)
    return [(name, ", ".join(used), default, text) for name, (used, default, text) in sorted(found.items())]


def table() -> str:
    lines = ["| variable | read by | default | meaning |", "|---|---|---|---|"]
    for variable, used, default, text in rows():
        cell = f"`{default}`" if default else ""
        lines.append(f"| `{variable}` | {used} | {cell} | {text} |".replace("| |", "|  |"))
    return "\n".join(lines)


def main() -> int:
    readme = README.read_text()
    before, rest = readme.split(START)
    _, after = rest.split(END)
    wanted = f"{before}{START}\n\n{table()}\n\n{END}{after}"
    if "--check" in sys.argv:
        if readme != wanted:
            print("README.md: the table of settings is out of date; run make fix", file=sys.stderr)
        return int(readme != wanted)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
