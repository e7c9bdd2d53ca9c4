"""The fourth tab: what runs came to, beside each other and one by one."""

from __future__ import annotations

import csv
import itertools
import json
import re
from html import escape
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from finetuning.reporting.page.names import ERRORS, PAGE
from finetuning.reporting.run_rows import RunRow, score_text, tables_of
from finetuning.web.events import chosen_of
from finetuning.web.language import Say
from finetuning.web.shown import items, problem, record_table, said, shown, table
from finetuning.web.work import Work

_WRONG_ROWS, _MOST_COMPARED = 30, 10
_SCORE = re.compile(r"-?\d+\.\d{5,}")  # as the program writes them


def build_results(work: Work, say: Say, tab: gr.Tab) -> None:
    """Build the tab.

    Args:
        work: What the commands do.
        say: The language.
        tab: The tab, which reads the runs when it is opened.
    """
    every = gr.HTML(elem_id="results-all")
    run = gr.Dropdown([], label=say("자세히 볼 학습", "Run to look at"), elem_id="results-run")
    found, of_run = gr.HTML(elem_id="results-found"), gr.State(None)  # what is shown, and of which run
    newest = gr.State(None)  # the run that was chosen without being asked for
    with gr.Accordion(say("여러 학습의 곡선을 겹쳐 보기", "Curves of several runs in one"), open=False):
        several = gr.Dropdown([], multiselect=True, max_choices=_MOST_COMPARED, elem_id="results-several",
                              label=say("비교할 학습", "Runs to compare"))  # fmt: skip
        compare = gr.Button(say("비교하기", "Compare"), elem_id="results-compare")
        compared = gr.HTML()

    def opened(now: str | None, before: str | None) -> tuple[object, ...]:
        rows = work.runs()
        ended = [row for row in rows if row.state == "finished"]
        names = [row.name for row in ended]
        by_age = sorted(ended, key=lambda row: (row.folder / "summary.json").stat().st_mtime)
        chosen, unasked = chosen_of([row.name for row in by_age], now, before)
        shown_run = next((one for one in rows if one.name == chosen), None)
        detail = run_html(shown_run, say) if shown_run is not None else ""
        listed = gr.update(choices=names, value=chosen)
        return all_html(rows, say), listed, detail, chosen, gr.update(choices=names), unasked

    def looked(name: str | None, before: str | None) -> tuple[object, ...]:
        if name == before:
            return gr.skip(), gr.skip()
        row = next((one for one in work.runs() if one.name == name), None)
        return run_html(row, say) if row is not None else "", name

    def side_by_side(names: list[str]) -> str:
        if len(names) < 2:
            return problem(say("학습을 둘 이상 고르세요.", "Choose two runs or more."))
        return f"<iframe class='report' title='{shown(say('비교', 'comparison'))}' sandbox='allow-scripts' " \
               f"srcdoc='{escape(work.compared(names), quote=True)}'></iframe>"  # fmt: skip

    tab.select(opened, [run, newest], [every, run, found, of_run, several, newest])
    run.input(looked, [run, of_run], [found, of_run], trigger_mode="always_last")
    compare.click(side_by_side, several, compared)


def all_html(rows: list[RunRow], say: Say) -> str:
    """Return the tables of all runs, one for each task and metric, the best first."""
    if not rows:
        return said(say("아직 학습이 없습니다. 학습이 끝나면 여기에 나옵니다.", "No runs yet."))
    return "".join(f"<h4>{shown(one.title)}</h4>{table(one.columns, one.cells)}" for one in tables_of(rows))


def run_html(row: RunRow, say: Say) -> str:
    """Return one run: its verdict, the rows that are wrong, and its report."""
    parts = [f"<h4>{shown(row.name)}: {shown(score_text(row))}</h4>"]
    try:
        quality = json.loads((row.folder / "summary.json").read_text(encoding="utf-8")).get("quality") or {}
        findings = [" ".join(filter(None, (one["text"], one["remedy"]))) for one in quality.get("findings") or ()]
    except (OSError, ValueError, KeyError, TypeError):
        findings = []
    parts.append(items(findings))
    address = f"/run-file/{quote(row.name)}"
    if (row.folder / ERRORS).is_file():
        heading, more = say("틀린 행 (확신이 큰 것부터)", "Wrong rows (the surest first)"), say("모두 내려받기", "All")
        parts.append(f"<h4>{shown(heading)}</h4>{wrong_rows(row.folder / ERRORS)}")
        parts.append(f"<p><a href='{address}/{ERRORS}'>{shown(more)} ({ERRORS})</a></p>")
    if (row.folder / PAGE).is_file():
        title = say("학습 보고서", "Report")
        parts.append(
            f"<h4>{shown(title)}</h4><p><a href='{address}/{PAGE}' target='_blank'>"
            f"{shown(say('새 창에서 보기', 'Open in a window of its own'))}</a></p>"
            f"<iframe class='report' title='{shown(title)}' src='{address}/{PAGE}'></iframe>"
        )
    return "".join(parts)


def wrong_rows(path: Path) -> str:
    """Return the first rows of errors.csv as a table."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(itertools.islice(reader, _WRONG_ROWS))
    columns = reader.fieldnames or []
    own = next((name for name in ("predicted_score", "score") if name in columns), None)
    return record_table(columns, ({name: _shown(cell, name == own) for name, cell in row.items()} for row in rows))


def _shown(cell: str | None, is_score: bool) -> str | None:
    """Return the program's own score as a person reads it; the user's cells as they are."""
    return f"{float(cell):.3f}" if cell and is_score and _SCORE.fullmatch(cell) else cell
