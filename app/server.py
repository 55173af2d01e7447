"""The page's web server: on this machine only, for this machine's own page only.

A browser lets any web site send requests to 127.0.0.1. So every request must name this machine as its host (a foreign name
means DNS rebinding) and must come from the page itself (a foreign origin means another site). Knows nothing of the page's
content.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import webbrowser
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.errors import UsageError, storing
from trainer.home import Home, shipped

HOST = "127.0.0.1"
FIRST_PORT = 7860
TRIES = 20
LARGEST_UPLOAD = 2**20
"""Bytes of a file that is given to Gradio: nothing in the page does that. What is dropped goes to `workbench`."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""The page loads from and talks to itself alone, whatever text it shows."""


def serve(home: Home, port: int | None, browser: bool) -> None:
    """Run the page until it is interrupted. Raises `UsageError` if `port` is taken, `StorageError`."""
    with storing(home.root):
        home.root.mkdir(parents=True, exist_ok=True)
    listening = bind(port)
    app = make_app(home)
    server = _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, lifespan="on"), browser)
    server.run(sockets=[listening])


def bind(port: int | None) -> socket.socket:
    """A socket on `port`, or else on the first free one from 7860 on. Raises `UsageError`."""
    for candidate in (port,) if port else (*range(FIRST_PORT, FIRST_PORT + TRIES), 0):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if sys.platform == "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, candidate))
            listening.listen()  # two programs can bind a port that neither listens on yet
        except OSError as error:
            listening.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            return listening
    raise UsageError(f"Port {port} is in use or not permitted: choose another with --port, or leave --port out.")


def make_app(home: Home) -> FastAPI:
    """The page behind its guards."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(home.cache / "page")  # read when gradio is imported
    import gradio as gr

    from app import painting, studio, ui, workbench

    desk, demo = ui.build(home)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.previewer.unload()
        desk.captioning.stop()

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.add_middleware(OwnPageOnly)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    studio.add(app, desk)
    workbench.add(app, desk)
    painting.add(app, desk)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        demo,
        path="/",
        server_name=HOST,
        allowed_paths=[str(folder) for folder in ui.served(home)],
        favicon_path=str(shipped("assets", "page", "icon.svg")),
        max_file_size=LARGEST_UPLOAD,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        js=shipped("assets", "page", "page.js").read_text(encoding="utf-8"),
        theme=ui.theme(),
        css_paths=[shipped("assets", "page", name) for name in ("style.css", "studio.css", "studio-work.css")],
    )
    return mounted


class OwnPageOnly:
    """Refuses with 403 what another site's page sends, and forbids the page itself to load or send anything elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http" or is_foreign(scope["method"], Headers(scope=scope)):
            await PlainTextResponse("This page takes requests from itself only.", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, _with_policy(send))


def is_foreign(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a request was caused by a page of another site. Following a link to the page is not.

    Browsers name the origin of every cross-origin request that could change or read something; programs name none.
    """
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{headers.get('host', '').lower()}":
        return True
    if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
        return False
    return method not in ("GET", "HEAD") or headers.get("sec-fetch-mode") != "navigate"


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = POLICY
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "same-origin"
        await send(message)

    return sending


class _Server(uvicorn.Server):
    """Tells its address once it answers there."""

    def __init__(self, config: uvicorn.Config, browser: bool) -> None:
        super().__init__(config)
        self._browser = browser

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.should_exit or not sockets:
            return
        address = f"http://{HOST}:{sockets[0].getsockname()[1]}"
        print(f"Impasto is open at {address} (Ctrl+C here closes it; a training goes on)", flush=True)
        if self._browser:
            webbrowser.open(address)
