"""Keys and paths from outside: none of them leaves the folder that it belongs to."""

import json
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st
from rig import MemoryBroker, app_for, picture, running, settings_for
from size import SEED, count, dice

from climbs import CLIMBS
from itemforge.errors import ItemForgeError, PermanentError
from itemforge.gateway.listening import bind
from itemforge.gateway.server import serving
from itemforge.storage.folder import FolderStore
from itemforge.storage.keys import check_key
from itemforge.styles.catalog import Catalog

SECRET = b"a file that no key may reach"
_parts = st.sampled_from(
    [
        "..",
        ".",
        "",
        "a",
        "generated",
        "~",
        "\\",
        "%2e%2e",
        "..%2f",
        "\0",
        "C:",
        "．．",
        "\u202e",
        "con",
        ".itemforge",
        "a" * 300,
    ]
)
_keys = st.one_of(st.text(max_size=60), st.lists(_parts, min_size=1, max_size=6).map("/".join))


@seed(SEED)
@settings(max_examples=count(300, 20_000), deadline=None, database=None)
@given(_keys)
@example("../outside")
@example("generated/../../outside")
@example("/etc/passwd")
@example("a\0b")
@example("..\\outside")
def test_a_key_that_is_allowed_stays_in_its_folder(key: str) -> None:
    try:
        check_key(key)
    except PermanentError:
        return
    root = Path("/srv/objects")
    placed = Path(*(part for part in (root / key).parts))
    assert ".." not in placed.parts
    assert placed.is_relative_to(root)
    assert placed != root
    assert key.isprintable()


@seed(SEED)
@settings(max_examples=count(60, 2000), deadline=None, database=None)
@given(key=_keys)
async def test_no_key_reads_or_writes_beside_a_folder_store(
    key: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outer = tmp_path_factory.mktemp("outer")
    (outer / "outside").write_bytes(SECRET)
    store = FolderStore(outer / "objects")
    for call in (lambda: store.put(key, b"x", "image/png"), lambda: store.replace(key, b"y", "image/png")):
        try:
            await call()
        except ItemForgeError:
            continue
    try:
        assert await store.get(key) != SECRET
        await store.delete(key)
    except ItemForgeError:
        pass
    assert sorted(path.name for path in outer.iterdir()) == ["objects", "outside"]
    assert (outer / "outside").read_bytes() == SECRET


def _spellings(target: str) -> list[str]:
    return [
        *(climb * depth + target for climb in CLIMBS for depth in (1, 2, 4)),
        f"%2f{target}", f"/{target}", f"generated/{target}%00.png", f"generated/..%2f{target}", quote(f"a/../{target}", safe=""),
        f"generated/%2e%2e/{target}.png", f".itemforge/meta/{target}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "route", ["/objects/", "/v1/styles/blobs/", "/v1/styles/", "/v1/styles/plain/", "/static-offline-docs/"]
)
async def test_no_spelling_of_a_path_gets_a_foreign_file_over_http(route: str, tmp_path: Path) -> None:
    root = tmp_path / "objects"
    for place in (tmp_path, root, root / ".itemforge" / "meta"):
        place.mkdir(parents=True, exist_ok=True)
        for name in ("outside", "outside.png", "1.toml"):
            (place / name).write_bytes(SECRET)
    values = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", tmp_path)
    store = FolderStore(root)
    app = app_for(values, MemoryBroker(), store)  # type: ignore[arg-type]  # a real store
    app.state.gateway.catalog = Catalog(store, tmp_path / "home")
    async with serving(app, bind("127.0.0.1", 0)) as address, httpx.AsyncClient() as http:
        for target in ("outside", "outside.png", "1.toml"):
            for spelling in _spellings(target):
                # As it is written: the client's own tidying of paths would undo the attack.
                request = http.build_request("GET", address)
                request.url = httpx.URL(address).copy_with(raw_path=f"{route}{spelling}".encode())
                answer = await http.send(request)
                assert SECRET not in answer.content, spelling
                assert answer.status_code in (400, 404, 405, 307, 308), (spelling, answer.status_code)
                if answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json":
                    assert json.loads(answer.content)["status"] == 404
        assert (await http.get(f"{address}/readyz")).status_code == 200


async def test_a_worker_cannot_report_a_picture_under_a_key_of_its_own_choice(tmp_path: Path) -> None:
    random = dice("keys")
    async with running(settings_for(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", tmp_path)) as rig:
        request_id = (await rig.submit())["id"]
        attempt = (await rig.claim(request_id))["attempt"]
        own = f"generated/{request_id}.png"
        foreign = [
            "generated/x.png",
            f"/{own}",
            f"{own}/",
            f"./{own}",
            own.upper(),
            f"../{own}",
            "styles/plain/current",
            "",
        ]
        for _ in range(count(30, 1000)):
            at = random.randrange(len(own))
            foreign.append(own[:at] + chr(random.choice((0, 32, 46, 47, 92, 0x430, 0x202E))) + own[at + 1 :])
        for key in foreign:
            named = {**picture(request_id, rig.store), "key": key}
            item = {"request_id": request_id, "attempt": attempt, "status": "Completed", "images": [named]}
            answer = await rig.http.post("/v1/worker/reports", json=[item])
            assert answer.status_code == 422 or key == own, (key, answer.text)
        assert await rig.report(request_id, attempt) == 200
