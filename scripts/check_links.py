"""Whether every link within a built site leads somewhere; what leads out of it is listed, and not fetched.

python scripts/check_links.py build/docs
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page, and where it leads."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes one tag."""
        given = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        self.links += [value for name in ("href", "src") if (value := given.get(name))]


def check(folder: Path) -> tuple[list[str], set[str]]:
    """Lines about links that lead nowhere, and the addresses outside of the site."""
    made = (path for path in folder.rglob("*.html") if "_static" not in path.parts)  # there templates of the theme lie
    pages = {path.resolve(): Page(path) for path in made}
    broken, outside = [], set()
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                outside |= {link} if parts.scheme in ("http", "https") else set()
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(folder.resolve())}: {link} leads nowhere")
    return broken, outside


def main(folder: str) -> int:
    """Prints what it found; 1 where a link leads nowhere."""
    broken, outside = check(Path(folder))
    print("\n".join([*(f"outside, not looked at: {link}" for link in sorted(outside)), *sorted(set(broken))]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
