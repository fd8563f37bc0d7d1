"""Reads a page that was written, as far as tests look at it."""

import base64
from html.parser import HTMLParser


class Reader(HTMLParser):
    """Collects tags and text; knows no entity that is not decoded."""

    def __init__(self, html=""):
        super().__init__()
        self.tags, self.text = [], []
        self.rows, self._cell = [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._cell is not None:
            self.rows[-1].append("".join(self._cell))
            self._cell = None

    def handle_data(self, data):
        self.text.append(data)
        if self._cell is not None:
            self._cell.append(data)

    def of(self, tag):
        """The attributes of each tag of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self):
        """The text, with plain blanks."""
        return " ".join("".join(self.text).replace("\u2009", " ").split())

    def row(self, first):
        """The cells of the last row that begins with a name."""
        return next(row for row in reversed(self.rows) if row and row[0] == first)


def content(url):
    """The media type and the bytes of a data URL."""
    kind, _, data = url.partition(";base64,")
    return kind, base64.b64decode(data)
