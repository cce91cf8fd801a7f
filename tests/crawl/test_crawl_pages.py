"""What a page of HTML gives: originals behind lazy pictures and thumbnails, and the names beside them."""

import pytest
from fake_wiki import CHALLENGE, FakeWiki, Mood, drawn

from itemforge.dataset.crawl.originals import original
from itemforge.dataset.crawl.pages import is_challenge, read_page
from itemforge.dataset.store import open_store

WIKIA = "https://static.wikia.nocookie.net/game/images/a/ab/F.png/revision/latest"


@pytest.mark.parametrize(
    ("thumb", "whole"),
    [
        (f"{WIKIA}/scale-to-width-down/120?cb=1", f"{WIKIA}?cb=1&format=original"),
        (f"{WIKIA}/top-crop/width/40/height/30?cb=1&fill=x", f"{WIKIA}?cb=1&format=original"),
        (
            f"{WIKIA}/thumbnail/width/9/height/9?cb=1&path-prefix=de",
            f"{WIKIA}?cb=1&path-prefix=de&format=original",
        ),
        (f"{WIKIA}/zoom-crop/width/9/height/9", f"{WIKIA}?format=original"),
        (f"{WIKIA}?cb=1&format=webp", f"{WIKIA}?cb=1&format=original"),
        ("https://W.org/images/thumb/a/ab/F.png/120px-F.png", "https://w.org/images/a/ab/F.png"),
        ("https://w.org/images/thumb/a/ab/F.svg/120px-F.svg.png", "https://w.org/images/a/ab/F.svg"),
        ("https://w.org/images/thumb/F.png/120px-F.png#x", "https://w.org/images/F.png"),
        (
            "https://w.org/images/a/ab/It%27s_%C3%A9.png?2020",
            "https://w.org/images/a/ab/It's_%C3%A9.png?2020",
        ),
        ("https://w.org/thumb/notes.png", "https://w.org/thumb/notes.png"),
    ],
)
def test_thumbnails_lead_to_their_originals(thumb: str, whole: str) -> None:
    assert original(thumb) == whole
    assert original(whole) == whole


def items(body: str) -> dict[str, tuple[str, str]]:
    page = read_page(f"<h1>Weapons</h1>{body}", "https://w.org/wiki/Weapons")
    return {
        seen.title.removeprefix("File:").removesuffix(".png"): (seen.item, seen.section)
        for seen in page.pictures
    }


def image(name: str) -> str:
    return f'<a href="/wiki/File:{name}.png" class="image"><img src="/images/thumb/a/ab/{name}.png/9px-{name}.png"></a>'


def test_names_come_from_the_column_that_says_so() -> None:
    table = (
        "<h2>Blades</h2><table><tr><th>Level</th><th>Picture</th><th>Name</th></tr>"
        f"<tr><td>1</td><td>{image('a')}</td><td><a href='/wiki/Sword'>Short Sword</a><sup>[1]</sup></td></tr></table>"
    )
    assert items(table) == {"a": ("Short Sword", "Blades")}


def test_names_in_cells_that_span() -> None:
    rows = (
        "<table><tr><th colspan=4>All items</th></tr>"
        "<tr><th rowspan=2>Icon</th><th colspan=2>Item</th><th rowspan=2>Price</th></tr>"
        "<tr><th>Name</th><th>Kind</th></tr>"
        f"<tr><td>{image('a')}</td><td rowspan=2>Twin Axes</td><td>left</td><td>5</td></tr>"
        f"<tr><td>{image('b')}</td><td>right</td><td>6</td></tr>"
        f"<tr><td rowspan=0>{image('c')}</td><td>Bow</td><td>x</td><td>7</td></tr></table>"
    )
    assert {name: item for name, (item, _) in items(rows).items()} == {
        "a": "Twin Axes",
        "b": "Twin Axes",
        "c": "Bow",
    }
    across = (
        "<table><tr><th colspan=2>Name</th><th>Price</th></tr>"
        f"<tr><td>{image('d')}</td><td>Long Bow</td><td>5</td></tr></table>"
    )
    assert items(across) == {"d": ("Long Bow", "")}


def test_names_of_several_things_in_a_row_and_of_tables_on_their_side() -> None:
    pairs = (
        "<table><tr><th>Icon</th><th>Name</th><th>Icon</th><th>Name</th></tr>"
        f"<tr><td>{image('a')}</td><td>Axe</td><td>{image('b')}</td><td>Bow</td></tr></table>"
    )
    side = f"<table><tr><th>Name</th><td>Cup</td><td>Dish</td></tr><tr><th>Icon</th><td>{image('c')}</td><td>{image('d')}</td></tr></table>"
    named = {name: item for name, (item, _) in items(pairs + side).items()}
    assert named == {"a": "Axe", "b": "Bow", "c": "Cup", "d": "Dish"}


def test_where_no_name_stands_the_file_gives_it() -> None:
    empty = (
        "<table><tr><th>Item</th><th>Text</th></tr>"
        f"<tr><td>{image('Iron_Axe')}</td><td>It cuts wood.</td></tr></table>"
    )
    line = f"<ul><li>{image('cup')} <a href='/wiki/Cup'>Golden Cup</a></li><li>{image('x')} and {image('y')}</li></ul>"
    named = {name: item for name, (item, _) in items(empty + line).items()}
    assert named == {"Iron Axe": "Iron Axe", "cup": "Golden Cup", "x": "x", "y": "y"}


def test_galleries_infoboxes_and_headings() -> None:
    body = (
        f'<aside class="portable-infobox"><h2 class="pi-title">Great Sword</h2><figure>{image("a")}</figure></aside>'
        f"<p>{image('p')}</p>"
        f'<h2>Variants</h2><ul class="gallery"><li class="gallerybox"><div class="thumb">{image("b")}</div>'
        '<div class="gallerytext"><p>Red Great Sword</p></div></li></ul>'
        f'<h3>Drawn</h3><div class="wikia-gallery-item"><div class="thumb">{image("c")}</div>'
        '<div class="lightbox-caption">Early sketch</div></div>'
        f"<figure>{image('d')}<figcaption>Statue</figcaption></figure>"
        '<a href="/wiki/Shield" title="Round Shield"><img src="/images/a/ab/e.png"></a>'
    )
    assert items(body) == {
        "a": ("Great Sword", ""),
        "p": ("p", ""),
        "b": ("Red Great Sword", "Variants"),
        "c": ("Early sketch", "Drawn"),
        "d": ("Statue", "Drawn"),
        "e": ("Round Shield", "Drawn"),
    }


def led(name: str, page: str, extra: str = "") -> str:
    return f'<a href="/wiki/{page}" title="{page}{extra}" class="{"new" if extra else ""}"><img src="/images/a/ab/{name}.png"></a>'


def test_ingredients_and_coins_are_called_after_their_own_pages() -> None:
    row = (
        "<table><tr><th>Name</th><th>Icon</th><th>Recipe</th></tr>"
        f"<tr><td>Soup</td><td>{led('a', 'Soup recipe')}{image('b')}</td>"
        f"<td>{led('c', 'Carrot')} 3 {led('d', 'Egg', ' (page does not exist)')}</td></tr></table>"
    )
    box = (
        '<aside class="portable-infobox"><h2 class="pi-title">Bell</h2>'
        f'<figure class="pi-image">{image("e")}</figure><div class="pi-data">{led("f", "Coin")} 30</div></aside>'
    )
    assert {name: item for name, (item, _) in items(row + box).items()} == {
        "a": "Soup",
        "b": "Soup",
        "c": "Carrot",
        "d": "Egg",
        "e": "Bell",
        "f": "Coin",
    }


def test_a_table_in_a_cell_is_called_after_that_cells_row() -> None:
    inner = f"<table><tr><td>{image('a')}</td><td>{image('b')}</td></tr></table>"
    table = f"<table><tr><th>Name</th><th>Views</th></tr><tr><td>Bell</td><td>{inner}</td></tr></table>"
    layout = f"<table><tr><td>Welcome, all</td><td>{inner.replace('a.png', 'c.png')}</td></tr></table>"
    assert items(table) == {"a": ("Bell", ""), "b": ("Bell", "")}
    assert items(layout)["c"] == ("c", ""), "a table that only lays out the page names nothing"


def test_the_largest_of_a_set_and_no_points() -> None:
    page = read_page(
        '<img srcset="/a-1.png 1x, /a-2.png 2x" src="/a-0.png"><img src="data:image/gif;base64,R0lG" data-src="/b.png">'
        '<picture><source srcset="/c-9.webp 900w, /c-1.webp 100w"><img src="/c.png"></picture>'
        '<img src="/point.gif" width=1 height=1><img src="javascript:alert(1)"><img src="http://[bad">',
        "https://w.org/wiki/P",
    )
    assert [seen.url for seen in page.pictures] == [
        "https://w.org/a-2.png",
        "https://w.org/b.png",
        "https://w.org/c-9.webp",
    ]


def test_challenges_are_told_from_pages() -> None:
    assert is_challenge(CHALLENGE)
    assert not is_challenge("<html><title>Sword</title><p>A sword that asks just a moment of you</p></html>")


def test_a_lazy_page_gives_originals(wiki: FakeWiki, out, crawled) -> None:
    wiki.has_api = False
    wiki.add("Iron Sword.png", drawn(1))
    wiki.add("Été's Bow.png", drawn(2))
    pictures = wiki.lazy("Iron Sword.png") + wiki.lazy("Été's Bow.png")
    wiki.pages["Weapons"] = f"<h1>Weapons</h1><h2>All</h2><p>{pictures}<img src='/images/a/ab/Map.svg'></p>"
    report = crawled("/wiki/Weapons")
    assert (report.way, report.found, report.pictures) == ("html", 3, 2)
    assert report.failures == {"not a kind of picture that is taken: svg": 1}
    with open_store(out) as store:
        seen = {
            s.title: (s.item, s.page, s.section) for p in store.pictures() for s in store.sources(p.sha256)
        }
    assert seen["File:Iron Sword.png"] == ("Iron Sword", "Weapons", "All")
    assert seen["File:Été's Bow.png"] == ("Été's Bow", "Weapons", "All")
    wiki.log.clear()
    assert crawled("/wiki/Weapons").fetched == 0
    assert not wiki.pictures_asked()


def test_both_ways_know_a_picture_by_the_same_address(wiki: FakeWiki, out, crawled) -> None:
    wiki.add("It's A.png", drawn(1), page="P")
    wiki.pages["P"] = wiki.lazy("It's A.png")
    crawled("/wiki/P", way="api")
    crawled("/wiki/P", way="html")
    assert wiki.fetched("It's A.png") == 1


def test_a_category_by_its_pages(wiki: FakeWiki, crawled) -> None:
    wiki.has_api = False
    for n in range(3):
        wiki.add(f"I{n}.png", drawn(n))
        wiki.pages[f"Item {n}"] = f"<h1>Item {n}</h1>{wiki.lazy(f'I{n}.png')}"
    wiki.pages["Category:Items"] = (
        '<div id="mw-pages"><ul><li><a href="/wiki/Item_0">0</a></li><li><a href="/wiki/Item_1">1</a></li></ul>'
        '<li><a href="/wiki/Gone">Gone</a></li></div><a class="mw-nextlink" href="/wiki/Category:More">next</a>'
    )
    wiki.pages["Category:More"] = '<div id="mw-pages"><ul><li><a href="/wiki/Item_2">2</a></li></ul></div>'
    report = crawled("/wiki/Category:Items")
    assert (report.way, report.pictures) == ("html", 3)


def test_webp_in_place_of_the_original_is_refused(wiki: FakeWiki, crawled) -> None:
    wiki.has_api = False
    wiki.add("A.png", drawn(1))
    wiki.pages["P"] = wiki.lazy("A.png")
    wiki.mood_of("A.png", lambda h: h.answer(200, drawn(1, 16, "WEBP"), "image/png"))
    assert crawled("/wiki/P").failures == {"WebP in place of the original": 1}


def test_robots_are_honoured(wiki: FakeWiki, crawled) -> None:
    wiki.add("A.png", drawn(1))
    wiki.pages["P"] = wiki.lazy("A.png")
    wiki.robots = "User-agent: *\nDisallow: /\n\nUser-agent: ItemForge\nDisallow: /*.php\nDisallow: /game/\nCrawl-delay: 0\n"
    report = crawled("/wiki/P")
    assert report.failures == {"robots.txt does not allow it": 1}
    assert not wiki.pictures_asked()
    assert not [each for each in wiki.log if each.path.endswith("api.php")]


def test_a_challenge_is_no_page(wiki: FakeWiki, crawled, notes: list[str]) -> None:
    wiki.has_api = False
    wiki.moods["/wiki/P"] = Mood(lambda h: h.answer(403, CHALLENGE.encode()))
    with pytest.raises(Exception, match="whether a person is there"):
        crawled("/wiki/P", way="html")
