"""The page of `rlagents watch` in a real browser: what a person sees and presses.

Screenshots go to the folder that RLAGENTS_SCREENSHOTS names; without it to build/screenshots in
continuous integration, else to pytest's temporary folder.
"""

from __future__ import annotations

import csv
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from rlagents.api import open_run
from rlagents.film import overlay_path
from rlagents.video import enlarge, open_writer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
WIDE = {"width": 1440, "height": 1000}
PHONE = {"width": 390, "height": 844}
HTML_NAME = "<img src=x onerror=alert(1)> & co"

# The crafted videos: 60 frames a second, three frames an agent step, each of another grey.
FPS = 60
SKIP = 3
SCALE = 2
DARKEST, GREY_STEP, GREYS = 40, 8, 24


# What stands on the disk ------------------------------------------------------------------------


def write_video(
    run: Path, step: int, num_steps: int, *, points: dict[int, float], overlay: bool
) -> str:
    """Write a video of a game of three actions and its JSON; return its id."""
    numbers = np.arange(num_steps)
    values = np.stack([np.sin(numbers / 9), np.cos(numbers / 7), numbers / num_steps], axis=1)
    rewards = [points.get(number, 0.0) for number in range(num_steps)]
    total = sum(rewards)
    name = f"step-{step}-episode-0-return-{total:g}"
    path = run / "videos" / f"{name}.mp4"
    paths = [path, overlay_path(path, "gradient")] if overlay else [path]
    for own in paths:
        with open_writer(own, FPS, own.with_name(f".{own.name}.part")) as video:
            for frame in range(SKIP * num_steps + 1):
                picture = np.full((100, 80, 3), grey_of(frame), np.uint8)
                if own != path:
                    picture[70:] = (255, 0, 0)
                video.add(enlarge(picture, SCALE))
            video.close(own)
    about = {
        "env_id": "pong",
        "step": step,
        "seed": 1,
        "values_are": "action values",
        "action_names": ["noop", "up", "down"],
        "episodic_return": total,
        "episodic_length": num_steps,
        "frames_per_second": FPS,
        "num_frames": SKIP * num_steps + 1,
        "overlays": ["gradient"] if overlay else [],
        "frame": [SKIP * number for number in range(num_steps)],
        "action": values.argmax(axis=1).tolist(),
        "reward": rewards,
        "values": values.tolist(),
        "terminated": [number == num_steps - 1 for number in range(num_steps)],
    }
    (run / "videos" / f"{name}.json").write_text(json.dumps(about), encoding="utf-8")
    return name


def grey_of(frame: int) -> int:
    """Return the grey that tells a frame from its neighbours."""
    return DARKEST + GREY_STEP * (frame % GREYS)


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


class Folder:
    """A folder of runs: a real one, and copies of it that are special in some way."""

    def __init__(self, tiny: Path, path: Path) -> None:
        self.path = path
        self._tiny = tiny
        self.tiny = self.copy("tiny")
        self.other_seed = self.copy("other-seed")
        change_json(self.other_seed / "config.json", lambda it: it["config"].update(seed=7))
        self.copy(HTML_NAME)
        self.game = self.copy("game", videos=False)
        self.early = write_video(self.game, 100, 40, points={20: -1.0}, overlay=False)
        self.late = write_video(self.game, 300, 80, points={30: 1.0, 60: 1.0}, overlay=True)
        newer = self.copy("newer")
        change_json(newer / "config.json", lambda it: it.update(format=99))

    def copy(self, name: str, *, videos: bool = True) -> Path:
        """Return a copy of the real run."""
        run = Path(shutil.copytree(self._tiny, self.path / name))
        if not videos:
            shutil.rmtree(run / "videos")
            (run / "videos").mkdir()
        return run

    def running(self, name: str) -> Path:
        """Return a copy of the real run that says it is running."""
        run = self.copy(name)
        beat(run, 300)
        return run

    def sidecar(self, video: str) -> dict[str, Any]:
        """Return what stands beside a crafted video."""
        path = self.game / "videos" / f"{video}.json"
        return dict(json.loads(path.read_text(encoding="utf-8")))


def beat(run: Path, step: int) -> None:
    """Write a sign of life, of this process."""
    change_json(
        run / "status.json",
        lambda it: it.update(state="running", pid=os.getpid(), step=step, heartbeat=time.time()),
    )


def append_episodes(run: Path, number: int) -> int:
    """Log more training episodes, as a run does; return how many there are then."""
    path = run / "episodes.csv"
    with path.open(newline="", encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    count = int(last["episode"]) + 1
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(last), lineterminator="\n")
        for more in range(number):
            step = int(last["step"]) + 10 * (more + 1)
            row = {"episode": count + more, "step": step, "episodic_return": 100.0 + more}
            writer.writerow(last | row)
    return count + number


@pytest.fixture(scope="module")
def folder(tiny_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tiny_run.directory, tmp_path_factory.mktemp("watch") / "runs")


# The server and the browser ---------------------------------------------------------------------


class Server:
    """`rlagents watch` in a process of its own."""

    def __init__(self, runs_dir: Path, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "rlagents", "watch", str(runs_dir)]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port), "--no-open"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                assert self._process.stdout is not None
                pytest.fail(f"rlagents watch has ended: {self._process.stdout.read()}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("GET", "/api/runs")
                connection.getresponse().read()
                return
            except OSError:
                time.sleep(0.05)
        pytest.fail("rlagents watch does not answer")

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(timeout=20)
        assert self._process.stdout is not None
        self._process.stdout.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server(folder: Folder) -> Iterator[Server]:
    server = Server(folder.path)
    yield server
    server.stop()


# As long as a browser lives, its event loop is the thread's: not longer than this module's tests.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("There is no Chromium; install it: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("RLAGENTS_SCREENSHOTS")
    if named:
        folder = Path(named)
    elif os.environ.get("CI"):
        folder = ROOT / "build" / "screenshots"
    else:
        folder = tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Window:
    """A page, and what it has asked for and complained about."""

    def __init__(self, browser: Browser, server: Server, screenshots: Path, **options: Any) -> None:
        self.context: BrowserContext = browser.new_context(**({"viewport": WIDE} | options))
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.server = server
        self._screenshots = screenshots
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        self.statuses: list[tuple[str, int]] = []
        self.expected = "nothing at all"  # what complaints of this test are about
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.netloc != self._host:
            self.foreign.append(request.url)

    @property
    def _host(self) -> str:
        return urlsplit(self.server.url).netloc

    def _answered(self, response: Response) -> None:
        self.statuses.append((response.url, response.status))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, path: str) -> Page:
        """Go to a page of the server."""
        self.page.goto(self.server.url + path)
        return self.page

    def shoot(self, name: str, *, whole: bool = False) -> None:
        """Keep a picture of what is shown."""
        self.page.screenshot(path=self._screenshots / f"{name}.png", full_page=whole)

    def close(self) -> None:
        """Close the page; it has asked for nothing elsewhere and not complained."""
        self.context.close()
        assert self.foreign == []
        assert [text for text in self.complaints if self.expected not in text] == []


@pytest.fixture
def make_window(browser: Browser, server: Server, screenshots: Path) -> Iterator[Any]:
    windows: list[Window] = []

    def make(**options: Any) -> Window:
        chosen = options.pop("server", server)
        windows.append(Window(browser, chosen, screenshots, **options))
        return windows[-1]

    yield make
    for window in windows:
        window.close()


@pytest.fixture
def window(make_window: Callable[..., Window]) -> Window:
    return make_window()


# What a person sees -----------------------------------------------------------------------------


def shown_frame(page: Page, player: str = ".player") -> int:
    """Return which frame the player says it shows."""
    return int(page.locator(player).get_attribute("data-frame") or -1)


def wait_until(page: Page, condition: str) -> None:
    """Wait until an expression is true (the page's own policy forbids Playwright's way)."""
    deadline = time.monotonic() + 20
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(30)


def wait_for_frame(page: Page, frame: int) -> None:
    page.wait_for_selector(f".player[data-frame='{frame}']")


def grey(page: Page) -> int:
    """Return the grey in the middle of the picture that is shown."""
    return int(
        page.evaluate(
            """() => {
              const video = document.querySelector("video.front");
              const canvas = document.createElement("canvas");
              canvas.width = canvas.height = 1;
              const pen = canvas.getContext("2d");
              pen.drawImage(video, 40, 40, 4, 4, 0, 0, 1, 1);
              return pen.getImageData(0, 0, 1, 1).data[0];
            }"""
        )
    )


def wait_for_video(page: Page, video: str, player: str = ".player") -> None:
    page.wait_for_selector(f"{player}.ready[data-video='{video}']")


def wait_for_curve(page: Page) -> None:
    page.wait_for_selector("#curve.drawn")


def curve_lengths(page: Page) -> list[int]:
    """Return how many points each line of the chart has."""
    return list(page.evaluate("document.getElementById('curve').data.map((line) => line.x.length)"))


def click_point(page: Page, trace: int, index: int) -> None:
    """Click on a point of the chart, where it is on the screen."""
    page.locator("#curve").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([trace, index]) => {
          const chart = document.getElementById("curve");
          const box = chart.getBoundingClientRect();
          const { xaxis, yaxis } = chart._fullLayout;
          const { x, y } = chart.data[trace];
          return [
            box.left + xaxis._offset + xaxis.l2p(x[index]),
            box.top + yaxis._offset + yaxis.l2p(y[index]),
          ];
        }""",
        [trace, index],
    )
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def test_list_shows_the_runs_and_keeps_them_up_to_date(folder: Folder, window: Window) -> None:
    live = folder.running("live-in-list")
    page = window.open("/")
    expect(page.locator("tr[data-run='tiny'] .badge")).to_have_text("finished")
    expect(page.locator("tr[data-run='tiny'] .c-progress")).to_contain_text("480 / 480")
    expect(page.locator("tr[data-run='live-in-list'] .badge")).to_have_text("running")
    assert page.locator("tr[data-run='tiny'] .spark-line").count() == 1
    beat(live, 432)
    expect(page.locator("tr[data-run='live-in-list'] .c-progress")).to_contain_text("432 / 480")
    window.shoot("runs")

    page.fill("#filter", "game")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.fill("#filter", "")
    page.click("th[data-key='id'] button")
    names = page.locator("#rows .run-name").all_text_contents()
    assert names == sorted(names, key=str.lower)
    page.click("th[data-key='id'] button")
    assert page.locator("#rows .run-name").all_text_contents() == names[::-1]

    page.check("tr[data-run='tiny'] input")
    page.check("tr[data-run='game'] input")
    page.click("#compare")
    page.wait_for_url("**/compare?run=tiny&run=game")
    shutil.rmtree(live)


def test_list_says_what_is_wrong_with_a_run_and_shows_names_as_they_are(window: Window) -> None:
    page = window.open("/")
    expect(page.locator("tr[data-run='newer'] .badge")).to_have_text("unreadable")
    expect(page.locator("tr[data-run='newer'] .row-problem")).to_contain_text("version")
    expect(page.get_by_role("link", name=HTML_NAME, exact=True)).to_be_visible()
    page.get_by_role("link", name=HTML_NAME, exact=True).click()
    expect(page.locator("h1")).to_have_text(HTML_NAME)
    wait_for_curve(page)
    page.goto(f"{window.server.url}/compare?run={quote(HTML_NAME)}&run=tiny")
    wait_for_curve(page)
    expect(page.locator("#groups")).to_contain_text(HTML_NAME)
    assert page.locator("img[src='x']").count() == 0


def test_empty_folder_says_what_to_type(tmp_path: Path, make_window: Callable[..., Window]) -> None:
    (tmp_path / "runs").mkdir()
    server = Server(tmp_path / "runs")
    try:
        window = make_window(server=server)
        page = window.open("/")
        expect(page.locator("#empty")).to_contain_text("rlagents train cartpole-dqn")
        window.shoot("empty")
    finally:
        server.stop()
    window.expected = "ERR_CONNECTION_REFUSED"
    expect(page.locator(".notice")).to_contain_text("is `rlagents watch` still running?")
    server = Server(tmp_path / "runs", server.port)
    expect(page.locator(".notice")).to_have_count(0)
    server.stop()


def test_curve_is_drawn_with_all_its_points(folder: Folder, window: Window) -> None:
    page = window.open("/run/tiny")
    wait_for_curve(page)
    with (folder.tiny / "episodes.csv").open(encoding="utf-8") as file:
        episodes = len(list(csv.DictReader(file)))
    videos = len(list((folder.tiny / "videos").glob("*.mp4")))
    assert curve_lengths(page) == [episodes, episodes, 3, videos, 1]
    assert page.locator("#curve .point").count() >= episodes + 3 + videos
    expect(page.locator("#videos li")).to_have_count(videos)
    page.locator("#metrics").scroll_into_view_if_needed()
    page.wait_for_selector("#metrics .chart.drawn")

    page.check("#axis input[value='time']", force=True)
    wait_until(page, "document.getElementById('curve').layout.xaxis.title.text === 'seconds'")
    page.fill("#config-filter", "replay.capacity")
    visible = page.locator("#config tr:visible")
    expect(visible).to_have_count(1)
    expect(visible).to_contain_text("400")


def test_click_on_a_mark_plays_that_video_and_seeking_asks_for_ranges(
    folder: Folder, window: Window
) -> None:
    page = window.open("/run/game")
    wait_for_curve(page)
    wait_for_video(page, folder.late)  # the latest one, at rest
    assert page.evaluate("document.querySelector('video.front').paused")
    click_point(page, 3, 0)
    wait_for_video(page, folder.early)
    wait_until(page, "document.querySelector('video.front').currentTime > 0.3")
    size = page.evaluate(
        "[document.querySelector('video.front').videoWidth, "
        "document.querySelector('video.front').videoHeight]"
    )
    assert size == [160, 200]
    assert (folder.early, 206) in [(url.split("/")[-1], status) for url, status in window.statuses]

    page.click(f"#videos li[data-video='{folder.late}'] button")
    wait_for_video(page, folder.late)
    wait_until(page, "document.querySelector('video.front').currentTime > 0.3")
    page.keyboard.press("Space")
    strip = page.locator(".strip").bounding_box()
    assert strip is not None
    page.mouse.click(strip["x"] + 0.75 * strip["width"], strip["y"] + 10)
    wait_until(page, "document.querySelector('.player').dataset.frame > 170")
    assert abs(shown_frame(page) - 0.75 * 241) < 3
    window.shoot("run")


def test_keys_step_by_exactly_one_frame_and_the_bars_follow(folder: Folder, window: Window) -> None:
    data = folder.sidecar(folder.late)
    page = window.open(f"/run/game#video={folder.late}&t={30.25 / FPS:.3f}")
    wait_for_video(page, folder.late)
    wait_for_frame(page, 30)
    page.focus(".player")

    def check(frame: int) -> None:
        wait_for_frame(page, frame)
        assert abs(grey(page) - grey_of(frame)) < GREY_STEP / 2
        step = frame // SKIP
        panel = page.locator(".panel")
        expect(panel).to_have_attribute("data-step", str(step))
        expect(page.locator(".now dd").nth(0)).to_have_text(f"{step + 1} / 80")
        expect(page.locator(".now dd").nth(2)).to_have_text(f"{sum(data['reward'][: step + 1]):g}")
        name = data["action_names"][data["action"][step]]
        expect(page.locator(".action-now")).to_have_text(name)
        expect(page.locator(".bars li.chosen .name")).to_have_text(name)
        numbers = page.locator(".bars .number").all_text_contents()
        shown = [float(number.replace("\N{MINUS SIGN}", "-")) for number in numbers]
        assert shown == pytest.approx(data["values"][step], abs=0.006)

    check(30)
    for frame in (31, 32, 33):
        page.keyboard.press("ArrowRight")
        check(frame)
    page.keyboard.press("ArrowLeft")
    check(32)
    page.keyboard.press("Shift+ArrowRight")
    check(32 + FPS)
    page.keyboard.press("n")  # the reward of step 60 is the next one
    check(60 * SKIP)
    page.keyboard.press("End")
    wait_for_frame(page, 240)
    page.keyboard.press("Home")
    wait_for_frame(page, 0)
    for key, speed in ((">", 2), ("ArrowUp", 4), ("<", 2), ("ArrowDown", 1), ("<", 0.5)):
        page.keyboard.press(key)
        assert page.evaluate("document.querySelector('video.front').playbackRate") == speed
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Space")
    wait_until(page, "document.querySelector('.player').dataset.frame > 12")
    page.keyboard.press("Space")
    wait_until(page, "document.querySelector('video.front').paused")
    # The last picture may come after the pause, and the address follows it: wait until they agree.
    where = "new URLSearchParams(location.hash.slice(1)).get('t')"
    shown = "Number(document.querySelector('.player').dataset.frame)"
    wait_until(page, f"Math.floor({where} * {FPS}) === {shown}")
    again, frame = page.evaluate(f"[location.hash, {shown}]")
    page.goto("about:blank")
    window.open(f"/run/game{again}")
    wait_for_frame(page, frame)


def test_bars_follow_while_the_video_plays(folder: Folder, window: Window) -> None:
    data = folder.sidecar(folder.late)
    page = window.open(f"/run/game#video={folder.late}")
    wait_for_video(page, folder.late)
    page.click(".transport .play")
    seen = page.evaluate(
        """async () => {
          const seen = [];
          while (seen.length < 20) {
            await new Promise((resolve) => setTimeout(resolve, 60));
            const player = document.querySelector(".player");
            const numbers = [...player.querySelectorAll(".bars .number")];
            seen.push([
              Number(player.dataset.frame), Number(player.querySelector(".panel").dataset.step),
              player.querySelector(".action-now").textContent,
              numbers.map((number) => Number(number.textContent.replace("\\u2212", "-"))),
            ]);
          }
          return seen;
        }"""
    )
    assert len({frame for frame, *_ in seen}) > 10
    for frame, step, action, values in seen:
        assert step == min(frame // SKIP, 79)
        assert action == data["action_names"][data["action"][step]]
        assert values == pytest.approx(data["values"][step], abs=0.006)


def test_overlay_is_switched_on_and_off_at_the_same_picture(folder: Folder, window: Window) -> None:
    page = window.open(f"/run/game#video={folder.late}&t=0.504")
    wait_for_video(page, folder.late)
    wait_for_frame(page, 30)
    page.keyboard.press("o")
    wait_until(page, "document.querySelector('video.front').src.endsWith('/overlay/gradient')")
    red = """() => {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 1;
      const pen = canvas.getContext("2d");
      pen.drawImage(document.querySelector("video.front"), 40, 180, 4, 4, 0, 0, 1, 1);
      const [r, g] = pen.getImageData(0, 0, 1, 1).data;
      return r > g + 100;
    }"""
    assert page.evaluate(red)
    assert abs(grey(page) - grey_of(30)) < GREY_STEP / 2
    expect(page.locator("select.overlay")).to_have_value("gradient")
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 31)
    assert abs(grey(page) - grey_of(31)) < GREY_STEP / 2
    window.shoot("overlay")
    # A browser pauses with its clock behind the picture shown; the overlay is of the picture.
    for _ in range(3):
        page.keyboard.press("Space")
        wait_until(page, "!document.querySelector('video.front').paused")
        page.wait_for_timeout(150)
        page.keyboard.press("Space")
        wait_until(page, "document.querySelector('video.front').paused")
        page.wait_for_timeout(300)  # the last picture may come after the pause
        shown = shown_frame(page)
        before = page.evaluate("document.querySelector('video.front').src")
        page.keyboard.press("o")
        wait_until(page, f"document.querySelector('video.front').src !== '{before}'")
        assert shown_frame(page) == shown
        assert abs(grey(page) - grey_of(shown)) < GREY_STEP / 2
    page.keyboard.press("o")
    wait_until(page, "document.querySelector('video.front').src.includes('overlay')")
    page.focus(".player")
    page.keyboard.press("Home")
    wait_for_frame(page, 0)
    page.select_option("select.overlay", "")
    wait_until(page, "!document.querySelector('video.front').src.includes('overlay')")
    assert not page.evaluate(red)
    assert abs(grey(page) - grey_of(0)) < GREY_STEP / 2
    page.click(f"#videos li[data-video='{folder.early}'] button")
    wait_for_video(page, folder.early)
    expect(page.locator(".overlay-switch")).to_be_hidden()


def test_tiles_and_parts_of_an_episode_are_shown(folder: Folder, window: Window) -> None:
    run = open_run(folder.copy("cut", videos=False))
    (tiles,) = run.record(2, tiled=True, seconds=0.2)
    (part,) = run.record(from_second=0.1)
    about = json.loads(part.with_suffix(".json").read_text(encoding="utf-8"))
    page = window.open(f"/run/cut#video={tiles.stem}")
    wait_for_video(page, tiles.stem)
    expect(page.locator("#watching-title")).to_contain_text("several at once")
    expect(page.locator(".panel")).to_be_hidden()
    page.goto("about:blank")
    window.open("/run/cut")
    wait_for_video(page, part.stem)  # of the two the one of an episode
    facts = page.locator(".now dd")
    first = about["first_step"]
    assert first == 5  # at 50 frames a second, a step each
    expect(facts.nth(0)).to_have_text(f"{first + 1} / {about['episodic_length']}")
    expect(facts.nth(2)).to_have_text(f"{about['return_before'] + about['reward'][0]:g}")
    shutil.rmtree(run.directory)


def test_live_run_grows_while_it_is_open(folder: Folder, window: Window) -> None:
    live = folder.running("live")
    page = window.open("/run/live")
    wait_for_curve(page)
    before = curve_lengths(page)[0]
    expect(page.locator("#state .badge")).to_have_text("running")
    count = append_episodes(live, 5)
    beat(live, 432)
    expect(page.locator("#facts")).to_contain_text("432 / 480")
    wait_until(
        page, f"document.getElementById('curve').data[0].x.length === {count} && {count} > {before}"
    )
    assert (f"{window.server.url}/api/run/live", 200) in window.statuses
    shutil.rmtree(live)


def test_click_on_a_training_point_plays_that_episode(folder: Folder, window: Window) -> None:
    with (folder.tiny / "episodes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    page = window.open("/run/tiny")
    wait_for_curve(page)
    click_point(page, 0, 2)
    wait_for_video(page, f"training-{rows[2]['episode']}")
    expect(page.locator("#watching-title")).to_have_text(f"Training episode {rows[2]['episode']}")
    wait_until(page, "document.querySelector('video.front').currentTime > 0.1")
    length = rows[2]["episodic_length"]
    expect(page.locator(".now dd").nth(0)).to_have_text(re.compile(rf"\d+ / {length}"))
    expect(page.locator(".values")).to_contain_text("not kept while training")
    expect(page.locator(f"#videos li[data-video='training-{rows[2]['episode']}']")).to_be_visible()
    best = max(rows, key=lambda row: float(row["episodic_return"]))
    page.click("[data-moment='best']")
    wait_for_video(page, f"training-{best['episode']}")


def test_an_episode_that_the_server_has_forgotten_is_played_again(
    folder: Folder, make_window: Callable[..., Window]
) -> None:
    server = Server(folder.path)
    try:
        window = make_window(server=server)
        page = window.open("/run/tiny")
        wait_for_curve(page)
        for episode in (1, 2):
            page.fill("#number", str(episode))
            page.press("#number", "Enter")
            wait_for_video(page, f"training-{episode}")
    finally:
        server.stop()
    window.expected = "ERR_CONNECTION"
    server = Server(folder.path, server.port)
    try:
        page.click("#videos li[data-video='training-1'] button")
        wait_for_video(page, "training-1")
        wait_until(page, "document.querySelector('video.front').currentTime > 0.1")
        expect(page.locator(".panel")).to_be_visible()  # with its steps, not the picture alone
    finally:
        server.stop()


def test_two_moments_of_a_run_stay_in_step(folder: Folder, window: Window) -> None:
    page = window.open("/compare?run=game")
    wait_for_video(page, folder.early, ".seat:nth-child(1)")
    wait_for_video(page, folder.late, ".seat:nth-child(2)")
    times = "[...document.querySelectorAll('video.front')].map((video) => video.currentTime)"
    page.select_option(".transport select", "0.25")  # the shorter one must last for this test
    page.click(".transport .play")
    wait_until(page, f"{times}[0] > 0.2")
    for _ in range(5):
        one, other = page.evaluate(times)
        assert abs(one - other) < 0.05
        page.wait_for_timeout(80)
    page.keyboard.press("Space")
    wait_until(page, "[...document.querySelectorAll('video')].every((video) => video.paused)")
    frame = shown_frame(page, ".seat:nth-child(2)")
    page.keyboard.press("ArrowRight")
    for seat in (0, 1):
        wait_until(
            page,
            f"Math.abs(document.querySelectorAll('.seat')[{seat}].dataset.frame - {frame + 1}) < 1",
        )
    window.shoot("compare")
    # The shorter one ends by itself, the longer one goes on to its own end.
    page.select_option(".transport select", "1")
    page.click(".transport .play")
    wait_until(page, "document.querySelectorAll('.seat')[0].dataset.frame === '120'")
    wait_until(page, "document.querySelectorAll('.seat')[1].dataset.frame === '240'")
    expect(page.locator(".transport .play")).to_have_attribute("aria-label", "Play")


def test_runs_that_differ_in_their_seed_are_one_group_with_a_band(window: Window) -> None:
    page = window.open("/compare?run=tiny&run=other-seed")
    wait_for_curve(page)
    expect(page.locator("#groups li")).to_have_count(1)
    expect(page.locator("#groups li")).to_contain_text("2 runs")
    assert len(curve_lengths(page)) == 3  # low, high, and the line
    page.check("#what input[value='training']", force=True)
    wait_until(
        page, "document.getElementById('curve').layout.yaxis.title.text === 'training return, mean'"
    )
    page.check("#statistic input[value='iqm']", force=True)
    wait_until(
        page, "document.getElementById('curve').layout.yaxis.title.text.includes('interquartile')"
    )
    page.check("#axis input[value='time']", force=True)
    wait_until(page, "document.getElementById('curve').layout.xaxis.title.text === 'seconds'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_page_fits_its_width(
    folder: Folder,
    make_window: Callable[..., Window],
    size: dict[str, int],
    scheme: str,
) -> None:
    window = make_window(viewport=size, color_scheme=scheme)
    page = window.page
    name = f"{'phone' if size is PHONE else 'wide'}-{scheme}"
    ready: dict[str, Callable[[], object]] = {
        "/": lambda: page.wait_for_selector("#rows tr"),
        "/run/game": lambda: (wait_for_curve(page), wait_for_video(page, folder.late)),
        "/compare?run=game&run=tiny": lambda: (
            wait_for_curve(page),
            wait_for_video(page, folder.late, ".seat:nth-child(1)"),
        ),
    }
    for path, wait in ready.items():
        window.open(path)
        wait()
        wide, room = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= room, path
        window.shoot(
            f"{path.strip('/').split('?')[0].replace('/', '-') or 'list'}-{name}", whole=True
        )
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(part) for part in re.findall(r"\d+", background)[:3])
    assert (lightness > 600) == (scheme == "light")


def test_deleted_run_is_said_and_what_was_shown_stays(folder: Folder, window: Window) -> None:
    doomed = folder.running("doomed")
    page = window.open("/run/doomed")
    wait_for_curve(page)
    before = curve_lengths(page)
    window.expected = "404"
    shutil.rmtree(doomed)
    expect(page.locator(".notice")).to_contain_text("What was read before stays here.")
    assert curve_lengths(page) == before
    page.click(".notice .close")
    expect(page.locator(".notice")).to_have_count(0)
    page.reload()
    expect(page.locator("main")).to_contain_text("doomed")
    expect(page.get_by_role("link", name="All runs")).to_be_visible()
