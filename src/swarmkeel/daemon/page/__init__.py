"""The status page: static files of this package, read once, that live by `/api/v1/`."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

_INDEX: Final = "index.html"
_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def page_routes() -> list[web.RouteDef]:
    """Give the routes of the page at `/` and of its parts at `/page/`."""
    names = sorted(file.name for file in files(__name__).iterdir() if _content_type(file.name) is not None)
    return [web.get("/" if name == _INDEX else f"/page/{name}", _serve(name)) for name in names]


def _serve(name: str) -> Handler:
    async def serve(request: web.Request) -> web.Response:
        content, tag = _read(name)
        known = {wanted.value for wanted in request.if_none_match or ()}
        headers = {"Cache-Control": "no-cache", "ETag": f'"{tag}"'}
        if tag in known:
            return web.Response(status=304, headers=headers)
        answer = web.Response(body=content, content_type=_content_type(name), charset="utf-8", headers=headers)
        answer.enable_compression()
        return answer

    return serve


@cache
def _read(name: str) -> tuple[bytes, str]:
    content = files(__name__).joinpath(name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:32]


def _content_type(name: str) -> str | None:
    return _TYPES.get(name[name.rfind(".") :])
