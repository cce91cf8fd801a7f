"""The documents: a link to another of them leads somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md")]


def _anchors(document: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_documents_lead_somewhere() -> None:
    lost = []
    for document in DOCUMENTS:
        for file, anchor in re.findall(r"\]\(([^)#\s:]*)(?:#([^)\s]*))?\)", document.read_text()):
            target = document.parent / file if file else document
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
                lost.append(f"{document.relative_to(ROOT)}: {file}#{anchor}")
    assert len(DOCUMENTS) > 20 and not lost
