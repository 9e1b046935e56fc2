"""The page in a real browser and over HTTP: all three views, many at once, hostile input, and nothing left over."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from depthtokens import DepthTokens
from depthtokens.demo import TOKENS
from helpers import photo, refused
from hostile import HOSTILE

pytest.importorskip("gradio", reason="needs the extra: pip install 'depthtokens[app]'")
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
SECONDS = 120_000
"""Milliseconds to wait for an answer at most: machines may be busy."""


COMMAND = "from depthtokens.deploy.app import words; words.SAMPLES = 6; from depthtokens.cli import main; main()"
"""The command with fewer scenes, which are soon rendered."""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """The demonstration's tokens for small scenes."""
    model, path = DepthTokens.load(TOKENS), tmp_path_factory.mktemp("tokens") / "small.safetensors"
    model.settings = model.settings.changed(predict_side=64)
    model.save(path)
    return path


@pytest.fixture(scope="module")
def server(tokens, tmp_path_factory):
    """Address of a page that runs, and the folder for its temporary files; in the end that is empty."""
    place = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-c", COMMAND, "app", str(tokens)]
    environment = {**os.environ, "TMPDIR": str(place), "NO_PROXY": "*"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    address = process.stdout.readline().split()
    assert address, process.stderr.read()
    yield address[0].rstrip("/"), place
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "ConnectError" not in err, err  # nobody was asked for anything, whatever clients wanted
    assert [path for path in place.rglob("*") if path.is_file() or "depthtokens" in path.name or "gradio" in path.name] == []


def post(address, body, kind="application/json"):
    """Status and content of an answer."""
    return get(urllib.request.Request(address, body if isinstance(body, bytes) else json.dumps(body).encode(), {"Content-Type": kind}))


def get(request):
    """The same of an address."""
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def upload(base, name, content):
    """The path under which a file was taken."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode()
    status, answer = post(f"{base}/gradio_api/upload", head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
    return status, json.loads(answer)[0] if status == 200 else answer.decode()


def handlers(base):
    """Number of the handler of each event, by the element and what happens to it; only the first of several."""
    config = json.loads(get(f"{base}/config")[1])
    names = {part["id"]: part["props"].get("elem_id") or part["props"].get("value") for part in config["components"]}
    return {(names[target], event): one["id"] for one in reversed(config["dependencies"]) for target, event in one["targets"]}


def ask(base, number, data):
    """What a handler answers: its data, or None where it failed, and what was said of it."""
    session = uuid.uuid4().hex
    status, answer = post(f"{base}/gradio_api/queue/join", {"data": data, "fn_index": number, "session_hash": session})
    if status != 200:
        return None, answer.decode()
    with urllib.request.urlopen(f"{base}/gradio_api/queue/data?session_hash={session}", timeout=120) as events:
        for line in events:
            message = json.loads(line[5:]) if line.startswith(b"data:") else {}
            if message.get("msg") == "process_completed":
                return (message["output"]["data"] if message["success"] else None), json.dumps(message["output"])
    raise AssertionError("no answer")


def file_of(path, **more):
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def test_photos_that_are_none(server):
    """Each is a sentence, without the place where it lay."""
    base, place = server
    show = handlers(base)["photo", "change"]
    for name, (content, said) in HOSTILE.items():
        status, path = upload(base, name, content)
        assert status == 200
        answer, _ = ask(base, show, [file_of(path, orig_name=name), 0])
        assert said in answer[-1] and answer[-1].startswith('<p class="says"') and str(place) not in answer[-1], (name, answer)
    assert upload(base, "large.png", bytes(51 * 2**20))[0] == 413


@contextmanager
def spied():
    """Address of a server, and what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_nothing_else_is_read_or_fetched(server, tokens):
    base, _ = server
    events = handlers(base)
    with spied() as (other, asked):
        for path in ("/etc/passwd", str(tokens), "../../etc/passwd", f"{other}/a.png", "https://huggingface.co/a.png"):
            for given in (file_of(path), file_of(path, url=f"{other}/b.png"), {"path": path}):
                for event in (("photo", "change"), ("Make files", "click")):
                    data = [given, 0] if event[0] == "photo" else [given, ["NPY"], None]
                    answer, said = ask(base, events[event], data)
                    assert answer is None or "says" in answer[-1], (given, answer)
                    assert "root:" not in said and "Traceback" not in said
            for route in ("file=", "proxy="):
                assert get(f"{base}/gradio_api/{route}{path}")[0] in (400, 403, 404)
        assert asked == []
    assert json.loads(get(f"{base}/gradio_api/info")[1]) == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_fifty_at_once(server):
    """All are answered, or told that the queue is full."""
    base, _ = server
    buffer = io.BytesIO()
    Image.fromarray(photo(90, 120)).save(buffer, format="PNG")
    number, (_, path) = handlers(base)["token", "change"], upload(base, "a.png", buffer.getvalue())
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda i: ask(base, number, [file_of(path), i % 7]), range(50)))
    done = [answer for answer, _ in answers if answer is not None]
    assert len(done) >= 10 and all("data:image/png" in answer[0] for answer in done)
    assert all("ueue is full" in said for answer, said in answers if answer is None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed here")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, base, width, height):
    """A page in a window of that size, which asks nobody else for anything, and has no errors in the end."""
    context, outside, errors = browser.new_context(viewport={"width": width, "height": height}), [], []
    context.set_default_timeout(SECONDS)
    page = context.new_page()
    page.on("request", lambda request: None if request.url.startswith((base, "data:", "blob:")) else outside.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(base)
    yield page
    assert outside == [] and errors == []
    context.close()


def test_a_walk_through_all_views(browser, server, tokens, tmp_path):
    base, _ = server
    Image.fromarray(photo(150, 200)).save(tmp_path / "noise.png")
    expected = DepthTokens.load(tokens).predict(tmp_path / "noise.png")
    expected.save(tmp_path / "expected.png")
    with opened(browser, base, 1280, 800) as page:
        page.locator("#photo input[type=file]").set_input_files(tmp_path / "noise.png")
        page.locator("#legend .scale", has_text=f"{expected.metres.max():.3g} m").wait_for()
        assert page.locator("#both img").count() == 2 and page.get_by_alt_text("uncertainty").is_visible()
        place = page.locator("#photo img").bounding_box()
        left, top = (place["width"] - 200) // 2, (place["height"] - 150) // 2  # it is shown in its own size
        page.locator("#photo img").click(position={"x": left + 120, "y": top + 30})
        said = page.locator("#point .point").inner_text()
        x, y = int(said.split("column ")[1].split(",")[0]), int(said.split("row ")[1])
        assert abs(x - 120) <= 2 and abs(y - 30) <= 2 and said.startswith(f"{expected.metres[y, x]:.2f} m")
        page.locator("#token input[type=number]").fill("6")
        page.locator("#token input[type=number]").press("Enter")
        page.locator("#heat", has_text="Token 6 stands for").wait_for()
        page.get_by_role("button", name="Files of depth").click()
        page.get_by_label("PLY point cloud").check()
        page.get_by_role("button", name="Make files").click()
        page.locator("#wrong", has_text="give the degrees").wait_for()
        page.get_by_label("PLY point cloud").uncheck()
        page.get_by_role("button", name="Make files").click()
        page.locator("#files a").first.wait_for()
        with page.expect_download() as download:
            page.locator("#files a").first.click()
        assert download.value.suggested_filename == "noise_depth.png"
        download.value.save_as(tmp_path / "found.png")
        assert (tmp_path / "found.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
        assert not page.locator("#wrong .says").count()

        page.get_by_role("tab", name="Words").click()
        page.locator("#words textarea").fill("near\nfar")
        page.get_by_role("button", name="Try these words").click()
        page.locator("#answer", has_text="No hand-made scale has 2 words").wait_for()
        assert page.locator("#answer figure").count() == 4
        page.locator("#template textarea").fill("a thing")
        page.get_by_role("button", name="Try these words").click()
        page.locator("#answer [role=alert]", has_text="the template 'a thing' has no {depth}").wait_for()

        page.get_by_role("tab", name="Tokens").click()
        page.locator("#shape", has_text="rank correlation with depth").wait_for()
        page.get_by_role("button", name="Find the nearest words").click()
        page.locator("#near tbody tr").nth(6).wait_for()


def test_on_a_phone(browser, server):
    """An example, all three views, and nothing that has to be scrolled sideways."""
    with opened(browser, server[0], 390, 844) as page:
        page.get_by_role("button", name="Scene 1").click()
        page.locator("#legend .scale").wait_for()
        views = {
            "Depth": ("#heat figcaption", None),
            "Words": ("#answer table", "Try these"),
            "Tokens": ("#near table", "Find the nearest"),
        }
        for tab, (shown, button) in views.items():
            page.get_by_role("tab", name=tab).click()
            if button:
                page.get_by_role("button", name=button).click()
            page.locator(shown).wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab


def test_old_files_go(tmp_path):
    from depthtokens.deploy.app.serve import sweep

    for name in ("old/photo.png", "new/photo.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"photo")
    os.utime(tmp_path / "old" / "photo.png", (0, 0))
    sweep(tmp_path, 60)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["new", "photo.png", "old"]
    os.utime(tmp_path / "old", (0, 0))
    sweep(tmp_path, 60)
    assert not (tmp_path / "old").exists() and (tmp_path / "new" / "photo.png").exists()


def test_bad_usage(capsys, monkeypatch, tmp_path):
    assert "no token file at" in refused(capsys, "app", tmp_path / "none.safetensors", code=1)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert refused(capsys, "app") == "the page needs the package gradio: pip install 'depthtokens[app]'"
