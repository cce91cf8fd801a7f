"""Writes the table of settings into README.md, and .env.example; with --check says whether both are up to date.

Usage: python scripts/settings_table.py [--check]
"""

import sys
from pathlib import Path

from pydantic import SecretStr

from itemforge.settings import (
    CaptionSettings,
    ClientSettings,
    GatewaySettings,
    LogSettings,
    PullSettings,
    WorkerSettings,
)

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
EXAMPLE = ROOT / ".env.example"
START, END = "<!-- settings -->", "<!-- /settings -->"
PROCESSES: tuple[tuple[str, type[LogSettings]], ...] = (
    ("gateway", GatewaySettings),
    ("worker", WorkerSettings),
    ("client", ClientSettings),
    ("pull", PullSettings),
    ("caption", CaptionSettings),
)
#: What stands above the settings: how the file is read, and what compose.yaml takes from it.
HEAD = """
# Settings of ItemForge. Copy to .env, take the # from what you need, and chmod 600 .env; git ignores it.
# It is read from the working directory, by `docker run --env-file`, by compose.yaml and by systemd. All of them read
# NAME=value alike where the value has no quotes, no space and no $, and no comment stands behind it.

# ── docker compose (compose.yaml) alone: its secrets, each made by `openssl rand -hex 24` ─────────────

#GATEWAY_PASSWORD=
#WORKER_PASSWORD=
#MONITOR_PASSWORD=
#RABBITMQ_ADMIN_PASSWORD=
#POSTGRES_PASSWORD=
#GRAFANA_PASSWORD=

# … and images of a registry in place of those built here, and the Alertmanager's file with your webhook

#ITEMFORGE_GATEWAY_IMAGE=
#ITEMFORGE_WORKER_IMAGE=
#ITEMFORGE_WORKER_CPU_IMAGE=
#ALERTMANAGER_FILE=
"""


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


def readme() -> str:
    before, rest = README.read_text().split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{table()}\n\n{END}{after}"


def example() -> str:
    """Every setting once, as a line to take the `#` from; those that most processes read come first."""
    lines = [HEAD.strip()]
    readers = sorted({used for _, used, _, _ in rows()}, key=lambda used: (-used.count(","), used))
    for reader in readers:
        lines += ["", f"# ── read by: {reader} ".ljust(100, "─")]
        for name, used, default, text in rows():
            if used == reader:
                lines += ["", f"# {text}", f"#{name}={'' if default.startswith('(') else default}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    stale = []
    for path, wanted in ((README, readme()), (EXAMPLE, example())):
        if "--check" not in sys.argv:
            path.write_text(wanted)
        elif not path.exists() or path.read_text() != wanted:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)}: the settings are out of date; run make fix", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
