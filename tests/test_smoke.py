"""The smoke run over HTTP: the demo backend under a real uvicorn, and servers of other shapes, or of none."""

from __future__ import annotations

import contextlib
import http.server
import importlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fake_gpu import Driver, Ramp
from pytest_vramsettle import cli
from pytest_vramsettle.smoke import Report, SpecError, Step, as_text, demo_spec, read_spec, run_smoke
from pytest_vramsettle.smoke import spec as specs
from pytest_vramsettle.smoke.http_backend import HttpBackend, Unreachable
from pytest_vramsettle.whole_backend import BackendError, WholeBackend

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

_RUNNING = re.compile(r"running on (http://127\.0\.0\.1:\d+)")
STEPS = [
    "cold load",
    "identical load again",
    "load, another context",
    "unload",
    "load, another cache type",
    "status during a load",
    "cancel during a load",
]
ENOUGH = Ramp.linear("150ms", after="100ms")


class App(NamedTuple):
    url: str
    pid: int


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        driver.add_gpu("rtx-4090")
        yield driver


@contextlib.contextmanager
def app(driver: Driver, wait: str = "verified", **arguments: object) -> Iterator[App]:
    """The demo's app in a process of its own, in real time."""
    given = {"weights": "18 GiB", "load_time": "60ms", "reclaim": ENOUGH, **arguments}
    (server,) = driver.llama_server(**given)  # type: ignore[arg-type]  # as given
    command = [sys.executable, "-m", "pytest_vramsettle.demo.app", "--port", "0", "--wait", wait]
    process = subprocess.Popen([*command, "--server-command", server], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = next(found for line in process.stderr if (found := _RUNNING.search(line)))
        yield App(found[1], process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def patient(tmp_path: Path, **changes: str) -> specs.Spec:
    """The demo's spec with other limits: a machine that is busy is no reason to fail here."""
    text = Path(specs.__file__).with_name("demo.toml").read_text(encoding="utf-8")
    for key, value in {"answer_within": "5s", **changes}.items():
        text = re.sub(rf'(?m)^{key} = "[^"]*"', f'{key} = "{value}"', text)
    path = tmp_path / "patient.toml"
    path.write_text(text, encoding="utf-8")
    return read_spec(path)


def failed(report: Report) -> list[str]:
    return [step.name for step in (*report.steps, report.orphans) if step.verdict == "failed"]


def smoke(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["vramsettle", "smoke", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.vramsettle()
    return int(ended.value.code or 0)


# -- the demo backend


def test_seven_of_seven_and_nothing_left(driver: Driver, tmp_path: Path) -> None:
    with app(driver) as served:
        report = run_smoke(served.url, patient(tmp_path), pid=served.pid)
    assert failed(report) == []
    assert [step.name for step in report.steps] == STEPS
    assert (report.passed, report.passes, report.orphans.verdict) == (7, True, "passed")
    assert report.steps[2].seconds > 0.25  # it waited for the ramp
    assert report.steps[1].seconds < report.steps[2].seconds


def test_without_the_wait_layers_are_on_the_cpu(driver: Driver, tmp_path: Path) -> None:
    slow = Ramp.linear("5s", after="5s")  # however slow this machine is, nothing is back
    with app(driver, wait="none", reclaim=slow, load_time="250ms") as served:
        report = run_smoke(served.url, patient(tmp_path), pid=served.pid)
    assert failed(report) == ["load, another context", "load, another cache type"]
    for step in (report.steps[2], report.steps[4]):
        assert any(re.search(r"^\d+ layers are on the CPU", problem) for problem in step.problems)


def test_a_server_that_leaves_children_is_told_by_step(driver: Driver, tmp_path: Path) -> None:
    with app(driver, leaves_child=True, reclaim=Ramp.immediate(), load_time="250ms") as served:
        report = run_smoke(served.url, patient(tmp_path, gone_within="100ms"), pid=served.pid)
    assert failed(report) == ["unload", "processes afterwards"]
    assert len(report.orphans.problems) == 3
    assert all("(llama-server) is left" in problem for problem in report.orphans.problems)


def test_the_command_writes_text_and_json(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patient(tmp_path)
    spec = ("--spec", str(tmp_path / "patient.toml"))
    with app(driver, reclaim=Ramp.immediate(), load_time="250ms") as served:
        assert smoke(monkeypatch, served.url, *spec, "--pid", str(served.pid)) == 0
        text = capsys.readouterr().out
        assert smoke(monkeypatch, served.url, *spec, "--format", "json") == 0
        written = json.loads(capsys.readouterr().out)
    assert text.splitlines()[-1] == "7 of 7 requests as they have to be; no process left: yes"
    assert [step["name"] for step in written["steps"]] == STEPS
    assert (written["passed"], written["passes"]) == (7, True)


def test_http_and_in_process_offer_the_same(driver: Driver) -> None:
    with app(driver, reclaim=Ramp.immediate()) as served:
        backend: WholeBackend = HttpBackend(served.url, demo_spec())
        assert backend.status().phase == "idle"
        assert backend.load("a.gguf", context=4096) == "loaded"
        assert backend.load("a.gguf", context=4096) == "already_loaded"
        status = backend.status()
        assert (status.phase, status.context, status.pid is None) == ("serving", 4096, False)
        assert (backend.cancel(), backend.unload(), backend.unload()) == (False, True, False)
        with pytest.raises(BackendError, match=r"HTTP status 422.*cache_type"):
            backend.load("a.gguf", cache_type="q9")


def test_nothing_imports_the_web_framework_unless_it_is_used() -> None:
    modules = (
        "pytest_vramsettle.plugin, pytest_vramsettle.demo.backend, pytest_vramsettle.smoke, pytest_vramsettle.cli_smoke"
    )
    program = (
        f"import sys, {modules}; print(*sorted({{'fastapi', 'uvicorn', 'pydantic', 'httpx'}} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "\n", "")


def test_the_app_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "pytest_vramsettle.demo.app", raising=False)
    with pytest.raises(ImportError, match=r"uvicorn is not installed: run pip install 'pytest-vramsettle\[demo\]'"):
        importlib.import_module("pytest_vramsettle.demo.app")


# -- servers that are not there, or are others


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_server_that_is_not_there_is_told_by_step(
    nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoke(monkeypatch, nobody) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count(f"no answer from {nobody}: Connection refused") == 7
    assert all(name in captured.out for name in STEPS)
    assert "0 of 7 requests as they have to be; no process left: not checked" in captured.out


class Other(http.server.BaseHTTPRequestHandler):
    """A server of another shape: PUT, nested fields, a 409 for a cancelled load; it has no processes."""

    protocol_version = "HTTP/1.0"
    loaded: Any = None
    under_way = threading.Event()
    cancelled = threading.Event()

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wanted = body["options"]
        if Other.loaded == wanted:
            return self._reply(200, {"result": [{"state": "ready", "fresh": False}]})
        if Other.loaded is not None and wanted["kv"] != "f16":
            Other.under_way.set()
            Other.cancelled.wait(10)
            return self._reply(409, {"error": "cancelled"})
        Other.loaded = wanted
        return self._reply(200, {"result": [{"state": "ready", "fresh": True}]})

    def do_DELETE(self) -> None:
        Other.loaded = None
        self._reply(204, None)

    def do_POST(self) -> None:
        Other.cancelled.set()
        Other.under_way.clear()
        self._reply(202, {})

    def do_GET(self) -> None:
        context = Other.loaded and Other.loaded["n"]
        self._reply(200, {"busy": Other.under_way.is_set(), "n": context, "auth": self.headers["X-Key"]})

    def _reply(self, status: int, body: object) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


OTHER = """
load_within = "20s"
answer_within = "5s"
unload = { method = "DELETE", path = "/v1/model" }
cancel = { path = "/v1/model/cancel" }
status = { method = "GET", path = "/v1/model", headers = { X-Key = "k" } }
fields = { context = "/n" }

[load]
method = "PUT"
path = "/v1/model"
body = { name = "{model}", options = { n = "{context}", kv = "{cache_type}" } }

[replies]
loaded = { fields = { "/result/0/state" = ["ready", "warm"], "/result/0/fresh" = true } }
already_loaded = { fields = { "/result/0/fresh" = false } }
cancelled = { status = [409, 499] }
unloaded = { status = [204] }
cancel = { status = [202] }
waiting = { fields = { "/busy" = true, "/auth" = "k" } }
"""


def test_a_server_of_another_shape_by_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(OTHER)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        report = run_smoke(f"http://127.0.0.1:{server.server_address[1]}/", read_spec(path))
        server.shutdown()
        thread.join()
    # Its second cache type is only ever loaded where nothing was.
    assert failed(report) == []
    assert report.passed == 7
    assert report.orphans.notes == ("no PID is known",)
    assert "not known" in report.steps[0].notes[0]


class Silent(http.server.BaseHTTPRequestHandler):
    """A server that never answers a load; its other answers would like to be terminal codes."""

    over = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/load":
            Silent.over.wait(20)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"\x1b[31mred")

    def log_message(self, *arguments: object) -> None:
        pass


def test_where_a_load_has_no_answer_the_rest_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "short.toml"
    path.write_text('extends = "demo"\nload_within = "50ms"\n')
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told: list[str] = []
        url = f"http://127.0.0.1:{server.server_address[1]}"
        report = run_smoke(url, read_spec(path), tell=lambda step: told.append(step.name))
        status = smoke(monkeypatch, url, "--spec", str(path))
        Silent.over.set()
        server.shutdown()
        thread.join()
    assert told == [*STEPS, "processes afterwards"]
    assert [step.verdict for step in report.steps] == ["failed", *["not checked"] * 6]
    assert "within 0.05 s" in report.steps[0].problems[0]
    assert report.steps[6].notes == ("not sent: 'cold load' got no answer in time",)
    assert (report.passed, report.passes, status) == (0, False, 1)
    assert capsys.readouterr().out.splitlines()[0] == url


def test_what_a_terminal_would_obey_is_spelt_out() -> None:
    step = Step("unload", "POST /unload", "HTTP 200", "failed", 0.1, ("the reply: \x1b[31mred",))
    text = as_text(Report("http://x", (step,), step))
    assert "\x1b" not in text
    assert r"the reply: \x1b[31mred" in text


def test_what_speaks_no_http_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(b"SSH-2.0-nonsense\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        backend = HttpBackend(f"127.0.0.1:{server.getsockname()[1]}", demo_spec())
        with pytest.raises(Unreachable, match="no answer from"):
            backend.status()
        thread.join()


# -- files and URLs that cannot be used


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("retries = 3\n" + OTHER, "retries"),
        (OTHER.replace('path = "/v1/model/cancel"', 'path = "/x", paht = "/y"'), "paht"),
        (OTHER.replace('unload = { method = "DELETE", path = "/v1/model" }', ""), "unload"),
        (OTHER.replace('"20s"', '"soon"'), "soon"),
        (OTHER.replace('"20s"', '"0s"'), "above 0"),
        (OTHER.replace('"/busy"', '"busy"'), "busy|pattern|regex"),
        ("load = ", "no smoke file"),
        ('load_within = "3s"', 'with extends = "demo" the rest is taken from the demo'),
        ('extends = "mine"', 'there is "demo" to extend'),
        ('extends = "demo"\nload = { paht = "/x" }', "paht"),
    ],
)
def test_a_wrong_file_is_refused_by_its_key(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    says: str,
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SpecError, match=says) as refused:
        read_spec(path)
    assert str(path) in str(refused.value)
    assert smoke(monkeypatch, "http://127.0.0.1:9", "--spec", str(path)) == 2
    assert capsys.readouterr().err == f"vramsettle smoke: {refused.value}\n"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "nonsense://x"])
def test_a_url_that_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert smoke(monkeypatch, url) == 2
    assert capsys.readouterr().err.startswith(f"vramsettle smoke: {url!r}")


def test_a_process_that_is_none(
    nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoke(monkeypatch, nobody, "--pid", "99999999") == 2
    assert "there is no process 99999999" in capsys.readouterr().err


def test_a_file_may_have_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text(
        'extends = "demo"\nload = { path = "/v2/load" }\nfields = { pid = "/p" }\n'
        'replies = { loaded = { fields = { "/ok" = true } } }'
    )
    spec, demo = read_spec(path), demo_spec()
    assert (spec.load.path, spec.load.body, spec.unload) == ("/v2/load", demo.load.body, demo.unload)
    assert (spec.fields.pid, spec.fields.context) == ("/p", None)
    assert (spec.replies.loaded.fields, spec.replies.cancelled) == ({"/ok": True}, demo.replies.cancelled)


def test_the_documented_file_is_right(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "backend.md").read_text(encoding="utf-8")
    path = tmp_path / "documented.toml"
    path.write_text(text.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    spec = read_spec(path)
    assert (spec.load.method, spec.fields.layers_on_cpu, spec.answer_seconds) == ("PUT", "/offload/cpu", 0.05)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        read_spec(tmp_path / "none.toml")
