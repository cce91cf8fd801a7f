"""Fills a database with rows that wait and rows that have ended, inside the database itself."""

import shutil
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from itemforge.jobs import migrate
from itemforge.jobs.database import Database

#: A row's params as the gateway writes them.
PARAMS = (
    '{"prompt": "a red apple", "negative_prompt": "", "num_inference_steps": 25, "guidance_scale": 7.5, '
    '"seed": 7, "style": "plain@1", "lora_weight": null, "width": 64, "height": 64, "scheduler": "ddim", '
    '"num_images": 1}'
)
_CHUNK = 100_000
_NUMBERS = {
    "postgresql": "SELECT i FROM generate_series(CAST(:first AS int), :last) AS i",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last) SELECT i FROM n",
}
_ID = {"postgresql": "gen_random_uuid()", "sqlite": "lower(hex(randomblob(16)))"}
_AGO = {
    "postgresql": "now() - make_interval(secs => {0})",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('-%f seconds', {0}))",
}
#: Ended rows are older than waiting ones; the newest waiting row is the last one.
_REQUESTS = """
    INSERT INTO requests (id, owner, status, prompt, style, params, image_url, attempt, charged,
                          published_at, created_at, updated_at, finished_at)
    SELECT {id}, 'owner-' || (i % :owners), '{status}', 'a red apple', 'plain@1', CAST(:params AS json), {url},
           {attempt}, {attempt}, {published}, {at}, {at}, {finished}
    FROM ({numbers}) AS numbers
"""
#: In sixteen parts, by the first digit of the id.
_EVENTS = """
    INSERT INTO events (request_id, type, data, created_at)
    SELECT id, 'state', '{"status": "Completed"}', created_at
    FROM requests WHERE substr(CAST(id AS text), 1, 1) = :digit
"""


def sqlite_url(folder: Path, number: int, template: str | None) -> str:
    """The address of a new file, a copy of the template's if there is one."""
    path = folder / f"{number}.db"
    if template is not None:
        shutil.copyfile(template.partition(":///")[2], path)
    return f"sqlite+aiosqlite:///{path}"


async def load(url: str, waiting: int, ended: int, owners: int) -> None:
    """Migrate and fill; then as after a vacuum."""
    db = Database(url)
    await migrate.upgrade(db)
    kind = db.engine.dialect.name
    async with db.write() as write:
        definitions = await _drop_indexes(write.conn, kind) if ended else []
        if (
            ended and kind == "postgresql"
        ):  # foreign keys hold by themselves here; a million checks only cost time
            await write.conn.execute(text("SET LOCAL session_replication_role = replica"))
        await _insert(write.conn, kind, "Completed", ended, owners)
        for digit in "0123456789abcdef" if ended else "":
            await write.conn.execute(text(_EVENTS), {"digit": digit})
        for definition in definitions:
            await write.conn.exec_driver_sql(definition)
        await _insert(write.conn, kind, "Pending", waiting, owners)
    if kind == "postgresql":
        async with db.read() as conn:
            for table in ("requests", "events"):
                await conn.exec_driver_sql(f"VACUUM ANALYZE {table}")
    else:
        async with db.read() as conn:
            await conn.exec_driver_sql("COMMIT")
            await conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            await conn.exec_driver_sql("BEGIN")
    await db.close()


async def _insert(conn: AsyncConnection, kind: str, status: str, count: int, owners: int) -> None:
    if not count:
        return
    ended = status == "Completed"
    at = _AGO[kind].format("(:count - i) * 0.01 + 86400" if ended else "(:count - i) * 0.001 + 60")
    statement = _REQUESTS.format(
        id=_ID[kind],
        status=status,
        url="'https://store.example/generated/picture.png'" if ended else "NULL",
        attempt=int(ended),
        published=at if ended else "NULL",
        at=at,
        finished=at if ended else "NULL",
        numbers=_NUMBERS[kind],
    )
    if kind == "sqlite":
        statement = statement.replace("CAST(:params AS json)", ":params")
    for first in range(1, count + 1, _CHUNK):  # a statement may take 30 s
        values = {"first": first, "last": min(count, first + _CHUNK - 1), "count": count}
        await conn.execute(text(statement), {**values, "owners": owners, "params": PARAMS})


async def _drop_indexes(conn: AsyncConnection, kind: str) -> list[str]:
    """Drop what is no key, to be made again after loading; returns how."""
    if kind == "postgresql":
        query = (
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
            "AND tablename IN ('requests', 'events') AND indexname NOT LIKE '%pk%' AND indexname NOT LIKE '%pkey'"
        )
    else:
        query = (
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL "
            "AND tbl_name IN ('requests', 'events')"
        )
    found = (await conn.exec_driver_sql(query)).tuples().all()
    for name, _ in found:
        await conn.exec_driver_sql(f'DROP INDEX "{name}"')
    return [definition for _, definition in found]
