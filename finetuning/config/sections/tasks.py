"""Settings of single tasks, and of the texts that tasks generate.

A new task's section goes here. Unless it says otherwise, a resumed run must have the same values, and the cached rows
and examples depend on them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetuning.config.metadata import CacheRule, ResumeRule, Section, setting
from finetuning.config.value_types import (
    Boolean,
    Integer,
    NonNegativeInteger,
    NonNegativeNumber,
    Number,
    PathText,
    PositiveInteger,
    PositiveNumber,
    Prefix,
    Text,
)


class FillMaskSettings(Section):
    """How the fill-mask task masks. Masks are drawn at each step, so the examples do not depend on these."""

    cache_rule: ClassVar[CacheRule] = "none"

    mask_probability: Annotated[Number, Field(gt=0, lt=1)] = setting(
        0.15,
        "fill-mask에서 가릴 어절(`whole_word: false`이면 토큰)의 비율",
        "share of words that fill-mask masks, or of tokens with `whole_word: false`",
    )
    whole_word: Boolean = setting(True, "어절을 통째로 가릴지", "whether whole words are masked")


class TextClassificationSettings(Section):
    """How classification and regression read documents longer than the model takes at once."""

    cache_rule: ClassVar[CacheRule] = "examples"

    long_documents: Literal["cut", "pool"] = setting(
        "cut",
        "`data.max_length`보다 긴 텍스트를 자르거나(`cut`) 구간으로 나누어 끝까지 읽습니다(`pool`)",
        "cuts texts longer than `data.max_length` (`cut`), or reads them whole in windows (`pool`)",
        more=(
            "`pool`에서는 구간마다 구한 logits의 평균이 그 텍스트의 logits입니다. 한 텍스트의 구간은 함께 계산하므로 "
            "텍스트가 길수록 메모리가 더 듭니다. 텍스트 쌍에는 쓸 수 없습니다",
            "Under `pool` the logits of a text are the mean of its windows' logits. The windows of a text are computed "
            "together, so longer texts take more memory. It does not read pairs of texts",
        ),
    )
    doc_stride: NonNegativeInteger = setting(
        64,
        "`pool`에서 나눈 구간이 서로 겹치는 최대 토큰 수. 구간의 절반을 넘지 않게 합니다",
        "most tokens by which windows overlap under `pool`; at most half a window",
    )
    sentence_ends: Literal["kiwi", "punctuation", "tokens"] | None = setting(
        None,
        "`pool`에서 텍스트를 나누는 곳: `kiwi`(kiwipiepy가 찾은 문장 끝), `punctuation`(문장 부호와 줄 끝), "
        "`tokens`(어디서나). `null`이면 kiwipiepy가 있을 때 `kiwi`, 없으면 `punctuation`",
        "where `pool` divides a text: `kiwi` (ends of sentences by kiwipiepy), `punctuation` (by punctuation and "
        "lines) or `tokens` (anywhere); `null` is `kiwi` where kiwipiepy is installed, else `punctuation`",
    )


class QuestionAnsweringSettings(Section):
    """How the question-answering task cuts long contexts and words, and how long an answer may be."""

    doc_stride: PositiveInteger = setting(
        128,
        "긴 지문을 나눈 구간이 서로 겹치는 토큰 수. 구간의 절반을 넘지 않게 합니다",
        "number of tokens by which the windows of a long context overlap; at most half a window",
        cache="examples",
    )
    cut_particles: Boolean = setting(
        True,
        "tokenizer가 조사 앞과 문장 부호, 숫자에서 단어를 자르게 합니다. 답에 조사가 붙지 않습니다",
        "has the tokenizer cut words before particles and around marks and numbers: no particle sticks to an answer",
        more=("측정한 EM과 F1은 docs/tasks.md에 있습니다", "docs/tasks.en.md has EM and F1 as measured"),
        cache="examples",
    )
    max_answer_length: PositiveInteger = setting(
        50, "답의 최대 토큰 수", "maximum number of tokens of an answer", cache="none"
    )


class TextGenerationSettings(Section):
    """Settings of training language models."""

    format: Literal["text", "chat"] | None = setting(
        None,
        "`text`(텍스트 그대로) 또는 `chat`(질문과 답). `null`이면 열을 보고 정합니다",
        "`text` (plain text) or `chat` (questions and answers); `null` decides by the columns",
    )
    train_on: Literal["answer", "all"] = setting(
        "answer",
        "`answer`(답만 학습) 또는 `all`(질문까지 학습)",
        "`answer` (trains on answers only) or `all` (on questions too)",
        cache="examples",
    )
    train_thoughts: Boolean = setting(
        True,
        "생각(`reasoning_content`, `<think>`)도 학습합니다. `false`면 문맥으로만 씁니다",
        "trains on thoughts (`reasoning_content`, `<think>`) too; with `false` they are context only",
        cache="examples",
    )
    leading_answer: Literal["turn", "row"] = setting(
        "turn",
        "assistant가 먼저 말하는 대화에서 그 메시지만 빼거나(`turn`) 행을 건너뜁니다(`row`)",
        "of a conversation that the assistant begins, leaves out that message (`turn`) or the row (`row`)",
    )
    system_prompt: Text | None = setting(
        None, "모든 대화 앞에 둘 system 메시지", "system message in front of every conversation"
    )
    chat_template: PathText | None = setting(
        None,
        "Jinja chat template 파일. `null`이면 모델의 것, 없으면 `### 질문`, `### 답변`",
        "file of a Jinja chat template; `null` for the model's own or else the headings `### 질문` and `### 답변`",
        resume="measured",  # a run goes on with the template that it began with
        cache="none",  # the examples' key holds the template's content
        user_only=True,
    )


class PreferenceSettings(Section):
    """Settings of training on preferences: which of two answers is better, or whether an answer is good."""

    cache_rule: ClassVar[CacheRule] = "none"

    loss: Literal["dpo", "ipo", "orpo", "simpo", "cpo", "kto"] = setting(
        "dpo",
        "`dpo`, `ipo`, `orpo`, `simpo`, `cpo`(좋은 답과 나쁜 답의 쌍) 또는 `kto`(답마다 좋음, 나쁨). "
        "`dpo`, `ipo`, `kto`는 학습 전의 모델과 비교합니다",
        "`dpo`, `ipo`, `orpo`, `simpo`, `cpo` (pairs of a good and a bad answer) or `kto` (each answer good or bad); "
        "`dpo`, `ipo` and `kto` compare with the model before training",
        cache="examples",  # orpo's examples train the prompt, too, and kto's are single answers
    )
    reference_model: PathText | None = setting(
        None,
        "`dpo`, `ipo`, `kto`가 비교할 모델의 폴더나 Hub id. `null`이면 학습을 시작할 때의 모델",
        "folder or Hub id of the model that `dpo`, `ipo` and `kto` compare with; `null` for the model that training "
        "starts with",
        resume="measured",  # a resumed run must have the same log-probabilities
        user_only=True,
    )
    beta: PositiveNumber | None = setting(
        None,
        "손실의 β. `null`이면 손실별로 논문이나 TRL에서 쓰는 값(simpo 2.0, 나머지 0.1)",
        "β of the loss; `null` for the value of its paper or of TRL (simpo 2.0, the others 0.1)",
    )
    simpo_gamma: NonNegativeNumber = setting(
        1.0,
        "simpo에서 좋은 답의 보상이 나쁜 답보다 얼마나 커야 하는지 정하는 값 γ",
        "margin γ by which a good answer has to lead under simpo",
    )
    nll_weight: NonNegativeNumber = setting(
        1.0,
        "orpo와 cpo에서 좋은 답을 그대로 학습하는 손실의 비중",
        "weight of the loss that trains the good answer itself under orpo and cpo",
    )
    label_smoothing: Annotated[Number, Field(ge=0, lt=0.5)] = setting(
        0.0,
        "좋은 답과 나쁜 답이 뒤바뀐 쌍의 비율(추정). dpo, cpo, simpo에서 씁니다",
        "assumed share of pairs whose answers are swapped, under dpo, cpo and simpo",
    )
    desirable_weight: NonNegativeNumber = setting(1.0, "kto에서 좋은 답의 비중", "weight of good answers under kto")
    undesirable_weight: NonNegativeNumber = setting(1.0, "kto에서 나쁜 답의 비중", "weight of bad answers under kto")


class EmbeddingSettings(Section):
    """Settings of training embeddings."""

    cache_rule: ClassVar[CacheRule] = "none"

    loss: Literal["infonce", "cosent", "cosine_mse"] = setting(
        "infonce",
        "`infonce`(질문과 정답 문서. window의 다른 문서가 오답이 됩니다), `cosent`나 `cosine_mse`(점수가 있는 문장 쌍)",
        "`infonce` (questions and their passages; the window's other passages are the negatives), `cosent` or "
        "`cosine_mse` (pairs of texts with a score)",
        cache="rows",
    )
    both_directions: Boolean = setting(
        False,
        "infonce에서 문서로 질문을 찾는 손실도 더해 평균합니다",
        "under infonce, also trains to find the question of a passage, and takes the mean",
    )
    temperature: PositiveNumber | None = setting(
        None,
        "infonce와 cosent에서 유사도를 나눌 값. 작을수록 가까운 오답에 집중합니다. `null`이면 infonce 0.02, "
        "cosent 0.05",
        "what similarities are divided by under infonce and cosent; smaller values weigh near negatives more; `null` "
        "is 0.02 for infonce and 0.05 for cosent",
        more=(
            "이미 검색용으로 학습된 모델에는 그때 쓴 값에 가까운 값을 쓰세요(e5 0.01, bge-m3 0.02). 훨씬 크면 학습 "
            "전보다 나빠질 수 있습니다",
            "A model that was trained to search wants a value near its own: 0.01 for e5, 0.02 for bge-m3. A much "
            "larger one may leave it worse than before",
        ),
    )
    neighbours: Annotated[Integer, Field(ge=2)] | None = setting(
        None,
        "window에 비슷한 예제를 이 수만큼 묶어 넣습니다. 묶인 예제의 문서끼리 어려운 오답이 됩니다. `null`이면 무작위",
        "puts this many similar examples together into a window, where their passages are hard negatives; `null` is "
        "random",
        more=(
            "드문 토큰이 겹치는 예제를 비슷하다고 봅니다(TF-IDF). 묶음은 epoch마다 바뀌고, window 크기가 이 값의 "
            "배수이면 나뉘지 않습니다. 한 질문의 답이 되는 문서가 여러 행에 있으면 정답이 오답으로 쓰일 수 있으니 작은 "
            "값부터 써 보세요",
            "Examples are similar that share tokens which few others have (TF-IDF). Every epoch has other groups, and "
            "none is divided if the window is a multiple of this number. Where passages that answer one question are "
            "in several rows, right answers may become negatives: begin with a small number",
        ),
    )
    pooling: Literal["mean", "cls", "last"] = setting(
        "mean",
        "벡터로 쓸 토큰: `mean`(평균), `cls`(첫 토큰), `last`(마지막 토큰. 디코더 모델)",
        "tokens that make the vector: `mean`, `cls` (the first token) or `last` (the last token, for decoders)",
    )
    normalize: Boolean = setting(
        True,
        "벡터의 길이를 1로 만듭니다(코사인 유사도). `false`면 내적",
        "makes vectors of length 1 (cosine similarity); with `false` similarities are dot products",
    )
    query_prefix: Prefix = setting(
        "",
        '질문 앞에 붙일 텍스트. 점수가 있는 쌍에서는 두 텍스트에 모두 붙입니다. e5 모델은 `"query: "`',
        'text before every question, and before both texts of scored pairs; `"query: "` for e5 models',
        cache="examples",
    )
    passage_prefix: Prefix = setting(
        "",
        '문서 앞에 붙일 텍스트. e5 모델은 `"passage: "`',
        'text before every passage; `"passage: "` for e5 models',
        cache="examples",
    )
    matryoshka_dimensions: list[PositiveInteger] | None = setting(
        None,
        "벡터의 앞부분만 잘라 써도 되도록 함께 학습할 차원들. 예: `[64, 128, 256]`",
        "numbers of first dimensions that are trained too, so that vectors can be cut, such as `[64, 128, 256]`",
    )
    highest_score: PositiveNumber = setting(
        1.0,
        "점수가 있는 쌍에서 점수를 나눌 값. 점수가 0~5이면 5",
        "what the scores of pairs are divided by; 5 for scores from 0 to 5",
        cache="examples",
    )


class RerankerSettings(Section):
    """Settings of training rerankers, which score how well a passage answers a query."""

    cache_rule: ClassVar[CacheRule] = "none"

    loss: Literal["bce", "mse", "listwise", "margin_mse"] | None = setting(
        None,
        "`bce`(0과 1 사이의 라벨), `mse`(점수), `listwise`(질문마다 정답 문서와 오답 문서) 또는 "
        "`margin_mse`(교사 모델이 매긴 점수의 차이). `null`이면 데이터를 보고 정합니다",
        "`bce` (labels between 0 and 1), `mse` (scores), `listwise` (good and bad passages of each query) or "
        "`margin_mse` (differences of a teacher's scores); `null` decides by the data",
        cache="rows",
    )
    format: Literal["pairs", "scores", "lists"] | None = setting(
        None,
        "`pairs`(0과 1), `scores`(점수), `lists`(질문마다 여러 문서). 가장 좋은 모델을 고르는 지표가 달라집니다. "
        "`null`이면 데이터를 보고 정합니다",
        "`pairs` (0 or 1), `scores` or `lists` (several passages of each query); decides which metric picks the "
        "best model; `null` decides by the data",
    )
    max_passages: Annotated[Integer, Field(ge=2)] | None = setting(
        None,
        "질문마다 읽을 문서의 최대 수. 한 질문의 문서들은 함께 계산하므로 많으면 메모리가 그만큼 듭니다. 넘으면 "
        "앞에서부터 읽고, 정답 문서는 절반까지만 읽습니다(오답 문서가 모자라면 더). `null`이면 모두",
        "most passages of a query. Those of one query are computed together, so many take much memory. Of more, the "
        "first are read, of which at most half are good unless bad ones lack; `null` for all",
        cache="rows",
    )
    prompt: Text | None = setting(
        None,
        "causal-reranker의 프롬프트. `{query}`와 `{passage}`가 있어야 합니다. `null`이면 Qwen 계열은 Qwen3-Reranker의 "
        "프롬프트, 나머지는 한국어 프롬프트",
        "prompt of causal-reranker, with `{query}` and `{passage}`; `null` for that of Qwen3-Reranker with Qwen's "
        "tokenizers and a Korean one with others",
        cache="examples",
    )
    yes_token: Text = setting(
        "yes",
        "causal-reranker에서 관련 있다는 답의 토큰",
        "token of causal-reranker that says that the passage is relevant",
    )
    no_token: Text = setting(
        "no",
        "causal-reranker에서 관련 없다는 답의 토큰",
        "token of causal-reranker that says that it is not",
    )


class Text2TextSettings(Section):
    """Settings of training text-to-text models."""

    max_target_length: Annotated[Integer, Field(ge=2)] = setting(
        128, "출력 텍스트의 최대 토큰 수", "maximum number of tokens of the output text", cache="examples"
    )
    source_language: Text | None = setting(
        None,
        "mBART, M2M100, NLLB의 입력 언어 코드. 예: `ko_KR`. `null`이면 tokenizer에 정해진 대로",
        "code of the input's language for mBART, M2M100 and NLLB, such as `ko_KR`; `null` for the tokenizer's own",
        cache="none",  # the examples' key holds what the tokenizer was made with
    )
    target_language: Text | None = setting(
        None,
        "같은 모델의 출력 언어 코드",
        "code of the output's language for the same models",
        cache="none",
    )


class GenerationSettings(Section):
    """How a generating task makes its texts."""

    resume_rule: ClassVar[ResumeRule] = "free"
    cache_rule: ClassVar[CacheRule] = "none"

    max_new_tokens: PositiveInteger | None = setting(
        None,
        "생성할 최대 토큰 수. `null`이면 모델의 `generation_config`를 따르고, 거기에 없거나 검증할 때는 128입니다. "
        "아래 다섯 설정도 `null`이면 모델을 따릅니다",
        "maximum number of tokens to generate; `null` takes the model's `generation_config`, or 128 where it has none "
        "and in validation. With `null`, the five settings below are the model's too",
    )
    num_beams: PositiveInteger | None = setting(
        None,
        "beam search의 폭. 1보다 크면 샘플링하지 않습니다",
        "number of beams in beam search; nothing is sampled where it is more than 1",
    )
    temperature: NonNegativeNumber | None = setting(
        None,
        "0이면 가장 확률이 높은 토큰을 고릅니다(greedy). 크면 다양해집니다. `null`이면 검증에서는 0입니다",
        "0 takes the most likely token (greedy); larger values give more variety; `null` is 0 in validation",
    )
    top_k: NonNegativeInteger | None = setting(
        None,
        "샘플링할 때, 확률이 높은 순으로 이만큼의 토큰에서만 고릅니다. 0이면 제한하지 않습니다",
        "when sampling, draws from this many of the most likely tokens; 0 for all",
    )
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = setting(
        None,
        "샘플링할 때, 누적 확률이 이만큼인 토큰에서만 고릅니다",
        "when sampling, draws from the tokens within this cumulative probability",
    )
    repetition_penalty: PositiveNumber | None = setting(
        None, "1보다 크면 같은 말의 반복을 줄입니다", "values above 1 discourage repetition"
    )
    validation_rows: NonNegativeInteger | None = setting(
        None,
        "검증 때 텍스트를 생성해 볼 행 수. `null`이면 태스크마다 알맞게",
        "number of validation rows to generate texts for; `null` for the task's own number",
    )
