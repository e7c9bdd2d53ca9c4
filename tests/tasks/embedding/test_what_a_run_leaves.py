"""A run of embeddings from the command line: what it measures, writes and leaves, beside sentence-transformers."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.cli import Cli, Run
from tests.support.forked import stop_at
from tests.support.texts import NEGATIVE, POSITIVE

PREFIXES = ("질문: ", "문서: ")  # to YAML each is a key without a value


def pairs() -> list[tuple[str, str]]:
    """Questions of which two share a passage, so that a query has a right passage that is another's, too."""
    texts = [f"{(POSITIVE if number % 2 else NEGATIVE)[number // 2 % 5]} {number}" for number in range(40)]
    return [(text, f"{texts[number // 2 * 2]} 영화") for number, text in enumerate(texts)]


def in_beir_shape(home: Path, passages: list[str], questions: list[str], right: Mapping[int, int]) -> Path:
    """Write a corpus, queries, and judgements: place of a question → that of its passage."""
    (home / "qrels").mkdir(parents=True)
    for name, mark, texts in (("corpus", "d", passages), ("queries", "q", questions)):
        lines = [json.dumps({"_id": f"{mark}{n}", "text": text}, ensure_ascii=False) for n, text in enumerate(texts)]
        (home / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    judged = [f"q{number}\td{place}\t1" for number, place in right.items()]
    (home / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]), encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def run(cli: Cli, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    folder = tmp_path_factory.mktemp("search")
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("질문", "문서"), *pairs()])
    done = cli(
        "--task", "검색", "--model_name", tiny_model, "--dataset", folder / "train.csv", "--output_dir", folder / "out",
        "--epochs", "1", "--batch_size", "4", "--gradient_accumulation_steps", "2", "--max_length", "40",
        "--no-mixed_precision", "--set", f"data.dataset_cache_dir={folder / 'cache'}",
        "--set", f"embedding.query_prefix={PREFIXES[0]}", "--set", f"embedding.passage_prefix={PREFIXES[1]}",
        "--set", "data.validation_split=0.3", "--set", "logging.report=true",
        "--set", "data.train_rows=38", "--set", "data.test_rows=30",  # no limits of other rows than those of training
    )  # fmt: skip
    assert done.code == 0, done.err
    return folder, done


def vectors_of(cli: Cli, folder: Path, column: str, texts: list[str]) -> np.ndarray:
    with (folder / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(column,), *((text,) for text in texts)])
    out = folder / f"{column}.npy"
    done = cli("predict", "--output_dir", folder / "out", "--input", folder / "texts.csv", "--output", out)
    assert done.code == 0, done.err
    made: np.ndarray = np.load(out)
    return made


@pytest.fixture(scope="module")
def found(cli: Cli, run: tuple[Path, Run]) -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """All questions and passages with their vectors."""
    questions, passages = [question for question, _ in pairs()], list(dict.fromkeys(dict(pairs()).values()))
    return (
        questions, vectors_of(cli, run[0], "질문", questions), passages, vectors_of(cli, run[0], "문서", passages),
    )  # fmt: skip


def test_the_metrics_are_those_of_the_vectors_that_predict_writes(
    run: tuple[Path, Run], cli: Cli, found: tuple[list[str], np.ndarray, list[str], np.ndarray]
) -> None:
    folder, _ = run
    questions, queries, passages, corpus = found
    assert np.allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)
    done = cli("evaluate", "--output_dir", folder / "out", "--dataset", folder / "train.csv")
    assert done.code == 0, done.err
    metrics = json.loads((folder / "out" / "metrics-train.json").read_text(encoding="utf-8"))
    order = np.argsort(-(queries @ corpus.T), axis=1)
    right = [passages.index(dict(pairs())[question]) for question in questions]
    ranks = np.array([int(np.flatnonzero(row == place)[0]) for row, place in zip(order, right, strict=True)])
    assert metrics["recall_at_1"] == pytest.approx((ranks < 1).mean())
    assert metrics["mrr_at_10"] == pytest.approx(np.where(ranks < 10, 1 / (ranks + 1), 0).mean())
    assert metrics["ndcg_at_10"] == pytest.approx(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean())


def test_vectors_stand_beside_their_rows_in_parquet_and_json(run: tuple[Path, Run], cli: Cli) -> None:
    import pyarrow.parquet as pq

    folder, _ = run
    (folder / "both.csv").write_text("id,question,passage\n1,좋다,좋은 영화\n2,,없음\n", encoding="utf-8")
    flags = ("predict", "--output_dir", folder / "out", "--input", folder / "both.csv", "--output")
    assert cli(*flags, folder / "both.parquet").code == 0
    table = pq.read_table(folder / "both.parquet").to_pydict()
    assert table["id"] == ["1", "2"] and table["question_embedding"][1] is None
    assert len(table["question_embedding"][0]) == len(table["passage_embedding"][0]) == 32
    refused = cli(*flags, folder / "both.npy")
    assert refused.code == 3 and ".parquet" in refused.err
    lines = cli("predict", "--output_dir", folder / "out", stdin="좋다\n").out.splitlines()
    assert np.allclose(json.loads(lines[0])["embedding"], table["question_embedding"][0], atol=1e-5)


def test_the_report_shows_the_nearest_passages(run: tuple[Path, Run]) -> None:
    page = (run[0] / "out" / "report.html").read_text(encoding="utf-8")
    assert "정답 문서가 첫 번째가 아닌 질문" in page and "찾은 문서" in page
    assert "nDCG@10" in run[1].err
    with (run[0] / "out" / "errors.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(row["nearest"] != dict(pairs())[row["질문"]] and row["rank"] != "1" for row in rows)


def test_sentence_transformers_loads_the_folder_and_measures_the_same(
    run: tuple[Path, Run], found: tuple[list[str], np.ndarray, list[str], np.ndarray]
) -> None:
    package: Any = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    from finetuning.tasks.embedding.retrieval import metrics_of, search

    questions, queries, passages, corpus = found
    model = package.SentenceTransformer(str(run[0] / "out"), device="cpu")
    assert model.max_seq_length == 40 and model.similarity_fn_name == "cosine"
    assert np.abs(model.encode(questions, prompt_name="query") - queries).max() < 1e-5
    assert np.abs(model.encode(passages, prompt_name="document") - corpus).max() < 1e-5
    assert np.abs(model.encode_query(questions) - queries).max() < 1e-5
    right = {question: {passages.index(passage)} for question, passage in pairs()}
    right[questions[0]].add(5)  # a query with two passages
    measured = InformationRetrievalEvaluator(
        dict(enumerate(questions)), dict(enumerate(passages)),
        {place: right[question] for place, question in enumerate(questions)},
        precision_recall_at_k=[1, 5, 10], query_prompt_name="query", corpus_prompt_name="document",
    )(model)  # fmt: skip
    ours = metrics_of(search(queries, corpus, [right[question] for question in questions]))
    for name, value in ours.items():
        assert measured[f"cosine_{name.replace('_at_', '@')}"] == pytest.approx(value, abs=1e-6), name


def test_a_search_finds_what_the_vectors_say(
    run: tuple[Path, Run], cli: Cli, found: tuple[list[str], np.ndarray, list[str], np.ndarray]
) -> None:
    questions, queries, passages, corpus = found
    with (run[0] / "corpus.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("번호", "문서"), *enumerate(passages), (99, passages[0])])
    flags = ("predict", "--output_dir", run[0] / "out", "--corpus", run[0] / "corpus.csv", "--top", "2")
    done = cli(*flags, stdin=f"{questions[3]}\n\n{questions[8]}\n")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    for line, place in ((lines[0], 3), (lines[2], 8)):
        order = np.argsort(-(corpus @ queries[place]))[:2]
        assert [one["문서"] for one in line["passages"]] == [passages[row] for row in order]
        assert [int(one["번호"]) for one in line["passages"]] == order.tolist()
        assert line["passages"][0]["similarity"] == pytest.approx(float((corpus @ queries[place]).max()), abs=1e-5)
    assert "passages" not in lines[1]  # an empty line asks nothing
    assert cli("predict", "--output_dir", run[0] / "out", "--top", "2").code == 2


def test_a_search_in_a_whole_corpus_is_measured(
    run: tuple[Path, Run], cli: Cli, found: tuple[list[str], np.ndarray, list[str], np.ndarray]
) -> None:
    from finetuning.tasks.embedding.retrieval import metrics_of, search

    questions, queries, passages, corpus = found
    others = [f"{text} 책 {number}" for number, text in enumerate((*POSITIVE, *NEGATIVE))]
    vectors = np.concatenate([corpus, vectors_of(cli, run[0], "문서", others)])
    asked = range(0, len(questions), 2)
    right = [passages.index(dict(pairs())[questions[number]]) for number in asked]
    expected = metrics_of(search(queries[::2], vectors, [{place} for place in right]))
    home = in_beir_shape(run[0] / "beir", [*passages, *others], questions, dict(zip(asked, right, strict=True)))
    with (run[0] / "asked.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("질문", "문서"), *(pairs()[number] for number in asked)])
    flags = ("evaluate", "--output_dir", run[0] / "out", "--dataset")
    for split, words in (
        ("test", (home, "--split", "test")),  # the corpus is the folder's own
        ("asked", (run[0] / "asked.csv", "--corpus", home / "corpus.jsonl")),
    ):
        done = cli(*flags, *words)
        assert done.code == 0, done.err
        metrics = json.loads((run[0] / "out" / f"metrics-{split}.json").read_text(encoding="utf-8"))
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
        assert f"문서 {len(vectors)}개에서" in done.err


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_stopped_search_for_negatives_leaves_the_old_file(run: tuple[Path, Run]) -> None:
    folder = run[0]
    with (folder / "many.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("문서",), *((f"{POSITIVE[number % 5]} {number}",) for number in range(5000))])
    output = folder / "kept.jsonl"
    output.write_text("old\n", encoding="utf-8")
    words = ["mine", "--output_dir", str(folder / "out"), "--dataset", str(folder / "train.csv"), "--corpus",
             str(folder / "many.csv"), "--output", str(output)]  # fmt: skip
    for number, code in ((signal.SIGINT, 128 + signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)):
        ended, said = stop_at(words, "벡터에 필요한 메모리", number)
        assert ended == code, said
        assert number == signal.SIGKILL or "같은 명령을 다시 실행하면" in said
        assert output.read_text(encoding="utf-8") == "old\n"
        assert not [path for path in folder.iterdir() if "partial" in path.name]


def test_mined_negatives_are_data_to_train_on(run: tuple[Path, Run], cli: Cli, tiny_model: Path) -> None:
    folder, given = run[0], dict(pairs())
    mine = ("mine", "--output_dir", folder / "out", "--dataset", folder / "train.csv", "--negatives", "3")
    done = cli(*mine, "--margin", "0", "--output", folder / "mined.jsonl")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (folder / "mined.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["question"] for row in rows] == list(given)
    assert all(row["positives"] == [given[row["question"]]] for row in rows)
    assert all(set(row["negatives"]) <= set(given.values()) - set(row["positives"]) for row in rows)
    assert max(len(row["negatives"]) for row in rows) == 3 and "--margin 0" in done.err
    with_negatives = [row for row in rows if row["negatives"]]
    lines = [json.dumps(row, ensure_ascii=False) for row in with_negatives]
    (folder / "with.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for task in ("embedding", "reranker"):
        planned = cli("plan", "--task", task, "--model_name", tiny_model, "--dataset", folder / "with.jsonl",
                      "--output_dir", folder / task, "--set", f"data.dataset_cache_dir={folder / 'cache'}")  # fmt: skip
        assert planned.code == 0, planned.err
        assert planned.out.count("영 ##화") >= 3  # the negatives are among what the model reads
    refused = cli(*mine, "--output", folder / "mined.csv")
    assert refused.code == 2 and ".jsonl" in refused.err


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="onnx is not installed"
)
@pytest.mark.parametrize(("name", "least"), [("onnx", 0.999999), ("onnx-int8", 0.98)])
def test_onnx_gives_the_vectors_themselves(
    run: tuple[Path, Run], cli: Cli, found: tuple[list[str], np.ndarray, list[str], np.ndarray], name: str, least: float
) -> None:
    import onnxruntime
    from transformers import AutoTokenizer

    done = cli("export", "--output_dir", run[0] / "out", "--output", run[0] / name, "--format", name)
    assert done.code == 0 and "코사인 유사도가" in done.err, done.err
    session = onnxruntime.InferenceSession(str(run[0] / name / "model.onnx"))
    texts = [f"{PREFIXES[0]}{text}" for text in found[0]]
    inputs = AutoTokenizer.from_pretrained(run[0] / name)(texts, padding=True, return_tensors="np")
    (vectors,) = session.run(["sentence_embedding"], dict(inputs))
    assert (vectors * found[1]).sum(1).min() > least
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.skipif(find_spec("mteb") is None, reason="mteb is not installed")
def test_a_task_of_mteb_is_scored_on_the_files_of_a_folder(
    run: tuple[Path, Run], cli: Cli, found: tuple[list[str], np.ndarray, list[str], np.ndarray]
) -> None:
    from finetuning.tasks.embedding.retrieval import metrics_of, search

    questions, queries, passages, corpus = found
    right = [passages.index(dict(pairs())[question]) for question in questions]
    in_beir_shape(run[0] / "suite" / "AutoRAGRetrieval", passages, questions, dict(enumerate(right)))
    flags = ("evaluate", "--output_dir", run[0] / "out", "--suite_data", run[0] / "suite", "--suite")
    done = cli(*flags, "AutoRAGRetrieval")
    assert done.code == 0, done.err
    (task,) = json.loads((run[0] / "out" / "metrics-suite.json").read_text(encoding="utf-8"))["tasks"]
    expected = metrics_of(search(queries, corpus, [{place} for place in right]))
    assert task["metrics"]["ndcg_at_10"] == pytest.approx(expected["ndcg_at_10"], abs=2e-5)
    assert task["metrics"]["recall_at_1"] == pytest.approx(expected["recall_at_1"], abs=2e-5)
    assert task["rows"] == len(questions) and "base_metrics" in task
    wrong = cli(*flags, "AutoRAGRetreival")
    assert wrong.code == 2 and "AutoRAGRetrieval" in wrong.err


@pytest.mark.skipif(find_spec("mteb") is None, reason="mteb is not installed")
def test_pairs_of_mteb_are_scored_on_published_files(
    run: tuple[Path, Run], cli: Cli, found: tuple[list[str], np.ndarray, list[str], np.ndarray]
) -> None:
    from scipy.stats import spearmanr

    questions, queries, *_ = found
    scores = np.random.default_rng(0).permutation(len(questions) - 1) / 8
    rows = list(zip(questions, questions[1:], scores, strict=False))
    for name, file in (("KorSTS", "sts-test.tsv"), ("KLUE-STS", "klue-sts-v1.1_dev.json")):
        (run[0] / "pairs" / name).mkdir(parents=True)
        with (run[0] / "pairs" / name / file).open("w", encoding="utf-8", newline="") as written:
            if file.endswith(".tsv"):
                lines = csv.writer(written, delimiter="\t")
                lines.writerows([("sentence1", "sentence2", "score"), *rows])
            else:
                nested = [{"sentence1": one, "sentence2": two, "labels": {"label": score, "real-label": 0.0}}
                          for one, two, score in rows]  # fmt: skip
                json.dump(nested, written, ensure_ascii=False)
    flags = ("evaluate", "--output_dir", run[0] / "out", "--suite_data", run[0] / "pairs", "--suite")
    done = cli(*flags, "KorSTS,KLUE-STS")
    assert done.code == 0, done.err
    expected = spearmanr(scores, (queries[:-1] * queries[1:]).sum(1))[0]
    for task in json.loads((run[0] / "out" / "metrics-suite.json").read_text(encoding="utf-8"))["tasks"]:
        assert task["metrics"]["cosine_spearman"] == pytest.approx(expected, abs=1e-5) and task["rows"] == len(rows)
