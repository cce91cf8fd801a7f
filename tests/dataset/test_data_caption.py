"""`itemforge data caption`: providers by the command line, against a server that speaks Gemini's protocol."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from gemini_server import KEY, GeminiServer, Reply, described, error, quota, serving, spoken
from small_set import USABLE, refused, run, said, set_captions, states

from itemforge.dataset.processed import all_processed
from itemforge.dataset.store import open_store
from itemforge.dataset.store_captions import caption, captions, history, save_caption


@pytest.fixture(scope="module")
def _server() -> Iterator[GeminiServer]:
    with serving() as server:
        yield server


@pytest.fixture
def gemini(_server: GeminiServer, monkeypatch: pytest.MonkeyPatch) -> GeminiServer:
    """A fresh server, which the settings name."""
    _server.reset()
    for name, value in {
        "GEMINI_API_KEY": KEY,
        "ITEMFORGE_GEMINI_URL": _server.url,
        "ITEMFORGE_GEMINI_PAUSE": "0.01",
        "ITEMFORGE_GEMINI_POLL": "0.02",
        "ITEMFORGE_GEMINI_TIMEOUT": "10",
    }.items():
        monkeypatch.setenv(name, value)
    return _server


def _pictures(items: Path) -> dict[str, bytes]:
    """By sha256, the bytes that are sent."""
    with open_store(items) as store:
        return {s: (items / m.picture).read_bytes() for s, m in all_processed(store).items() if m.usable}


def test_names_caption_offline_what_is_usable(items: Path) -> None:
    told = said("data", "caption", items, "--provider", "name")
    assert f"{USABLE} pictures to caption" in told and f"{USABLE} are new" in told
    assert Counter(states(items).values()) == {("auto", "name"): USABLE}
    with open_store(items) as store:
        objects = {str(each.fields["object"]) for each in captions(store)}
    assert {"iron sword", "golden key", "fée", "剣", "green apple"} <= objects
    again = said("data", "caption", items)
    assert "0 pictures to caption" in again and "--again" in again


def test_gemini_captions_with_a_cost_before_and_after(items: Path, gemini: GeminiServer) -> None:
    told = said("data", "caption", items, "--provider", "gemini", "--yes", "--concurrency", "2")
    assert "estimate: $0.00" in told and "cost: $0.00" in told
    assert f"{USABLE} pictures, {USABLE * 600} tokens in, {USABLE * 100} out" in told
    assert sorted(gemini.pictures()) == sorted(
        hashlib.sha256(p).hexdigest() for p in _pictures(items).values()
    )
    assert {each.key for each in gemini.log} == {KEY} and KEY not in told
    with open_store(items) as store:
        one = captions(store)[0]
        assert (one.fields["object"], one.provider) == ("curved iron sword", "gemini-3.5-flash-lite")
        assert [change.who for change in history(store, one.sha256)] == ["gemini"]
    hints = {each.body["contents"][0]["parts"][1]["text"] for each in gemini.log}
    assert 'Describe this item. Its file is called "golden key".' in hints


def test_without_a_terminal_gemini_wants_a_yes(items: Path, gemini: GeminiServer) -> None:
    assert "say --yes" in refused("data", "caption", items, "--provider", "gemini")
    assert not gemini.log and not states(items)


def test_a_key_is_needed_and_either_name_will_do(
    items: Path, gemini: GeminiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    assert "set GEMINI_API_KEY" in refused("data", "caption", items, "--provider", "gemini", "--yes")
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    said("data", "caption", items, "--provider", "gemini", "--yes")
    assert len(states(items)) == USABLE


def test_every_kind_of_failure_is_counted_and_the_next_run_asks_only_again_where_it_may_help(
    items: Path, gemini: GeminiServer
) -> None:
    pictures = list(_pictures(items).values())
    busy = Reply(429, quota("GenerateRequestsPerMinutePerProjectPerModel", "0.05s"))
    down = Reply(503, error(503, "UNAVAILABLE", f"overloaded {KEY}"))
    cut = spoken('{"object": "iron sw', finish="STOP")
    gemini.script(pictures[0], busy)
    gemini.script(pictures[1], *[down] * 4)
    gemini.script(pictures[2], Reply(body=spoken("", finish="SAFETY")))
    gemini.script(pictures[3], Reply(body=cut), Reply(body=cut))
    gemini.script(pictures[4], Reply(body={"promptFeedback": {"blockReason": "OTHER"}}))
    gemini.script(pictures[5], Reply(body=spoken("I'm sorry, I cannot help with that.")))
    gemini.script(pictures[6], Reply(500, error(500, "INTERNAL")), Reply())
    told = said("data", "caption", items, "--provider", "gemini", "--yes", "--concurrency", "1")
    for reason in ("safety", "truncated", "blocked", "refused", "server"):
        assert f"not captioned, {reason}: 1" in told
    assert f"{USABLE - 5} captioned" in told and "repeat the command" in told and KEY not in told
    gemini.log.clear()
    again = said("data", "caption", items, "--provider", "gemini", "--yes")
    asked = {hashlib.sha256(pictures[number]).hexdigest() for number in (1, 3)}
    assert set(gemini.pictures()) == asked, "what was refused for good is not asked again"
    assert "2 are new" in again
    last = said("data", "caption", items, "--provider", "gemini", "--yes", "--ask-failed-again")
    assert "3 are new" in last and len(states(items)) == USABLE


def test_a_wrong_key_ends_the_run_as_a_wrong_setting(items: Path, gemini: GeminiServer) -> None:
    bad = error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")
    gemini.always = lambda sha256: Reply(400, bad)
    text = refused("data", "caption", items, "--provider", "gemini", "--yes", "--concurrency", "1")
    assert "check GEMINI_API_KEY" in text and KEY not in text
    assert len(gemini.pictures()) == 1


def test_a_daily_limit_holds_over_runs(items: Path, gemini: GeminiServer) -> None:
    arguments = (
        "data",
        "caption",
        items,
        "--provider",
        "gemini",
        "--yes",
        "--per-day",
        3,
        "--concurrency",
        1,
    )
    result = run(*arguments)
    assert result.exit_code == 1 and "limit of 3 requests a day" in result.output
    assert run(*arguments).exit_code == 1
    assert len(gemini.pictures()) == len(states(items)) == 3


def test_a_batch_gives_the_same_captions_at_half_the_price(items: Path, gemini: GeminiServer) -> None:
    told = said("data", "caption", items, "--provider", "gemini", "--batch", "--yes")
    assert "half of it in a batch" in told and len(gemini.jobs) == 1 and not gemini.pictures()
    assert Counter(states(items).values()) == {("auto", "gemini-3.5-flash-lite"): USABLE}
    assert "--batch is Gemini's" in refused("data", "caption", items, "--batch")


def test_what_a_person_wrote_is_never_touched(items: Path, gemini: GeminiServer) -> None:
    said("data", "caption", items)
    persons = dict(zip(states(items), ("edited", "approved", "rejected"), strict=False))
    with open_store(items) as store:
        before = {sha256: caption(store, sha256) for sha256 in persons}
    with open_store(items) as store:
        for sha256, state in persons.items():
            save_caption(
                store, sha256, {"object": "mine"}, provider="person", prompt_version="", state=state, who="me",
                seen=before[sha256].version,
            )  # fmt: skip
    told = said("data", "caption", items, "--provider", "gemini", "--yes", "--again")
    assert "3 have a person's word" in told
    found = Counter(states(items).values())
    assert found[("auto", "gemini-3.5-flash-lite")] == USABLE - 3
    for state in persons.values():
        assert found[(state, "person")] == 1
    versions = _versions(items)
    said("data", "caption", items, "--provider", "gemini", "--yes", "--again")
    assert _versions(items) == versions, "the same answer is no change"


def _versions(items: Path) -> dict[str, int]:
    with open_store(items) as store:
        return {each.sha256: each.version for each in captions(store)}


def test_a_caption_that_a_person_writes_while_the_run_is_on_stays(items: Path, gemini: GeminiServer) -> None:
    first = next(iter(_pictures(items).items()))

    def meanwhile() -> None:
        set_captions(items, "approved", object="mine")

    gemini.script(first[1], Reply(body=described(), before=meanwhile))
    told = said("data", "caption", items, "--provider", "gemini", "--yes", "--concurrency", "1")
    assert "captioned by a person meanwhile" in told
    assert Counter(states(items).values()) == {("approved", "person"): USABLE}


def test_the_template_writes_the_captions_anew_and_nobody_is_asked(
    items: Path, gemini: GeminiServer, tmp_path: Path
) -> None:
    said("data", "caption", items, "--provider", "gemini", "--yes")
    said("data", "export", items, "--out", tmp_path / "a", "--state", "all")
    manifest = items / "dataset.toml"
    text = manifest.read_text()
    asked = len(gemini.log)
    manifest.write_text(
        text.replace("tsuki_advtr", "inkstyle").replace(
            "{trigger}, {description}, {tail}", "{trigger}: {description} | {tail}"
        )
    )
    said("data", "export", items, "--out", tmp_path / "b", "--state", "all")
    lines = (tmp_path / "b/train/metadata.jsonl").read_text().splitlines()
    for line in lines:
        assert json.loads(line)["text"].startswith(
            "inkstyle: grey and red curved iron sword with leather grip"
        )
    assert len(gemini.log) == asked
    manifest.write_text(text.replace("{description}", "{caption}"))
    assert "{caption} is no part of a caption" in refused("data", "export", items, "--out", tmp_path / "c")


def test_a_local_model_captions_too(items: Path, tmp_path: Path) -> None:
    assert "name the model's directory" in refused("data", "caption", items, "--provider", "local")
    from test_local_captions import write_model

    told = said(
        "data", "caption", items, "--provider", "local", "--model", write_model(tmp_path / "tiny-blip")
    )
    assert f"{USABLE} pictures to caption" in told
    found = states(items)
    assert found and all(state == "auto" and by.startswith("tiny-blip@") for state, by in found.values())
