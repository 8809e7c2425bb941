"""What every request must pass, and what every answer says, before the page's routes are asked.

The server reads files of whoever started it, so it answers only to the page that it serves itself:
it is asked by its own names (a foreign Host is how a page from elsewhere would reach it, "DNS
rebinding"), with the token where other machines can reach it, and never across origins.
"""

from __future__ import annotations

import hmac
import html
import re
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Plotly sets styles on its elements, so styles in the page are allowed; scripts are not.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+)(?::\d+)?")  # a name or address, a port
_LOCAL_PATH = re.compile(r"/(?![/\\]).*")  # others lead to another machine
# A page of our own rather than a redirect: after a link on another site, a browser would leave out
# the cookie on the way to where a redirect leads.
_ENTER = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={target}">'
    "<title>rlagents</title>"
)


def is_token(text: str) -> bool:
    """Tell whether a text can be a token: it stands in a URL and in a cookie as it is."""
    return _TOKEN.fullmatch(text) is not None


class Guard:
    """Refuses what is not from the page itself, and adds headers to every answer.

    Args:
        app: what answers.
        allowed_hosts: names and addresses that the server may be asked by, without ports.
        token: what a browser must show, None where only this machine can ask.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str], token: str | None) -> None:
        self._app = app
        self._allowed_hosts = {_bare(host) for host in allowed_hosts}
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added: dict[str, str] = {}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in (_HEADERS | added).items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "private, no-cache")
            await send(message)

        answer = self._refuse(scope, added) or self._app
        await answer(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope, added: dict[str, str]) -> Response | None:
        """Return the answer if it is not the app's."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        match = _HOST.fullmatch(host)
        if match is None or _bare(match[1]) not in self._allowed_hosts:
            return _problem(
                scope,
                400,
                f"This server is not called {host!r}. Open the address that rlagents watch printed "
                "when it started.",
            )
        if scope["method"] not in ("GET", "HEAD") and not _is_own(headers, host):
            return _problem(scope, 403, "Only the page of this server itself may ask for that.")
        return None if self._token is None else self._check_token(scope, self._token, added)

    @staticmethod
    def _check_token(scope: Scope, token: str, added: dict[str, str]) -> Response | None:
        request = Request(scope)
        # Cookies are shared by all ports of a machine, and each server has a token of its own.
        cookie = f"rlagents_{(scope.get('server') or ('', 0))[1]}"
        if not _equal(request.query_params.get("token", ""), token):
            if _equal(request.cookies.get(cookie, ""), token):
                return None
            return _problem(
                scope,
                401,
                "This server needs its token: open the address with ?token=… that rlagents watch "
                "printed when it started.",
            )
        added["Set-Cookie"] = f"{cookie}={token}; Path=/; HttpOnly; SameSite=Strict"
        if _is_api(scope):  # a program asks, which needs no way in
            return None
        rest = [(key, value) for key, value in request.query_params.multi_items() if key != "token"]
        path = scope.get("raw_path", b"/").decode("latin-1")
        target = path if _LOCAL_PATH.fullmatch(path) else "/"
        target += f"?{urlencode(rest)}" if rest else ""
        return HTMLResponse(_ENTER.format(target=html.escape(target)))


def _bare(host: str) -> str:
    """Return a host's name as it is compared: an address of IPv6 without its brackets."""
    return host.lower().rstrip(".").removeprefix("[").removesuffix("]")


def _is_own(headers: Headers, host: str) -> bool:
    """Tell whether a browser says that a page of this server asks, or no browser does."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == host
    except ValueError:  # it is no address
        return False


def _equal(given: str, token: str) -> bool:
    """Compare in a time that tells nothing about the token."""
    return hmac.compare_digest(given.encode(), token.encode())


def _is_api(scope: Scope) -> bool:
    return str(scope["path"]).startswith("/api/")


def _problem(scope: Scope, status: int, sentence: str) -> Response:
    if _is_api(scope):
        return JSONResponse({"error": sentence}, status)
    return PlainTextResponse(sentence, status)
