"""`rlagents watch`: a folder of runs as a page in the browser, while the agents still learn.

This process reads files and serves them. It imports neither torch nor an environment; training
episodes are rebuilt by processes of their own.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import platform
import secrets
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from urllib.parse import quote

from rlagents.errors import UsageError

FIRST_PORT = 8420
_MORE_PORTS = 100
_LOCAL_HOST = "127.0.0.1"
_GRACE_S = 2  # for answers under way when the server is stopped


def serve(
    runs_dir: Path,
    *,
    port: int | None = None,
    host: str | None = None,
    token: str | None = None,
    open_page: bool | None = None,
    allow_import: bool = False,
) -> None:
    """Serve the page until Ctrl-C or a signal.

    Args:
        runs_dir: the folder of runs; of a run's own folder, the one that it lies in, and the page
            of that run.
        port: to listen on, 0 for any that is free; the first free one from 8420 on if None.
        host: name or address to listen on; this machine alone can ask if None.
        token: that a browser must show; needed if other machines can ask.
        open_page: whether to open a browser; if there is a screen and somebody at it if None.
        allow_import: whether environments that are code named in a run's config may be imported to
            rebuild training episodes.

    Raises:
        UsageError: there is no such folder, the port is taken, or a token is missing.
    """
    import uvicorn

    from rlagents.signals import StopSignal
    from rlagents.watch.app import LOOPBACK, create_app

    if not os.path.isdir(runs_dir):  # False also for a name that is too long
        raise UsageError(
            f"There is no folder {runs_dir} to watch; name a folder of runs, or train an agent, "
            "which makes the folder runs: rlagents train cartpole-dqn"
        )
    page = "/"
    if (runs_dir / "config.json").is_file():
        runs_dir = runs_dir.resolve()
        page, runs_dir = f"/run/{quote(runs_dir.name, safe='')}", runs_dir.parent
    allowed = [*LOOPBACK]
    if host is not None:
        allowed.append(host)
    if is_loopback(host or _LOCAL_HOST):
        _check_token(token, needed=False)
    else:
        _check_token(token, needed=True)
        allowed += own_names()
    listener = listen(host or _LOCAL_HOST, port)
    app = create_app(runs_dir, token=token, allow_import=allow_import, allowed_hosts=allowed)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
            ws="none",  # whatever is installed: nothing here is asked in that way
        )
    )
    address = _url_host(host or _LOCAL_HOST)
    query = "" if token is None else f"?token={token}"
    url = f"http://{address}:{listener.getsockname()[1]}{page}{query}"
    print(f"watching {runs_dir} at {url} (Ctrl-C ends)", flush=True)
    if has_screen() if open_page is None else open_page:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    # uvicorn ends in an orderly way on a signal, and then passes it on.
    with StopSignal(count=False), listener:
        server.run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can ask a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _check_token(token: str | None, *, needed: bool) -> None:
    from rlagents.watch.guard import is_token

    if is_token(token or "") or (token is None and not needed):
        return
    why = "other machines can ask this server, so it" if needed else "it"
    got = "none" if token is None else "one that is too short or has other characters"
    # A hyphen in front would look like an option.
    proposed = f"t{secrets.token_urlsafe(24)}"
    raise UsageError(
        f"--token: {why} must be 16 to 200 letters, digits, - and _, got {got}. Here is a random "
        f"one: --token {proposed}"
    )


def own_names() -> list[str]:
    """Return the names and addresses that this machine is called by."""
    import psutil

    names = {platform.node(), socket.gethostname()}
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                names.add(one.address.partition("%")[0])
    return sorted(names | {f"{name}.local" for name in (platform.node(),) if "." not in name})


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens on a port, on the first free one from 8420 on if None.

    Raises:
        UsageError: the port is taken, or the host is none of this machine's.
    """
    ports = range(FIRST_PORT, FIRST_PORT + _MORE_PORTS) if port is None else [port]
    for candidate in ports:
        try:
            return _listen(host, candidate)
        except socket.gaierror:
            raise UsageError(
                f"--host: expected a name or an address of this machine, got {host!r}."
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno == errno.EADDRINUSE:
                raise UsageError(
                    f"--port: {candidate} is in use; choose another, or leave --port out for the "
                    "first free one."
                ) from None
            raise UsageError(
                f"--host, --port: cannot listen on {host} port {candidate} ({error.strerror}); "
                "choose others."
            ) from None
    raise UsageError(f"No port from {ports[0]} to {ports[-1]} is free; choose one with --port.")


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # there it would take a port from another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # at once: until then another program could take the port as well
    except OSError:
        listener.close()
        raise
    return listener


def _url_host(host: str) -> str:
    """Return a host as a URL has it; for all addresses of this machine, its name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return platform.node()
    return f"[{host}]" if address.version == 6 else host


def has_screen() -> bool:
    """Tell whether somebody sits at a terminal of a machine with a screen."""
    if not sys.stdout.isatty():
        return False
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
