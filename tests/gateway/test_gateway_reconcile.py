"""After an older database was restored, the store's pictures complete what the database forgot."""

from io import BytesIO
from uuid import UUID, uuid4

import numpy as np
from PIL import Image as PillowImage
from rig import MemoryStore

from databases import new_request, reload, states
from itemforge.contract import Scheduler, Status
from itemforge.gateway.reconcile import reconcile
from itemforge.imaging.png import encode_png
from itemforge.imaging.recipe import Recipe
from itemforge.jobs import claims
from itemforge.jobs.database import Database


def _picture(seed: int) -> bytes:
    recipe = Recipe("a", "", 5, Scheduler.DDIM, 7.5, seed, 64, 48, "ab" * 32, "fake")
    return encode_png(np.zeros((48, 64, 3), np.uint8), recipe)


async def test_an_open_request_with_all_its_pictures_is_completed_once(db: Database) -> None:
    store = MemoryStore()
    one, three = await new_request(db), await new_request(db, num_images=3)
    store.objects[f"generated/{one.id}.png"] = _picture(7)
    for n in range(3):
        store.objects[f"generated/{three.id}/{n}.png"] = _picture(7 + n)
    await claims.claim(db, "w", [three.id], -1)
    found = await reconcile(db, store)
    assert sorted(found.completed) == sorted((one.id, three.id))
    assert await states(db, one.id) == ["Pending", "Processing", "Completed"]
    row = await reload(db, three.id)
    assert row.image_url == f"https://store.example/generated/{three.id}/0.png"
    assert [(i.n, i.seed, i.width, i.height) for i in row.images] == [(n, 7 + n, 64, 48) for n in range(3)]
    assert row.finished_at is not None
    again = await reconcile(db, store)
    assert (again.completed, again.unknown) == ([], [])


async def test_what_is_not_all_there_or_not_its_own_is_drawn_again(db: Database) -> None:
    store = MemoryStore()
    some, other_seed, broken, none = [await new_request(db, num_images=2) for _ in range(4)]
    store.objects[f"generated/{some.id}/1.png"] = _picture(8)
    for n in range(2):
        store.objects[f"generated/{other_seed.id}/{n}.png"] = _picture(99)
        store.objects[f"generated/{broken.id}/{n}.png"] = _picture(7 + n)[:60]
    found = await reconcile(db, store)
    assert sorted(found.partly) == sorted((some.id, other_seed.id, broken.id)) and not found.completed
    for request in (some, other_seed, broken, none):
        assert (await reload(db, request.id)).status is Status.PENDING


async def test_a_picture_of_the_original_worker_has_no_recipe_and_counts_by_its_key(db: Database) -> None:
    store = MemoryStore()
    request = await new_request(db)
    out = BytesIO()
    PillowImage.new("RGB", (512, 512)).save(out, "PNG")
    store.objects[f"generated/{request.id}.png"] = out.getvalue()
    assert (await reconcile(db, store)).completed == [request.id]
    (image,) = (await reload(db, request.id)).images
    assert (image.width, image.height) == (512, 512)


async def test_what_a_worker_holds_or_has_ended_is_left_alone(db: Database) -> None:
    store = MemoryStore()
    held, failed = await new_request(db), await new_request(db)
    for request in (held, failed):
        store.objects[f"generated/{request.id}.png"] = _picture(7)
    await claims.claim(db, "w", [held.id], 30)
    await claims.set_status(db, failed.id, Status.FAILED, None)
    found = await reconcile(db, store)
    assert (found.completed, found.leased) == ([], [held.id])
    assert (await reload(db, failed.id)).status is Status.FAILED


async def test_requests_that_only_the_store_knows_are_told_and_not_invented(db: Database) -> None:
    store = MemoryStore()
    lost = [uuid4() for _ in range(3)]
    for request_id in lost:
        store.objects[f"generated/{request_id}.png"] = _picture(7)
    store.objects["generated/readme.png"] = store.objects["styles/plain/current"] = b"1"
    store.objects[f"generated/{UUID(int=1)}/0.0a1b2c3d.webp"] = b"a derivative"
    assert (await reconcile(db, store)).unknown == sorted(lost)
