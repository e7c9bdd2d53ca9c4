"""What tasks and columns are called on the page: a sentence that says what the model will do."""

from __future__ import annotations

from finetuning.cells import ROLE_NAMES
from finetuning.web.language import Say


def task_choices(say: Say) -> list[tuple[str, str]]:
    """Return a sentence for each task, and the task's name."""
    return [
        (say("글을 읽고 종류를 맞힙니다 (긍정과 부정, 주제, 문의 유형)", "Sort texts into kinds (sentiment, topic)"),
         "text-classification"),
        (say("글 하나에 라벨을 여러 개 붙입니다", "Put several labels on a text"), "multi-label-classification"),
        (say("글에 점수를 매깁니다", "Give texts a score"), "text-regression"),
        (say("글에서 사람, 장소, 날짜 같은 이름을 찾습니다", "Find names, places, dates in texts"),
         "token-classification"),
        (say("문장에서 어절 사이의 관계를 찾습니다 (구문 분석)", "Find how words depend on each other"),
         "dependency-parsing"),
        (say("문서에서 질문의 답을 찾습니다", "Find the answer to a question in a passage"), "question-answering"),
        (say("질문에 답하는 챗봇을 만듭니다", "Make a chatbot that answers questions"), "text-generation"),
        (say("글을 다른 글로 바꿉니다 (번역, 요약)", "Turn texts into others (translation, summary)"),
         "text2text-generation"),
        (say("질문에 맞는 문서를 찾습니다 (검색)", "Find the passages that fit a question (search)"), "embedding"),
        (say("검색 결과의 순서를 다시 매깁니다", "Put search results into a better order"), "reranker"),
        (say("검색 결과의 순서를 생성 모델로 다시 매깁니다", "The same with a language model"), "causal-reranker"),
        (say("좋은 답과 나쁜 답을 비교해 더 나은 답을 하게 합니다", "Prefer good answers to bad ones"), "preference"),
        (say("답에 점수를 매기는 모델을 만듭니다", "Make a model that scores answers"), "reward"),
        (say("정답 없이 글만으로 내 분야의 말을 익힙니다", "Learn the language of my field from texts alone"),
         "fill-mask"),
    ]  # fmt: skip


def column_question(role: str, say: Say) -> str:
    """Return the question that asks for a column."""
    questions = {
        "text": ("글은 어느 열에 있습니까?", "Which column has the text?"),
        "text_pair": ("두 번째 글은 어느 열에 있습니까?", "Which column has the second text?"),
        "label": ("정답(라벨)은 어느 열에 있습니까?", "Which column has the right answer (label)?"),
        "prompt": ("질문이나 입력은 어느 열에 있습니까?", "Which column has the question or input?"),
        "response": ("대답이나 출력은 어느 열에 있습니까?", "Which column has the answer or output?"),
        "question": ("질문은 어느 열에 있습니까?", "Which column has the question?"),
        "context": ("지문(문서)은 어느 열에 있습니까?", "Which column has the passage?"),
        "answers": ("정답은 어느 열에 있습니까?", "Which column has the answers?"),
        "messages": ("대화는 어느 열에 있습니까?", "Which column has the conversation?"),
        "chosen": ("좋은 답은 어느 열에 있습니까?", "Which column has the good answer?"),
        "rejected": ("나쁜 답은 어느 열에 있습니까?", "Which column has the bad answer?"),
    }
    if role in questions:
        return say(*questions[role])
    name = ROLE_NAMES.get(role, role)
    return say(f"어느 열에 있습니까: {name}", f"Which column: {role}")


def given_as(role: str, say: Say) -> str:
    """Return what a text is called that a trained model is given."""
    english = {"text": "Text", "text_pair": "Second text", "question": "Question", "context": "Passage",
               "prompt": "Input"}  # fmt: skip
    return say(ROLE_NAMES.get(role, role), english.get(role, role))
