"""The files of the page, read once. Only what is in this table is ever served."""

from importlib.resources import files

# By hand, not by `mimetypes`: that asks the system, which may call JavaScript
# plain text, and browsers run no such script.
_HTML = "text/html; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
_PAGES = {
    "/": ("index.html", _HTML),
    "/docs": ("docs.html", _HTML),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page/app.js": ("app.js", _SCRIPT),
    "/page/docs.js": ("docs.js", _SCRIPT),
    "/page/figure.js": ("figure.js", _SCRIPT),
    "/page/player.js": ("player.js", _SCRIPT),
    "/page/recorder.js": ("recorder.js", _SCRIPT),
    "/page/tap.js": ("tap.js", _SCRIPT),
    "/page/text.js": ("text.js", _SCRIPT),
}


def pages() -> dict[str, tuple[bytes, str]]:
    """Read the page's files.

    Returns:
        Content and media type for each address.
    """
    folder = files("unfreeze.serve") / "page"
    return {url: ((folder / name).read_bytes(), kind) for url, (name, kind) in _PAGES.items()}
