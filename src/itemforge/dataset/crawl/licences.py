"""The licence of a file, read from the wikitext of its page.

MediaWiki by itself knows no licences: `extmetadata` has one only where an extension puts it there. What wikis
have are templates on the file's page: `{{Licence|MIT}}`, `{{CC-BY-SA-4.0}}`, `{{self|GFDL}}`, or whatever stands below
the heading "Licensing", which is where the upload form writes it.
"""

import re

from itemforge.dataset.crawl.wiki import clean

#: Characters of a page that are looked at.
_LOOKED_AT = 100_000
#: A template without templates in it. Its parts cannot have braces, so nothing is tried twice.
_TEMPLATE = re.compile(r"\{\{([^{}]{1,1000})\}\}")
_SAYS = re.compile(
    r"licen[cs]e|licen[cs]ing|lizenz|licence|licencia|licença|licenza|licentie|licencja|лицензия|ライセンス|许可协议",
    re.IGNORECASE,
)
#: Templates that are named after what they stand for.
_LICENCES = re.compile(
    r"cc[- ]?(by|0|zero|sa|nc)\b.*|(attribution|cc)|pd\b.*|public domain|gfdl\b.*|l?gpl\b.*|agpl\b.*|mit\b.*|apache\b.*|bsd\b.*|"
    r"(ofl|artlibre|fal|wtfpl)\b.*|fair ?use\b.*|non-?free\b.*|copyright(ed)?\b.*|permission\b.*|no (license|licence)|"
    r"from ?wikimedia\b.*|wikimedia|own work|game ?(image|screenshot|art)\b.*",
    re.IGNORECASE,
)
#: Templates that hold the licence as their first part.
_HOLDING = re.compile(r"self\b.*", re.IGNORECASE)
_HEADING = re.compile(r"^=+[ \t]*([^=\n]{1,200}?)[ \t]*=+[ \t]*$", re.MULTILINE)
_LINK = re.compile(r"\[\[(?:[^\[\]|]{0,300}\|)?([^\[\]|]{0,300})\]\]|\[https?://\S{1,500} ([^\[\]]{1,300})\]")


def licence_of(text: str) -> str:
    """What a file's page says of its licence; empty if it says nothing.

    >>> licence_of("A cup. {{Licence|1=[[MIT License|MIT]]}}")
    'MIT'
    """
    text = _without(_without(text[:_LOOKED_AT], "<!--", "-->"), "<nowiki>", "</nowiki>")
    templates = [_parts(found[1]) for found in _TEMPLATE.finditer(_LINK.sub(lambda f: f[1] or f[2], text))]
    for name, parts in templates:
        if _SAYS.fullmatch(name) and parts:
            return parts[0]
    for name, parts in templates:
        if _LICENCES.fullmatch(name):
            return name
        if _HOLDING.fullmatch(name) and parts:
            return parts[0]
    return _below_heading(text)


def _without(text: str, start: str, end: str) -> str:
    """What is outside of these marks. (A regular expression would look for each end from each start.)"""
    kept, at = [], 0
    while (opened := text.find(start, at)) >= 0:
        kept.append(text[at:opened])
        closed = text.find(end, opened + len(start))
        at = closed + len(end) if closed >= 0 else len(text)
    return "".join([*kept, text[at:]])


def _parts(template: str) -> tuple[str, list[str]]:
    """A template's name, and the parts that say something; `1=` before one is left off."""
    name, *parts = template.split("|")
    said = [clean(re.sub(r"^\s*\w{1,20}\s*=", "", part), 200) for part in parts]
    return clean(name.replace("_", " "), 200), [part for part in said if part]


def _below_heading(text: str) -> str:
    """The first template, else the first line, below a heading that speaks of licences."""
    for heading in _HEADING.finditer(text):
        if _SAYS.search(heading[1]):
            below = _HEADING.split(text[heading.end() :], maxsplit=1)[0].strip()
            if found := _TEMPLATE.search(below):
                name, parts = _parts(found[1])
                return " ".join([name, *parts[:1]])[:200]
            line = below.partition("\n")[0]
            return clean(_LINK.sub(lambda f: f[1] or f[2], line), 200) if "[[Category:" not in line else ""
    return ""
