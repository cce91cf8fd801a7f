"""What became of all pictures as one page that needs no other file: before and after, flagged ones first.

It decodes only what we wrote ourselves; of the sources it shows the small copies that the decoding process made.
"""

import base64
import html
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from itemforge.dataset.process.arranging import Arrangement
from itemforge.dataset.process.duplicates import Group
from itemforge.dataset.process.recipe import Reason, State
from itemforge.dataset.process.run import Outcome
from itemforge.styles.files import write_atomic

#: Pixels of a picture's side on the page.
_SIDE = 112
Name = Callable[[Outcome], str]
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem;color:#222;background:#fff}
h1,h2{line-height:1.2}h2{margin-top:2.5rem}table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.25rem .8rem;text-align:left;border-bottom:1px solid #e4e4e0}td.n,th.n{text-align:right}
.sheet{display:flex;flex-wrap:wrap;gap:.75rem}.card{width:236px;border:1px solid #e4e4e0;padding:5px;font-size:12px;
overflow-wrap:anywhere}.pair{display:flex;gap:2px;height:112px}.pair span{width:112px;height:112px;display:flex;
align-items:center;justify-content:center;background:#f2f2ee;color:#777}.pair img{max-width:112px;max-height:112px}
.flagged{border-color:#d19a1e;background:#fffaf0}.aside{border-color:#c9c9c4;background:#f8f8f6}.why{font-weight:600}
.group{border-left:4px solid #cfd8e3;padding-left:.75rem;margin:1rem 0}.dim{color:#666}.copy img{opacity:.55}
"""
_TITLES = {
    State.FLAGGED: "Flagged: please look at these",
    State.ASIDE: "Set aside",
    State.OK: "Fine",
}


def write_report(
    path: Path,
    outcomes: Sequence[Outcome],
    arrangement: Arrangement,
    most: int = 400,
    name: Name = lambda outcome: outcome.path.name,
) -> None:
    """Write the page; of each section it shows at most `most` pictures, and says how many it leaves out.

    `name` is what a picture is called there.

    Raises:
        OSError: it cannot be written.
    """
    write_atomic(path, "".join(_page(outcomes, arrangement, most, name)).encode(errors="replace"))


def _page(outcomes: Sequence[Outcome], arrangement: Arrangement, most: int, name: Name) -> Iterator[str]:
    yield "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>Pictures of the training set</title>"
    yield f"<style>{_STYLE}</style><h1>Pictures of the training set</h1>"
    yield from _counts(outcomes, arrangement)
    yield from _sheet(State.FLAGGED, outcomes, arrangement, most, name)
    yield from _groups(outcomes, arrangement.groups, most, name)
    yield from _sheet(State.ASIDE, outcomes, arrangement, most, name)
    yield from _sheet(State.OK, outcomes, arrangement, most, name)
    yield "</html>\n"


def _counts(outcomes: Sequence[Outcome], arrangement: Arrangement) -> Iterator[str]:
    counts = Counter((each.record.state, each.record.reason) for each in outcomes)
    yield f"<p>{len(outcomes)} files</p><table><tr><th>state<th>reason<th class=n>files"
    for state in (State.FLAGGED, State.ASIDE, State.OK):
        for reason in Reason:
            if counts[state, reason]:
                yield f"<tr><td>{state}<td>{html.escape(reason)}<td class=n>{counts[state, reason]}"
    kept = [key for group in arrangement.groups for key in group.kept]
    copies = sum(len(group.copies) for group in arrangement.groups)
    held = sum(arrangement.validation[key] for key in kept)
    yield (
        f"</table><p>{len(kept)} pictures are kept, {held} of them for validation; {copies} more are copies of these. "
        f"They are {len(arrangement.groups)} groups.</p>"
    )


def _sheet(
    state: State, outcomes: Sequence[Outcome], arrangement: Arrangement, most: int, name: Name
) -> Iterator[str]:
    found = [each for each in outcomes if each.record.state is state]
    if not found:
        return
    yield f"<h2>{_TITLES[state]} ({len(found)})</h2><div class=sheet>"
    for each in found[:most]:
        yield _card(each, name, "validation" if arrangement.validation.get(each.key) else "")
    yield f"</div>{_left_out(len(found) - most)}"


def _groups(outcomes: Sequence[Outcome], groups: Sequence[Group], most: int, name: Name) -> Iterator[str]:
    by_key = {each.key: each for each in reversed(outcomes) if each.record.made}
    several = [group for group in groups if len(group.keys) > 1]
    if not several:
        return
    yield f"<h2>Copies and variants (groups: {len(several)})</h2>"
    shown = 0
    for number, group in enumerate(several):
        if shown >= most:
            yield _left_out(len(several) - number, "groups")
            return
        shown += len(group.keys)
        yield f"<div class=group><p>kept: {len(group.kept)}, copies: {len(group.copies)}</p><div class=sheet>"
        for key in group.kept[:most]:
            yield _card(by_key[key], name, "kept")
        for key, of in list(group.copies.items())[:most]:
            yield _card(by_key[key], name, f"copy of {name(by_key[of])}", "copy")
        yield f"</div>{_left_out(max(len(group.kept), len(group.copies)) - most)}</div>"


def _left_out(count: int, what: str = "pictures") -> str:
    return f"<p class=dim>and {count} more {what}</p>" if count > 0 else ""


def _card(outcome: Outcome, name: Name, mark: str = "", kind: str = "") -> str:
    record = outcome.record
    after = _image(outcome.files.picture) if record.made else ""
    lines = [f"<div>{html.escape(name(outcome))}</div>"]
    if record.reason:
        lines.append(f"<div class=why>{html.escape(record.reason)}</div>")
    if record.width:
        size = f"{record.format} {record.width}×{record.height}, ground: {record.ground or 'unknown'}"
        lines.append(f"<div class=dim>{html.escape(size)}</div>")
    told = [mark, record.detail, *record.notes]
    lines.append(f"<div class=dim>{html.escape('; '.join(filter(None, told)))}</div>")
    pair = f"<span>{_image(outcome.files.before) or 'not opened'}</span><span>{after or 'none'}</span>"
    return f"<div class='card {record.state} {kind}'><div class=pair>{pair}</div>{''.join(lines)}</div>"


def _image(path: Path) -> str:
    """An `img` with the picture in it; nothing if there is none."""
    try:
        with Image.open(path, formats=("PNG", "WEBP")) as picture:
            small = picture.convert("RGB")
    except OSError:
        return ""
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "WEBP", quality=70, method=4)
    return f"<img alt='' src='data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}'>"
