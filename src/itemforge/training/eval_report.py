"""An evaluation as one page that needs no other file: figures, plots, all pictures side by side, and a blind vote."""

import base64
import html
import io
import json
from collections.abc import Sequence

from matplotlib.figure import Figure as Plot
from PIL import Image

from itemforge.training.drawing import Pixels
from itemforge.training.judge import Figures
from itemforge.training.lora_eval import Evaluation, Judged

#: Width of a picture on the page.
_SIDE = 128
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem;color:#222;background:#fff}
h1,h2{line-height:1.2}h2{margin-top:2.5rem}table{border-collapse:collapse}.wide{overflow-x:auto;max-height:80vh}
td,th{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #e4e4e0;white-space:nowrap}th{background:#f6f6f3}
td:first-child,th:first-child{text-align:left}.grid th{position:sticky;top:0;font-weight:500;font-size:12px;text-align:center;z-index:1}
.grid td{padding:2px;text-align:center}.grid td:first-child{position:sticky;left:0;background:#fff;max-width:13rem;white-space:normal;font-size:13px}
img.p{width:128px;height:128px;object-fit:contain;background:#fff;border:1px solid #e4e4e0}.best{background:#eaf6e4}
.best img.p{border:2px solid #3f8f2f}.pair{display:inline-block;margin:0 1rem 1rem 0;font-size:12px}code{background:#f2f2ee;padding:.1rem .3rem}
#vote button{border:1px solid #bbb;background:#fff;padding:.6rem;margin-right:1rem;cursor:pointer}#vote img{width:192px;height:192px;display:block}
figure{margin:0}img.plot{max-width:100%}
"""
# Two candidates of one prompt, their names hidden; what is chosen is counted, and shown on demand.
_VOTE = """
const data=JSON.parse(document.getElementById('data').textContent),tally={};let now;
const pick=n=>Math.floor(Math.random()*n),at=id=>document.getElementById(id);
function next(){const p=pick(data.prompts.length);let a=pick(data.names.length),b=pick(data.names.length-1);if(b>=a)b++;
now=[a,b];at('asked').textContent=data.prompts[p];[a,b].forEach((c,i)=>{at('side'+i).src=document.getElementById('p'+c+'-'+p).src})}
function vote(i){const won=now[i],lost=now[1-i];for(const c of now)tally[c]??=[0,0];tally[won][0]++;tally[won][1]++;tally[lost][1]++;
at('tally').innerHTML=Object.entries(tally).sort((x,y)=>y[1][0]/y[1][1]-x[1][0]/x[1][1]).map(([c,[w,n]])=>
'<tr><td>'+data.names[c]+'<td>'+w+' of '+n).join('');next()}
document.addEventListener('keydown',e=>{if(e.key==='ArrowLeft')vote(0);if(e.key==='ArrowRight')vote(1)});
if(data.names.length>1)next();else at('vote').hidden=true;
"""


def page(name: str, made: Evaluation, train: Sequence[Pixels]) -> str:
    """The report of a style's evaluation."""
    best = made.best
    data = {
        "prompts": [each.shown for each in made.asked],
        "names": [each.candidate.name for each in made.judged],
    }
    parts = [
        f"<h1>{html.escape(name)}: {len(made.judged)} candidates, {len(made.asked)} prompts</h1>",
        f"<p>Best: <b>{html.escape(best.candidate.name)}</b>, score {best.score:.2f}. "
        "<code>itemforge train publish --config …</code> publishes it.</p>",
        "<p>Style and prompt are 0 where the base model is, 1 where held-out real pictures are. The score is their mean. "
        "Copied: how often the nearest training picture is nearer than the nearest held-out one (half, by chance).</p>",
        f"<h2>Figures</h2><div class=wide>{_table(made)}</div>",
        f"<h2>By epoch</h2><img class=plot src='{_plot(made)}' alt='style and prompt by epoch'>",
        f"<h2>Every picture</h2><div class=wide>{_grid(made)}</div>",
        f"<h2>Nearest to a training picture</h2><p>Left what the best candidate drew, right what it was shown.</p>{_pairs(made, train)}",
        "<div id=vote><h2>Blind vote</h2><p>Which is better: <b id=asked></b>? (Keys ← and →.)</p>"
        "<button onclick='vote(0)'><img id=side0 alt='first'></button><button onclick='vote(1)'><img id=side1 alt='second'></button>"
        "<table id=tally></table></div>",
    ]
    told = json.dumps(data).replace("<", "\\u003c")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(name)}: evaluation</title><style>{_STYLE}</style>"
        f"{''.join(parts)}<script type=application/json id=data>{told}</script><script>{_VOTE}</script></html>"
    )


def _table(made: Evaluation) -> str:
    checks = list(made.floor.checks)
    heads = ["", "score", "style", "prompt", "distance (MMD²)", "prompt, as measured", "copied", *checks]
    ends = ("", "") if made.floor.prompt is None else ("0.00", "1.00")
    ceiling = [
        "real pictures (ceiling)",
        "",
        "1.00",
        ends[1],
        f"{made.style_ceiling:.4f}",
        _two(made.prompt_ceiling),
    ]
    rows = [
        _row(["base, without the LoRA (floor)", "", "0.00", ends[0], *_measured(made.floor)]),
        _row([*ceiling, *[""] * (1 + len(checks))]),
    ]
    for each in made.judged:
        cells = [each.candidate.name, _two(each.score), _two(each.style), _two(each.prompt)]
        rows.append(_row([*cells, *_measured(each.figures)], "best" if each is made.best else ""))
    return f"<table><tr>{''.join(f'<th>{html.escape(h)}' for h in heads)}</tr>{''.join(rows)}</table>"


def _measured(figures: Figures) -> list[str]:
    shares = [figures.copied, *figures.checks.values()]
    return [f"{figures.style:.4f}", _two(figures.prompt), *map(_share, shares)]


def _row(cells: Sequence[str], kind: str = "") -> str:
    return f"<tr class='{kind}'>{''.join(f'<td>{html.escape(cell)}' for cell in cells)}</tr>"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _grid(made: Evaluation) -> str:
    heads = ["<th>", "<th>base", *(f"<th>{html.escape(each.candidate.name)}" for each in made.judged)]
    rows = []
    for n, asked in enumerate(made.asked):
        cells = [f"<td>{html.escape(asked.shown)}", f"<td>{_picture(made.base[n], f'base-{n}')}"]
        for number, each in enumerate(made.judged):
            kind = " class=best" if each is made.best else ""
            cells.append(f"<td{kind}>{_picture(each.drawn[n], f'p{number}-{n}')}")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table class=grid><tr>{''.join(heads)}</tr>{''.join(rows)}</table>"


def _pairs(made: Evaluation, train: Sequence[Pixels]) -> str:
    return "".join(
        f"<figure class=pair>{_picture(made.best.drawn[each.drawn])} {_picture(train[each.train])}"
        f"<figcaption>{html.escape(made.asked[each.drawn].shown)}, distance {each.apart:.0f}</figcaption></figure>"
        for each in made.nearest
    )


def _picture(pixels: Pixels, name: str = "") -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    with io.BytesIO() as file:
        image.save(file, "WEBP", quality=85)
        coded = base64.b64encode(file.getvalue()).decode()
    known = f" id={name}" if name else ""
    return f"<img class=p loading=lazy{known} src='data:image/webp;base64,{coded}'>"


def _plot(made: Evaluation) -> str:
    plot = Plot(figsize=(10, 3.6), dpi=100, layout="constrained")
    for axes, what in zip(plot.subplots(1, 2), ("style", "prompt"), strict=True):
        for (kind, weight), line in _lines(made.judged).items():
            points = [
                (each.candidate.epoch, value) for each in line if (value := getattr(each, what)) is not None
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    label=f"{kind} {weight:g}",
                    marker=".",
                    ls="-" if kind == "ema" else ":",
                )
        axes.axhline(0, color="#999", lw=0.8)
        axes.axhline(1, color="#999", lw=0.8)
        axes.set_title(f"{what} (0: base, 1: held-out pictures)", fontsize=10)
        axes.set_xlabel("epoch")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
    with io.BytesIO() as file:
        plot.savefig(file, format="png")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _lines(judged: Sequence[Judged]) -> dict[tuple[str, float], list[Judged]]:
    found: dict[tuple[str, float], list[Judged]] = {}
    for each in judged:
        found.setdefault((each.candidate.kind, each.candidate.weight), []).append(each)
    return found
