import socket
from collections.abc import Iterator

import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from app import server
from app.server import bind, is_foreign, make_app
from tests.app.conftest import built
from trainer.errors import UsageError
from trainer.home import Home

HERE = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("served") / "home")
    for folder, name in ((home.datasets, "private.txt"), (home.pictures, "shown.txt")):
        folder.mkdir(parents=True)
        (folder / name).write_text(name)
    return home


@pytest.fixture(scope="module")
def client(served: Home) -> Iterator[TestClient]:
    with TestClient(built(lambda: make_app(served)), base_url=HERE) as client:
        yield client


def test_the_page_itself_is_served_and_asks_for_nothing_elsewhere(client: TestClient) -> None:
    page = client.get("/", headers={"sec-fetch-site": "none", "sec-fetch-mode": "navigate"})
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/favicon.ico").content.lstrip().startswith(b"<svg")
    assert client.get("/config", headers={"origin": HERE, "sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.com", "evil.com:7860", "127.0.0.1.evil.com", "[::1]", "[::1]:7860", "0.0.0.0", ""])
def test_another_host_name_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/config", headers={"host": host, "origin": "http://evil.com"})
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["http://evil.com", "null", "http://127.0.0.1:1", "https://127.0.0.1:7860", "http://localhost:7860"]
)
@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/call/show"])
def test_another_origin_cannot_run_anything(client: TestClient, path: str, origin: str) -> None:
    answer = client.post(path, json={"data": [], "fn_index": 0, "session_hash": "x"}, headers={"origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.com"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}]
)
def test_another_site_cannot_upload(client: TestClient, headers: dict[str, str]) -> None:
    refused = client.post("/gradio_api/upload", files={"files": ("a.png", b"x")}, headers=headers)
    assert refused.status_code == 403
    assert client.post("/gradio_api/upload", files={"files": ("a.png", b"x")}, headers={"origin": HERE}).status_code == 200


def test_an_upload_has_a_largest_size(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.app.routes[-1].app.get_blocks(), "max_file_size", 10)  # type: ignore[attr-defined]
    too_large = client.post("/gradio_api/upload", files={"files": ("a.png", b"x" * 100)}, headers={"origin": HERE})
    assert too_large.status_code == 413


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "../../etc/passwd"])
def test_no_file_of_the_machine_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_of_the_home_only_shown_pictures_are_served(client: TestClient, served: Home) -> None:
    assert client.get(f"/gradio_api/file={served.pictures / 'shown.txt'}").status_code == 200
    assert client.get(f"/gradio_api/file={served.datasets / 'private.txt'}").status_code in (403, 404)
    assert client.get(f"/gradio_api/file={served.pictures}/../datasets/private.txt").status_code in (403, 404)


@pytest.mark.parametrize(
    ("method", "headers", "foreign"),
    [
        ("GET", {}, False),
        ("POST", {}, False),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, True),
        ("GET", {"origin": "http://evil.com"}, True),
        ("POST", {"origin": "http://LOCALHOST:7860", "host": "localhost:7860"}, False),
    ],
)
def test_is_foreign(method: str, headers: dict[str, str], foreign: bool) -> None:
    assert is_foreign(method, Headers(headers)) is foreign


def test_a_port_that_is_taken_is_passed_over_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} is in use"):
            bind(port)
        monkeypatch.setattr(server, "FIRST_PORT", port)
        with bind(None) as other:
            assert other.getsockname()[1] != port
            assert other.getsockname()[0] == "127.0.0.1"
