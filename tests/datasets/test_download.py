"""Downloads from a server on this machine: whole and verified, or not there at all."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from idl_datasets import download, is_ready, load

pytestmark = pytest.mark.usefixtures("no_net")


class Server:
    """Serves `files` and remembers what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path.lstrip("/"))
                data = outer.files.get(outer.asked[-1])
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def mnist_server(
    server: Server,
    tmp_path: Path,
    write_mnist: Callable[..., Path],
    mnist_arrays: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> Server:
    """A server of a small MNIST with the MD5s that torchvision knows; the second mirror."""
    raw = write_mnist(tmp_path / "upstream", mnist_arrays)
    server.files = {path.name: path.read_bytes() for path in raw.iterdir()}
    resources = [(name, hashlib.md5(data).hexdigest()) for name, data in server.files.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/", server.url])
    return server


def test_it_downloads_once(
    mnist_server: Server, tmp_path: Path, mnist_arrays: dict[str, np.ndarray]
) -> None:
    root, seen = tmp_path / "deep" / "root", []
    first = load("mnist", root=root, progress=lambda *what: seen.append(what), val_fraction=0)
    assert is_ready("mnist", root)
    np.testing.assert_array_equal(first.train.x[:, 0].numpy(), mnist_arrays["x_train"])
    folder = root / "MNIST" / "raw"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == mnist_server.files
    for name, data in mnist_server.files.items():
        assert (f"downloading {name}", len(data), len(data)) in seen
    assert sorted(mnist_server.asked) == sorted(mnist_server.files)
    load("mnist", root=root)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    load("mnist", root=root)
    assert mnist_server.asked[4:] == ["t10k-labels-idx1-ubyte.gz"]


def test_what_fails_its_checksum_is_not_kept(
    mnist_server: Server, tmp_path: Path, fails: Callable[..., Any]
) -> None:
    name = "train-labels-idx1-ubyte.gz"
    mnist_server.files[name] = gzip.compress(b"a login page")
    with fails("MD5", name, tmp_path / "MNIST" / "raw"):
        load("mnist", root=tmp_path)
    left = {path.name for path in (tmp_path / "MNIST" / "raw").iterdir()}
    assert left < set(mnist_server.files)
    assert name not in left


def test_the_status_of_a_refusal_is_said(
    mnist_server: Server, tmp_path: Path, fails: Callable[..., Any]
) -> None:
    mnist_server.files.clear()
    with fails("404", "data=digits"):
        load("mnist", root=tmp_path)


def test_cifar10_comes_as_its_archive(
    server: Server,
    tmp_path: Path,
    write_cifar10: Callable[..., dict[str, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "cifar-10-python.tar.gz"
    truth = write_cifar10(tmp_path / "upstream", packed=True)
    server.files[name] = (tmp_path / "upstream" / name).read_bytes()
    monkeypatch.setattr(datasets.CIFAR10, "url", server.url + name)
    data = load("cifar10", root=tmp_path / "root", val_fraction=0)
    np.testing.assert_array_equal(data.test.x.numpy(), truth["x_test"])
    assert is_ready("cifar10", tmp_path / "root")


def test_a_silent_server_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., Any]
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes calls, never answers
        mirror = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        monkeypatch.setattr(datasets.MNIST, "mirrors", [mirror])
        with fails("timed out", "data=digits"):
            load("mnist", root=tmp_path / "root")


def test_a_root_that_cannot_be_written(
    mnist_server: Server, tmp_path: Path, fails: Callable[..., Any]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with fails("mnist", tmp_path / "file", "data=digits"):
        load("mnist", root=tmp_path / "file")
