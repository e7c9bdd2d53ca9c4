"""The page in a real browser: from a dropped file to a model that answers, what goes wrong, a keyboard, a phone."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.browsers import chromium
from tests.support.paths import ROOT
from tests.support.summaries import write_finished

_LONG_MS = 240_000
_WIDE, _PHONE = {"width": 1000, "height": 900}, {"width": 360, "height": 740}
# Parts of the stream of answers are held back, as on a busy machine, where it is closed while something is asked for.
_LATE_ANSWERS = """(() => {
  const plain = window.fetch;
  window.fetch = async (...given) => {
    const answer = await plain(...given);
    if (!String(given[0].url ?? given[0]).includes("/queue/data")) return answer;
    const later = new TransformStream({ async transform(part, out) {
      await new Promise(go => setTimeout(go, 150));
      out.enqueue(part);
    } });
    return new Response(answer.body.pipeThrough(later), answer);
  };
})()"""


@dataclass(frozen=True)
class Board:
    """A page that is served.

    Attributes:
        address: Its address.
        runs: The folder of its runs.
    """

    address: str
    runs: Path


@dataclass
class Heard:
    """What a browser said and asked for."""

    errors: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def listen(self, page: Any) -> None:
        page.on("console", self.hear)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.urls.append(request.url))

    def hear(self, said: Any) -> None:
        """Note an error, but for one: Gradio gives up telling how far an upload is that begins seconds late."""
        address = (said.location or {}).get("url", "")
        if said.type == "error" and "/upload_progress?" not in address:
            self.errors.append(f"{said.text} {address}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def board(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A page that people of other machines may open, by the token in its address. The hub cannot be reached."""
    pytest.importorskip("gradio", minversion="6.0.0", reason="the page needs Gradio 6 (make board)")
    runs = tmp_path_factory.mktemp("board") / "models"
    words = ["board", str(runs), "--host", "0.0.0.0", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "finetuning_app.py"), *words], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        encoding="utf-8", start_new_session=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    told = process.stdout.readline().rpartition(" ")[2].strip()
    _, _, port_and_token = told.removeprefix("http://").partition(":")
    yield Board(f"http://127.0.0.1:{port_and_token}", runs)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT


@pytest.fixture(scope="module")
def context(browser: Any, board: Board) -> Iterator[Any]:
    """Windows of one person; nothing may go wrong in them, and nothing may be fetched from elsewhere."""
    heard, made = Heard(), browser.new_context(viewport=_WIDE)
    made.set_default_timeout(60_000)
    made.on("page", heard.listen)
    first = made.new_page()
    first.goto(board.address)  # with the token; a cookie has it from here on
    first.close()
    yield made
    made.close()
    assert heard.errors == []
    here = board.address.partition("?")[0]
    assert [url for url in heard.urls if not url.startswith((here, "data:", "blob:", "about:"))] == []


@pytest.fixture
def page(context: Any, board: Board) -> Iterator[Any]:
    """A window with the page."""
    opened = context.new_page()
    opened.goto(board.address.partition("?")[0])
    opened.wait_for_selector("#data-example")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def trained(context: Any, board: Board) -> str:
    """The name of a run that has ended: dropped as Excel saves a CSV, with settings typed as fast as can be."""
    page = context.new_page()
    page.goto(board.address.partition("?")[0])
    drop(page, "리뷰.csv", reviews_csv().encode("cp949"))
    page.wait_for_selector("#data-found h4")
    found = page.inner_text("#data-found")
    assert "라벨 2가지" in found and "CP949" in found.upper()
    open_tab(page, "3. 학습")
    page.wait_for_selector("#train-command code")
    page.get_by_text("설정 바꾸기").click()
    wait_for_settings(page)
    for key, value in (("training-epochs", "2"), ("data-batch_size", "8"), ("data-max_length", "32")):
        page.fill(f"#{key} :is(input, textarea)", value)
    page.fill("#train-key input", "model.adapter.method")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=기본값: none")
    page.fill("#train-value :is(input, textarea)", "lora")
    for words in ("--epochs 2", "--batch_size 8", "--max_length 32", "model.adapter.method=lora"):
        page.wait_for_selector(f"#train-command code >> text={words}")
    page.click("#train-start")
    page.wait_for_selector("#train-message >> text=학습을 시작했습니다")  # until then another run is shown
    page.wait_for_selector("#train-live >> text=학습이 끝났습니다", timeout=_LONG_MS)
    assert "정답" in page.inner_text("#train-live"), "a few rows with their predictions"
    page.wait_for_selector("#train-live figure svg")
    page.wait_for_function("document.querySelector('#train-runs input').value == '리뷰 (끝남)'")
    page.close()
    return "리뷰"


def reviews_csv(rows: int = 60) -> str:
    lines = [f"정말 재미있는 영화 {n},긍정\n지루하고 별로인 영화 {n},부정\n" for n in range(rows)]
    return "리뷰,감정\n" + "".join(lines)


def drop(page: Any, name: str, data: bytes) -> None:
    page.set_input_files(
        "#data-file input[type=file]", {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    )


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_runs_wait_their_turn_and_go_on_after_the_page_was_closed(page: Any, context: Any, board: Board) -> None:
    start_run(page, "끝없는-학습.csv", epochs="10000")
    page.wait_for_selector("#train-live progress", timeout=_LONG_MS)
    open_tab(page, "2. 모델")
    page.get_by_label("klue/roberta-small").click()  # of the hub, which cannot be reached
    open_tab(page, "3. 학습")
    wait_for_command(page, "klue/roberta-small")
    page.click("#train-start")
    page.wait_for_selector("#train-live >> text=차례를 기다립니다")
    watch(page, "끝없는-학습")
    page.wait_for_selector("#train-live progress")
    page.click("#train-stop")
    page.wait_for_selector("#train-live >> text=멈췄습니다", timeout=_LONG_MS)
    page.close()
    later = context.new_page()
    later.goto(board.address.partition("?")[0])
    open_tab(later, "3. 학습")
    watch(later, "끝없는-학습-2")
    later.wait_for_selector("#train-live .problem", timeout=_LONG_MS)  # it was started as soon as the other one ended
    assert "klue/roberta-small" in later.inner_text("#train-live .problem")
    watch(later, "끝없는-학습")
    later.wait_for_selector("#train-live >> text=멈췄습니다")
    later.click("#train-resume")
    later.wait_for_selector("#train-live progress", timeout=_LONG_MS)
    later.click("#train-stop")
    later.wait_for_selector("#train-live >> text=멈췄습니다", timeout=_LONG_MS)
    later.close()
    log = (board.runs / ".board" / "끝없는-학습.log").read_text(encoding="utf-8")
    assert "체크포인트에서 이어서 학습합니다" in log


def start_run(page: Any, name: str, epochs: str) -> None:
    """Drop a file of reviews and train on it, without the preset: it ends runs that no longer improve."""
    drop(page, name, reviews_csv().encode())
    page.wait_for_selector("#data-found table")
    open_tab(page, "3. 학습")
    page.uncheck("#train-preset input")
    page.get_by_text("설정 바꾸기").click()
    wait_for_settings(page)
    page.fill("#training-epochs :is(input, textarea)", epochs)
    page.wait_for_selector("#train-command code:not(:has-text('training.preset'))")
    page.wait_for_selector(f"#train-command code >> text=--epochs {epochs}")
    page.click("#train-start")


def choose(page: Any, box: str, name: str) -> None:
    """Choose from the list of a box; that of another one may not be closed yet."""
    page.click(f"{box} input")
    page.locator(box).get_by_role("option", name=name, exact=True).click()


def watch(page: Any, name: str) -> None:
    """Choose the run that is shown."""
    page.click("#train-runs input")
    page.locator("#train-runs").get_by_role("option", name=f"{name} (").click()


def test_the_whole_job_on_a_phone(page: Any, trained: str) -> None:
    page.set_viewport_size(_PHONE)
    for place in range(6):
        page.get_by_role("tab").nth(place).wait_for()  # in sight, and not in a menu
    drop(page, "리뷰.csv", reviews_csv().encode())
    page.wait_for_selector("#data-found table")
    check_width(page)
    page.click("#next-1")
    page.wait_for_selector("#model-offers input")
    page.click("#model-check")
    page.wait_for_selector("#model-found >> text=충분합니다", timeout=_LONG_MS)
    assert "예상 시간" in page.inner_text("#model-found")
    check_width(page)
    page.click("#next-2")
    page.wait_for_selector("#train-command code")
    check_width(page)
    page.click("#next-3")
    page.wait_for_selector("#results-found iframe")
    assert "정확도" in page.inner_text("#results-found")
    page.frame_locator("#results-found iframe").get_by_text("판정").first.wait_for(state="attached")
    check_width(page)
    page.click("#next-4")
    page.wait_for_function("name => document.querySelector('#try-model input')?.value == name", arg=trained)
    page.click("#try-load")
    page.wait_for_selector("#try-text-0 textarea", timeout=_LONG_MS)
    page.fill("#try-text-0 textarea", "정말 재미있어요")
    page.click("#try-ask")
    page.wait_for_selector("#try-answers h3")
    assert page.inner_text("#try-answers h3") in ("긍정", "부정")
    check_width(page)
    page.click("#next-5")
    page.wait_for_selector("#take-links a")
    check_width(page)
    with page.expect_download() as got:
        page.click("#take-links a")
    assert got.value.suggested_filename == f"{trained}.zip"


@pytest.fixture
def second(board: Board, tmp_path: Path) -> Iterator[Path]:
    """A folder for one more run, gone when the test ends, of a name of its own: a model stays loaded by its name."""
    yield board.runs / tmp_path.name
    shutil.rmtree(board.runs / tmp_path.name)


def test_two_runs_are_compared_and_their_models_answer_side_by_side(
    page: Any, trained: str, board: Board, second: Path
) -> None:
    shutil.copytree(board.runs / trained, second)
    open_tab(page, "4. 결과")
    page.wait_for_selector("#results-found iframe")
    page.get_by_text("여러 학습의 곡선을 겹쳐 보기").click()
    for name in (trained, second.name):
        choose(page, "#results-several", name)
    page.keyboard.press("Escape")
    page.click("#results-compare")
    for name in (trained, second.name):
        page.frame_locator("iframe[title=비교]").get_by_text(name).first.wait_for(state="attached")
    open_tab(page, "5. 써 보기")
    page.wait_for_function("document.querySelector('#try-model input')?.value")
    for box, name in (("#try-model", trained), ("#try-second", second.name)):
        choose(page, box, name)
    page.click("#try-load")
    page.fill("#try-text-0 textarea", "정말 재미있어요", timeout=_LONG_MS)
    page.click("#try-ask")
    page.wait_for_selector("#try-answers section:nth-of-type(2) h3")
    first, second = page.locator("#try-answers h3").all_inner_texts()
    assert first == second


def test_names_are_found_in_colour(page: Any, second: Path, tiny_model: Path) -> None:
    write_tagger(second, tiny_model)
    open_tab(page, "5. 써 보기")
    page.wait_for_function("name => document.querySelector('#try-model input')?.value == name", arg=second.name)
    page.click("#try-load")
    page.fill("#try-text-0 textarea", "재미있는 영화", timeout=_LONG_MS)
    page.click("#try-ask")
    page.wait_for_selector("#try-answers mark")
    assert "PS" in page.inner_text("#try-answers mark sub")
    colour = page.locator("#try-answers mark").first.evaluate("mark => getComputedStyle(mark).backgroundColor")
    assert colour not in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")


def write_tagger(folder: Path, tiny_model: Path) -> None:
    """Write a run whose model takes every word for the name of a person."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForTokenClassification

    names = ["O", "B-PS", "I-PS"]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
    model = BertForTokenClassification(BertConfig.from_pretrained(tiny_model, **labels))
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 20.0, 0.0]))
    model.save_pretrained(write_finished(folder, task="token-classification"))
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    (folder / "settings.yaml").write_text("model: {task: token-classification}\n", encoding="utf-8")


def test_a_conversation_is_stopped_goes_on_and_begins_anew(page: Any, second: Path, tiny_causal: Path) -> None:
    write_talker(second, tiny_causal)
    open_tab(page, "5. 써 보기")
    page.wait_for_function("name => document.querySelector('#try-model input')?.value == name", arg=second.name)
    page.click("#try-load")
    say(page, "첫째 말", wait="#try-stop")
    assert page.is_disabled("#try-ask") and page.inner_text("#try-ask") == "답하고 있습니다"
    page.click("#try-stop")
    page.wait_for_selector("#try-answers >> text=여기서 멈췄습니다")
    page.wait_for_selector("#try-stop", state="hidden")
    page.get_by_text("생성 설정").click()
    page.fill("#try-temperature :is(input, textarea)", "뜨겁게")
    page.click("#try-load")
    page.wait_for_selector("#try-state .problem")
    page.fill("#try-temperature :is(input, textarea)", "0.7")
    page.fill("#try-tokens :is(input, textarea)", "5")
    page.click("#try-load")
    for turns, text in enumerate(("둘째 말", "셋째 말"), start=1):
        say(page, text, wait=f":nth-match(#try-answers .text:text-is('aaaaa'), {turns})")
    assert page.locator("#try-answers .asked").all_inner_texts() == ["둘째 말", "셋째 말"]
    page.click("#try-again")
    page.wait_for_selector("#try-answers >> text=대화를 지웠습니다")
    say(page, "새로 하는 말", wait="#try-answers .text:text-is('aaaaa')")
    assert page.locator("#try-answers .asked").all_inner_texts() == ["새로 하는 말"]


def say(page: Any, text: str, wait: str) -> None:
    """Say something to a model that chats, and wait for what follows."""
    page.fill("#try-text-0 textarea", text, timeout=_LONG_MS)
    page.click("#try-ask")
    page.wait_for_selector(wait)
    assert page.input_value("#try-text-0 textarea") == ""


def write_talker(folder: Path, tiny_causal: Path) -> None:
    """Write a run whose model answers `aaa` with as many tokens as it may, which are endless unless it is told."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}"
    model = AutoModelForCausalLM.from_pretrained(tiny_causal)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.get_input_embeddings().weight.fill_(1.0)
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("a")] = 1.0
    model.config.tie_word_embeddings = False
    model.save_pretrained(write_finished(folder, task="text-generation"))
    tokenizer.save_pretrained(folder)
    settings = "model: {task: text-generation}\ngeneration: {max_new_tokens: 100000}\n"
    (folder / "settings.yaml").write_text(settings, encoding="utf-8")


def check_width(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= _PHONE["width"]


def test_the_whole_job_by_the_keyboard_while_answers_come_late(context: Any, board: Board, trained: str) -> None:
    page = context.new_page()
    page.add_init_script(_LATE_ANSWERS)
    page.goto(board.address.partition("?")[0])
    page.wait_for_selector("#data-example")
    press(page, "#data-example")
    page.wait_for_selector("#data-found h4")
    press(page, "#next-1")
    page.wait_for_selector("#model-offers input")
    press(page, "#next-2")
    page.wait_for_selector("#train-command code")
    retype(page, "#train-name :is(input, textarea)", "손으로-쓴-이름")
    press(page, "#train-settings > button")
    wait_for_settings(page)
    retype(page, "#training-epochs :is(input, textarea)", "10000")
    wait_for_command(page, "--epochs 10000")
    wait_for_command(page, "손으로-쓴-이름")
    press(page, "#train-start")
    page.wait_for_selector("#train-stop:not([disabled])", timeout=_LONG_MS)
    press(page, "#train-stop")
    page.wait_for_selector("#train-live >> text=멈췄습니다", timeout=_LONG_MS)
    press(page, "#next-3")
    page.wait_for_selector("#results-found iframe")
    press(page, "#next-4")
    page.wait_for_function("name => document.querySelector('#try-model input')?.value == name", arg=trained)
    press(page, "#try-load")
    page.wait_for_selector("#try-text-0 textarea", timeout=_LONG_MS)
    tab_to(page, "#try-text-0 textarea")
    page.keyboard.type("정말 재미있어요")
    press(page, "#try-ask")
    page.wait_for_selector("#try-answers h3")
    press(page, "#next-5")
    page.wait_for_selector("#take-links a")
    press(page, "#take-export")
    page.wait_for_selector("#take-found li", timeout=_LONG_MS)
    assert "model.safetensors" in page.inner_text("#take-found")
    page.close()


def test_what_is_chosen_stays_when_the_focus_passes_by(page: Any) -> None:
    drop(page, "리뷰.csv", reviews_csv().encode())
    page.wait_for_selector("#data-found table")
    open_tab(page, "3. 학습")
    page.get_by_text("설정 바꾸기").click()
    wait_for_settings(page)
    page.fill("#train-name :is(input, textarea)", "내-이름")
    page.fill("#data-max_length :is(input, textarea)", "48")
    wait_for_command(page, "--max_length 48")
    open_tab(page, "1. 데이터")
    tab_to(page, "#next-1")  # past all lists
    page.keyboard.press("Enter")
    tab_to(page, "#next-2")
    page.keyboard.press("Enter")
    page.fill("#data-batch_size :is(input, textarea)", "4")  # is answered behind what the focus has asked for
    wait_for_command(page, "--batch_size 4")
    command = page.inner_text("#train-command code")
    assert "--max_length 48" in command and "내-이름" in command


def wait_for_settings(page: Any) -> None:
    """Wait until the opened boxes stand still: a frame after they appeared Gradio empties them once more."""
    page.click("#training-epochs label", trial=True)


def wait_for_command(page: Any, words: str) -> None:
    """Wait until the command that is shown has some words."""
    try:
        page.wait_for_selector(f"#train-command code >> text={words}")
    except Exception as error:
        boxes = page.eval_on_selector_all("#train-settings textarea", "all => all.map(one => one.value)")
        raise AssertionError(f"not in {page.inner_text('#train-command')!r}; the boxes have {boxes}") from error


def press(page: Any, selector: str) -> None:
    tab_to(page, selector)
    page.keyboard.press("Enter")


def retype(page: Any, selector: str, text: str) -> None:
    tab_to(page, selector)
    page.keyboard.press("Control+A")
    page.keyboard.type(text)


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(150):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
    raise AssertionError(f"the keyboard does not reach {selector}")


def sheet(lines: list[list[str]]) -> bytes:
    from openpyxl import Workbook

    book, written = Workbook(), io.BytesIO()
    for line in lines:
        book.active.append(line)
    book.save(written)
    return written.getvalue()


def test_sheets_and_jsonl_are_read(page: Any) -> None:
    lines = [line.split(",") for line in reviews_csv().splitlines()]
    records = [json.dumps({"문장": text, "분류": label}, ensure_ascii=False) for text, label in lines[1:]]
    for name, data, columns in (
        ("리뷰.xlsx", sheet(lines), ("리뷰", "감정")), ("리뷰.jsonl", "\n".join(records).encode(), ("문장", "분류")),
    ):  # fmt: skip
        drop(page, name, data)
        page.wait_for_selector(f"#data-found th >> text={columns[0]}")
        assert "라벨 2가지" in page.inner_text("#data-found")
        asked = [page.input_value(f"#data-column-{place} input") for place in (0, 1)]
        assert asked == [*columns]
        page.click("#data-file button[aria-label]")  # takes the file away again
        page.wait_for_selector("#data-file input[type=file]", state="attached")


@pytest.mark.parametrize(("name", "data"), [("사진.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), ("빈.csv", b"")])
def test_a_wrong_file_is_told_of_in_place(page: Any, name: str, data: bytes) -> None:
    drop(page, name, data)
    page.wait_for_selector("#data-found .problem")
    assert name in page.inner_text("#data-found")


def test_a_file_that_is_too_large_is_told_of_before_it_is_sent(page: Any, tmp_path: Path) -> None:
    large = tmp_path / "너무 큰 파일.csv"
    with large.open("wb") as file:
        file.truncate(3 * 2**30)  # holes, which take no space
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_input_files("#data-file input[type=file]", large)
    page.wait_for_selector("#data-file .problem")
    told = page.inner_text("#data-file .problem")
    assert large.name in told and "3.0 GiB" in told and "2 GiB까지" in told and "나누어" in told
    drop(page, "리뷰.csv", reviews_csv().encode())
    page.wait_for_selector("#data-found table")
    assert page.locator("#data-file .problem").count() == 0
    assert len([url for url in asked if "/upload?" in url]) == 1


def test_a_wrong_column_value_and_path_are_told_of_in_place(page: Any) -> None:
    drop(page, "리뷰.csv", reviews_csv().encode())
    page.wait_for_selector("#data-found table")
    choose(page, "#data-column-1", "리뷰")
    page.wait_for_selector("#data-found .problem")
    assert "리뷰" in page.inner_text("#data-found .problem")
    choose(page, "#data-column-1", "감정")
    page.wait_for_selector("#data-found .problem", state="detached")
    open_tab(page, "3. 학습")
    page.wait_for_selector("#train-command code")
    page.get_by_text("설정 바꾸기").click()
    wait_for_settings(page)
    epochs = page.locator("#training-epochs").locator("input, textarea")
    for wrong in ("x", "1.5", "-1"):
        epochs.fill(wrong)
        page.wait_for_selector(f"#train-command .problem >> text={wrong}")
        assert "training.epochs" in page.inner_text("#train-command")
    epochs.fill("2")
    wait_for_command(page, "--epochs 2")
    open_tab(page, "1. 데이터")
    page.get_by_text("다른 방법").click()
    path = page.locator("#data-path").locator("input, textarea")
    path.click()  # waits until what was opened stands still
    path.press_sequentially("/etc/hosts")
    page.click("#data-read")
    page.wait_for_selector("#data-found .problem")
    assert "폴더 밖" in page.inner_text("#data-found")


def test_the_other_language_is_there(page: Any, board: Board) -> None:
    link = page.get_by_role("link", name="English").get_attribute("href")
    answer = page.request.get(board.address.partition("/?")[0] + link, headers={"accept": "text/html"})
    assert answer.ok and "Fine-tuning for Korean" in answer.text()
