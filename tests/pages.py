"""A page as html.parser reads it, for the tests of several pages."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects elements, cells and text, and checks that elements nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.cells, self.words, self._open = [], [], "", []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("td", "th"):
            self.cells.append(("", dict(attrs).get("class")))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.words += data
        if "td" in self._open or "th" in self._open:
            self.cells[-1] = (self.cells[-1][0] + data, self.cells[-1][1])

    @property
    def texts(self):
        """The text of each cell."""
        return [text for text, _ in self.cells]

    def values(self, *names):
        return [attributes[name] for _, attributes in self.elements for name in names if name in attributes]
