"""Common Korean and English names of columns, tried while a setting has its default."""

from __future__ import annotations

from collections.abc import Sequence

TEXTS = (
    "text", "document", "sentence", "review", "content", "contents", "comment", "comments", "title", "body",
    "utterance", "텍스트", "문장", "내용", "리뷰", "본문", "댓글", "후기", "제목", "발화", "글", "기사", "원문",
)  # fmt: skip
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"),
    ("문장1", "문장2"), ("전제", "가설"), ("질문1", "질문2"),
)  # fmt: skip
LABELS = (
    "label", "labels", "gold_label", "class", "category", "sentiment", "emotion", "topic", "target", "score", "rating",
    "라벨", "레이블", "감정", "감성", "분류", "카테고리", "주제", "유형", "정답", "점수", "평점", "별점",
)  # fmt: skip
PROMPTS = (
    "prompt", "question", "q", "input", "instruction", "query", "질문", "입력", "지시", "지시문", "물음",
    "문의",
)  # fmt: skip
RESPONSES = (
    "response", "completion", "answer", "a", "output", "답변", "대답", "답", "출력", "응답", "정답", "generated",
)  # fmt: skip
GOOD_ANSWERS = ("chosen", "chosen_response", "preferred", "좋은답", "좋은_답", "좋은 답", "선호", "선호답변", "선택")
BAD_ANSWERS = (
    "rejected", "rejected_response", "dispreferred", "나쁜답", "나쁜_답", "나쁜 답", "비선호", "비선호답변", "거절",
)  # fmt: skip
JUDGEMENTS = ("kto_tag", "label", "liked", "judged", "좋음", "평가", "라벨")
QUESTIONS = ("question", "query", "질문", "물음")
CONTEXTS = ("context", "passage", "paragraph", "지문", "본문", "문단", "문맥")
ANSWERS = ("answers", "answer", "정답", "답변", "답")
QUERIES = (
    "question", "query", "queries", "anchor", "q", "sent0", "질문", "질의", "검색어", "물음", "문의",
)  # fmt: skip
PASSAGES = (
    "context", "passage", "positive", "pos", "positives", "positive_passages", "document", "doc", "paragraph", "sent1",
    "answer", "a", "정답문서", "정답 문서", "정답_문서", "지문", "문서", "문단", "본문", "문맥", "답변", "답",
)  # fmt: skip
DOCUMENTS = (  # one passage of a pair that is judged
    "context", "passage", "document", "doc", "paragraph", "text", "content", "문서", "지문", "본문", "문단", "문맥",
    "내용", "텍스트", "답변",
)  # fmt: skip
POSITIVES = (
    "positives", "positive", "pos", "positive_passages", "positive_passage", "정답문서", "정답 문서", "정답_문서",
)  # fmt: skip
CANDIDATES = ("passages", "documents", "docs", "candidates", "문서들", "문서 목록", "문서목록", "후보")
RELEVANCES = (*LABELS, "relevance", "relevant", "is_relevant", "scores", "관련", "관련도", "관련성", "적합도")
SOURCES = (
    "source", "src", "input", "text", "document", "question", "q", "ko", "질문", "입력", "원문", "본문", "문장",
    "한국어",
)  # fmt: skip
TARGETS = (
    "target", "tgt", "output", "summary", "answer", "a", "en", "답변", "대답", "답", "출력", "요약", "요약문", "번역",
    "번역문", "영어",
)  # fmt: skip


def pair_in(available: Sequence[str]) -> tuple[str, str] | None:
    """Find the columns of a common pair of texts.

    Args:
        available: Names of a source's columns.

    Returns:
        The two names as the source spells them, or None if it has no such pair or several.
    """
    spelled = {name.casefold(): name for name in available}
    found = [(spelled[first], spelled[second]) for first, second in PAIRS if {first, second} <= spelled.keys()]
    return found[0] if len(found) == 1 else None


def first_of(usual: Sequence[str], available: Sequence[str]) -> str | None:
    """Return the column that has the first of some usual names, as the source spells it; None where none has one."""
    spelled = {name.casefold(): name for name in available}
    return next((spelled[name] for name in usual if name in spelled), None)
