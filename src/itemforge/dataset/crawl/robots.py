"""robots.txt as RFC 9309 reads it: the longest rule that fits decides, and `*` and `$` have a meaning.

(`urllib.robotparser` takes the first rule that fits and no wildcards; wikis write theirs with them.)
"""

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

#: More of a file than this is not read (bytes); the RFC asks for as much.
LIMIT = 500 * 1024
#: What our groups are called by.
PRODUCT = "itemforge"
_SAFE = "/*$?&=!'()+,;:@~-._%"


@dataclass
class Robots:
    """The rules that hold for us. `delay` is the seconds between requests that the site asks for."""

    rules: list[tuple[str, bool]] = field(default_factory=list)
    delay: float = 0.0

    def allows(self, url: str) -> bool:
        parts = urlsplit(url)
        path = _normal(parts.path or "/") + (f"?{_normal(parts.query)}" if parts.query else "")
        if path == "/robots.txt":
            return True
        fitting = [(len(rule), allowed) for rule, allowed in self.rules if _fits(rule, path)]
        return max(fitting)[1] if fitting else True


#: For a site whose robots.txt cannot be had because the site itself fails.
NOTHING = Robots([("/", False)])


def read_robots(text: str) -> Robots:
    """The rules of the groups that name us, else of those for everybody."""
    groups: dict[str, Robots] = {}
    named: list[Robots] = []
    open_group = False
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        if key.lower() == "user-agent":
            if not open_group:
                named = []
            named.append(groups.setdefault(value.lower().partition("/")[0].strip(), Robots()))
            open_group = True
            continue
        if key.lower() in ("allow", "disallow"):
            open_group = False
            for group in named if value else []:
                group.rules.append((_normal(value), key.lower() == "allow"))
        elif key.lower() == "crawl-delay":
            open_group = False
            for group in named:
                group.delay = _seconds(value)
    return groups.get(PRODUCT) or groups.get("*") or Robots()


def _seconds(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 60.0)
    except ValueError:
        return 0.0


def _normal(path: str) -> str:
    """One spelling for what may be written with or without percent signs."""
    kept = (
        path.replace("%2F", "%252F").replace("%2f", "%252F").replace("%2A", "%252A").replace("%24", "%2524")
    )
    return quote(unquote(kept, errors="replace"), safe=_SAFE)


def _fits(rule: str, path: str) -> bool:
    # Piece by piece: a regular expression made from a stranger's rule could take for ever.
    anchored = rule.endswith("$")
    first, *rest = rule.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    for n, piece in enumerate(rest):
        if anchored and n == len(rest) - 1:
            return path.endswith(piece) and len(path) - len(piece) >= at
        found = path.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return not anchored or bool(rest) or at == len(path)
