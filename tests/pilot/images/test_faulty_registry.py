"""Registries that fail, lie, hang, never end, or send elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pilot.images import ImageStore, StoreOptions
from tests.pilot.images.building import MANIFEST, Image, digest_of, small_image
from transport.errors import OperatorError, PilotError, UserError

pytestmark = pytest.mark.real
Reply = Callable[["Handler"], bool]
"""Answers a request, and returns whether it did."""


class Server(ThreadingHTTPServer):
    """A registry of one image, with a fault."""

    daemon_threads = True

    def __init__(self, made: Image, fault: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.made = made
        self.fault = fault
        self.asked: list[str] = []
        self.is_over = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def count(self, part: str) -> int:
        return sum(part in path for path in self.asked)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.fault(self):
            return
        _, _, reference = self.path.rpartition("/")
        made = self.server.made
        if "/manifests/" in self.path and reference in ("1", made.digest):
            self.reply(200, made.manifest)
        elif reference in made.blobs:
            self.reply(200, made.blobs[reference])
        else:
            self.reply(404, b"")

    def reply(self, status: int, data: bytes, **headers: str) -> bool:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in {"Content-Type": MANIFEST, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)
        return True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Keep quiet."""


@contextmanager
def serving(made: Image, fault: Reply = lambda handler: False) -> Iterator[Server]:
    """Give a registry that answers until the block ends."""
    with Server(made, fault) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.is_over.set()
            server.shutdown()
            thread.join()


def store_in(tmp_path: Path, timeout_s: float = 60.0, **more: float) -> ImageStore:
    """Make a store with a cache of the test's own."""
    return ImageStore(
        tmp_path / "images",
        StoreOptions(timeout_s=timeout_s, registry_wait_s=5.0, **more),  # type: ignore[arg-type]
    )


def first(times: int, fault: Reply) -> Reply:
    """Make a fault end after some requests."""
    left = [times]

    def reply(handler: Handler) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fault(handler)

    return reply


def of_blobs(fault: Reply) -> Reply:
    """Have a fault in the answers for blobs only."""
    return lambda handler: "/blobs/" in handler.path and fault(handler)


def cut_short(handler: Handler) -> bool:
    """Send half of a blob."""
    data = handler.server.made.blobs[handler.path.rpartition("/")[2]]
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True
    return True


def endless(handler: Handler) -> bool:
    """Send until nobody reads any more."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while not handler.server.is_over.is_set():
            handler.wfile.write(bytes(1 << 16))
    except OSError:
        pass
    return True


def hang(handler: Handler) -> bool:
    """Don't answer."""
    handler.server.is_over.wait()
    return True


async def pulled(store: ImageStore, server: Server) -> str:
    """Return what is in the image that the store makes of this registry's."""
    image = await store.get(f"docker://{server.address}/x:1")
    return (Path(image.path) / "etc/motd").read_text()


@pytest.mark.parametrize(
    "fault",
    [
        first(2, lambda handler: handler.reply(500, b"")),
        first(1, lambda handler: handler.reply(429, b"", Retry_After="1")),
        of_blobs(first(2, cut_short)),
        of_blobs(first(1, lambda handler: handler.reply(503, b""))),
    ],
    ids=["500", "429", "cut short", "503 for a blob"],
)
async def test_what_passes_is_tried_again(fault: Reply, tmp_path: Path) -> None:
    """A registry that is busy for a moment costs a moment."""
    with serving(small_image(), fault) as server:
        assert await pulled(store_in(tmp_path), server) == "hello"


async def test_attempts_are_bounded(tmp_path: Path) -> None:
    """A registry that is broken is asked four times, and is the operator's affair."""
    with serving(small_image(), lambda handler: handler.reply(500, b"")) as server:
        with pytest.raises(OperatorError, match="failed 4 times: it answers 500"):
            await pulled(store_in(tmp_path), server)
        assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (of_blobs(lambda handler: handler.reply(200, b"other")), "the registry sends"),
        (of_blobs(endless), "more than"),
        (endless, "more than"),
        (of_blobs(lambda handler: handler.reply(404, b"")), "has no such image"),
        (lambda handler: handler.reply(403, b""), "doesn't give it to everybody"),
        (lambda handler: handler.reply(401, b""), "wants a login"),
        (lambda handler: handler.reply(200, b"{"), "manifest can't be read"),
        (lambda handler: handler.reply(200, b"[" * 100_000), "manifest can't be read"),
        (lambda handler: handler.reply(200, b'{"schemaVersion": 1}'), "schema 1"),
    ],
)
async def test_what_the_job_must_change(fault: Reply, problem: str, tmp_path: Path) -> None:
    """A wrong image is a sentence for the job's owner, and leaves nothing in the cache."""
    with serving(small_image(), fault) as server, pytest.raises(UserError, match=problem):
        await pulled(store_in(tmp_path), server)
    assert list((tmp_path / "images/entries").iterdir()) == []
    assert list((tmp_path / "images").glob("filling-*")) == []


@pytest.mark.parametrize("fault", [hang, of_blobs(hang)], ids=["at once", "in a blob"])
async def test_a_hung_registry_costs_its_deadline(fault: Reply, tmp_path: Path) -> None:
    """All that wait get the one answer; none begins to wait anew."""
    store = store_in(tmp_path, timeout_s=2.0)
    with serving(small_image(), fault) as server:
        for _ in range(3):
            with pytest.raises(OperatorError, match="could not be had in 2 s"):
                await pulled(store, server)
        assert server.count("/manifests/") == 1


async def test_a_redirect_is_followed_without_the_token(tmp_path: Path) -> None:
    """Registries send to a storage of another host, which isn't to see the token."""
    seen: list[str | None] = []
    made = small_image()

    def storage(handler: Handler) -> bool:
        seen.append(handler.headers.get("Authorization"))
        return handler.reply(200, made.blobs[handler.path.rpartition("/")[2]])

    with serving(made, storage) as other:

        def redirect(handler: Handler) -> bool:
            if handler.path.startswith("/token"):
                return handler.reply(200, b'{"token": "t0ken"}')
            if handler.headers.get("Authorization") != "Bearer t0ken":
                realm = f'Bearer realm="http://{handler.server.address}/token",service="s"'
                return handler.reply(401, b"", WWW_Authenticate=realm)
            place = f"http://{other.address}/{handler.path.rpartition('/')[2]}"
            return "/blobs/" in handler.path and handler.reply(307, b"", Location=place)

        with serving(made, redirect) as server:
            assert await pulled(store_in(tmp_path), server) == "hello"
            assert server.count("/token?service=s") == 1
    assert seen == [None, None]


async def test_a_ring_of_redirects_ends(tmp_path: Path) -> None:
    """After five."""
    with serving(
        small_image(), lambda handler: handler.reply(302, b"", Location=handler.path)
    ) as server:
        with pytest.raises(OperatorError, match="redirects more than 5 times"):
            await pulled(store_in(tmp_path), server)
        assert len(server.asked) == 6


async def test_a_tag_is_looked_up_now_and_then(tmp_path: Path) -> None:
    """Within its time it is what it was; later it is what the registry says."""
    time = [1000.0]
    store = ImageStore(
        tmp_path / "images", StoreOptions(timeout_s=60, tag_fresh_s=600), now=lambda: time[0]
    )
    with serving(small_image("old")) as server:
        # The helper has the real clock: what it has looked up is newer than any of these times.
        assert await pulled(store, server) == "old"
        server.made = small_image("new")
        assert await pulled(store, server) == "old"
        assert server.count("/manifests/") == 1
        time[0] = 1e11
        assert await pulled(store, server) == "new"
        assert server.count("/manifests/") == 2


async def test_without_the_registry_what_is_here_still_runs(tmp_path: Path) -> None:
    """By digest nobody is asked; a tag that can't be looked up is what it was."""
    time = [1000.0]
    options = StoreOptions(timeout_s=60, registry_wait_s=2)
    store = ImageStore(tmp_path / "images", options, now=lambda: time[0])
    made = small_image()
    with serving(made) as server:
        assert await pulled(store, server) == "hello"
    time[0] = 1e11
    address = server.address

    by_digest = await store.get(f"docker://{address}/x@{made.digest}")
    required = await store.get(f"docker://{address}/x:1", digest=made.digest)
    by_tag = await store.get(f"docker://{address}/x:1")
    assert by_digest.digest == required.digest == by_tag.digest == made.digest
    with pytest.raises(PilotError, match="can't be used"):
        await store.get(f"docker://{address}/x@{digest_of(b'')}")
