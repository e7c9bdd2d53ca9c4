"""evaluate --suite, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.benchmarks import ROWS, write_suite_data
from tests.support.cli import Cli
from tests.support.runs import data_of

pytest.importorskip("lm_eval", reason="lm-eval is not installed")


@pytest.fixture(scope="module")
def run_folder(cli: Cli, tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a language model, with its report."""
    folder = tmp_path_factory.mktemp("run")
    words = ["--task", "text-generation", "--model_name", tiny_causal, "--dataset", data_of("text-generation", folder)]
    run = cli(
        *words, "--epochs", "1", "--learning_rate", "1e-2", "--max_length", "48", "--output_dir", folder / "model",
        "--set", "logging.report=true", "--set", f"data.dataset_cache_dir={folder / 'cache'}",
        "--set", "generation.max_new_tokens=4",
    )  # fmt: skip
    assert run.code == 0, run.err
    return folder / "model"


def test_scores_stand_beside_those_before_training_in_the_table_the_file_and_the_report(
    cli: Cli, run_folder: Path, tiny_causal: Path, tmp_path: Path
) -> None:
    data = write_suite_data(tmp_path / "data")
    cache = ["--set", f"data.dataset_cache_dir={tmp_path / 'cache'}"]
    words = ["evaluate", "--output_dir", run_folder, "--suite", "haerae, kobest_copa", "--suite_data", data, *cache]
    run = cli(*words)
    assert run.code == 0, run.err
    assert "학습 전" in run.out and "haerae_history" in run.out and "학습 전과 비교한 과제 6개" in run.out
    found = json.loads((run_folder / "metrics-suite.json").read_text(encoding="utf-8"))
    assert found["base"] == tiny_causal.name and found["rows"] == 6 * ROWS
    group = found["tasks"][0]
    assert group["task"] == "haerae" and group["rows"] == 5 * ROWS and "acc_stderr" in group["metrics"]
    difference = group["metrics"]["acc"] - group["base_metrics"]["acc"]
    assert group["change"]["difference"] == pytest.approx(difference) and group["change"]["stderr"] is not None
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert page.count("haerae_history") == 1 and "벤치마크" in page and page.rstrip().endswith("</html>")
    again = cli(*words)
    assert again.out == run.out and again.err.count("저장해 둔 점수") == 2
    assert (run_folder / "report.html").read_text(encoding="utf-8") == page
    alone = cli("evaluate", "--model_name", tiny_causal, "--task", "text-generation", *words[3:])
    assert alone.code == 0 and "학습 전" not in alone.out and "점수" in alone.out


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--suite", "haerae", "--suite_data", "{empty}"], 3, "HAERAE-HUB/HAE_RAE_BENCH(general_knowledge)"),
        (["--suite", "haerae"], 3, "--suite_data로 지정하세요"),
        (["--suite", " ,"], 2, "--suite kobest"),
        (["--suite_data", "{empty}"], 2, "--suite kobest"),
        (["--suite", "haerae", "--split", "test"], 2, "--split"),
    ],
)
def test_what_is_missing_is_told_with_what_to_do(
    cli: Cli, run_folder: Path, tmp_path: Path, flags: list[str], code: int, told: str
) -> None:
    run = cli("evaluate", "--output_dir", run_folder, *(flag.format(empty=tmp_path) for flag in flags))
    assert run.code == code and told in run.err and "Traceback" not in run.err


def test_an_encoder_is_refused(cli: Cli, tiny_model: Path) -> None:
    run = cli("evaluate", "--model_name", tiny_model, "--suite", "haerae")
    assert run.code == 2 and "생성 모델" in run.err
