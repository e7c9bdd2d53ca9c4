"""Settings of the data: source, columns, lengths, splits."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetuning.config.metadata import ResumeRule, Section, setting
from finetuning.config.value_types import (
    Boolean,
    Integer,
    Label,
    Number,
    PathText,
    PositiveInteger,
    PositiveNumber,
    RecordPath,
    Text,
)


class MixedDataset(Section):
    """One dataset of `data.mix`. A setting that is null has the value of the `data` section."""

    dataset_name: PathText
    weight: PositiveNumber = 1.0
    dataset_config: Text | None = None
    revision: Text | None = None
    records: RecordPath | None = None
    text_column: Text | None = None
    text_pair_column: Text | None = None
    label_column: Text | None = None
    prompt_column: Text | None = None
    response_column: Text | None = None


class DataSettings(Section):
    """The data source, its columns, and the numbers of tokens and rows to use.

    A setting has `cache="none"` if the cache key holds the value that results from it: the source's content, the
    columns found in it, the number of rows taken, the usable length.
    """

    resume_rule: ClassVar[ResumeRule] = "measured"  # a checkpoint holds hashes of the rows and tokens

    dataset_name: PathText = setting(
        "imdb",
        "Hugging Face 데이터셋 ID, 데이터 파일, 또는 split별 파일이 있는 폴더",
        "Hugging Face dataset ID, a data file, or a folder with one file per split",
        flag="--dataset",
        cache="none",
        user_only=True,
    )
    train_file: PathText | None = setting(
        None,
        "학습 데이터 파일. `dataset_name` 대신 씁니다",
        "file of the training data, instead of `dataset_name`",
        cache="none",
        user_only=True,
    )
    validation_file: PathText | None = setting(
        None,
        "검증 데이터 파일. `dataset_name`에 있는 검증 데이터 대신 씁니다",
        "file of the validation data, instead of that of `dataset_name`",
        cache="none",
        user_only=True,
    )
    test_file: PathText | None = setting(
        None,
        "테스트 데이터 파일. `dataset_name`에 있는 테스트 데이터 대신 씁니다",
        "file of the test data, instead of that of `dataset_name`",
        cache="none",
        user_only=True,
    )
    revision: Text | None = setting(
        None,
        "Hub 데이터셋의 버전(branch, tag, commit). `null`이면 최신",
        "version of a Hub dataset (branch, tag, commit); `null` for the newest",
        cache="none",
        user_only=True,
    )
    mix: list[MixedDataset] = setting(
        [],
        "함께 학습할 여러 데이터셋. `dataset_name` 대신 씁니다",
        "several datasets to train on together, instead of `dataset_name`",
        more=(
            "예: `[{dataset_name: a.csv, weight: 2}, {dataset_name: b.jsonl}]`. epoch마다 예제를 `weight`의 비율로 "
            "뽑고, 검증 데이터가 없는 데이터셋은 따로 나눕니다. 줄마다 열 이름(`text_column` 등)을 쓸 수 있습니다",
            "Such as `[{dataset_name: a.csv, weight: 2}, {dataset_name: b.jsonl}]`. Each epoch draws examples in the "
            "ratio of the weights; a dataset without validation data is divided by itself. Each may name its columns "
            "(`text_column` and so on)",
        ),
        cache="none",
        user_only=True,
    )
    dataset_cache_dir: PathText = setting(
        "./datasets",
        "데이터셋과 토큰화 결과를 저장해 둘 폴더",
        "folder for datasets and tokenised data",
        resume="free",
        cache="none",
        user_only=True,
    )
    cache_max_days: Annotated[Number, Field(gt=0)] | None = setting(
        30.0,
        "이 기간(일) 동안 쓰지 않은 캐시 파일을 지웁니다. null이면 지우지 않습니다",
        "days after the last use that a prepared file is kept; null keeps all",
        resume="free",
        cache="none",
        user_only=True,
    )
    cache_max_gb: Annotated[Number, Field(ge=0)] | None = setting(
        20.0,
        "캐시가 이 크기(GB)를 넘으면 오래 쓰지 않은 파일부터 지웁니다. null이면 지우지 않습니다",
        "size in GB beyond which the least recently used prepared files are removed; null keeps all",
        resume="free",
        cache="none",
        user_only=True,
    )
    text_column: Text = setting(
        "text",
        "텍스트 열 이름",
        "text column",
        more=(
            "기본값인 채로 그런 열이 없으면 `document`, `문장`, `리뷰`처럼 흔한 이름"
            "(`finetuning/korean/column_names.py`)을 찾고, 둘 이상이면 하나를 고르라고 안내합니다",
            "If it is left at its default and there is no such column, common names such as `document`, `문장` and "
            "`리뷰` (`finetuning/korean/column_names.py`) are tried; if several match, the program asks you to choose",
        ),
        flag="--text_column",
        cache="none",
    )
    label_column: Text = setting(
        "label",
        "라벨 열 이름",
        "label column",
        more=("텍스트 열처럼 흔한 이름을 찾습니다", "Common names are tried as for the text column"),
        flag="--label_column",
        cache="none",
    )
    prompt_column: Text = setting(
        "prompt",
        "생성 태스크에서 입력(질문, 원문)의 열 이름",
        "input column (question, source text) of generation tasks",
        cache="none",
    )
    response_column: Text = setting(
        "response",
        "생성 태스크에서 출력(답, 번역문)의 열 이름",
        "output column (answer, translation) of generation tasks",
        cache="none",
    )
    chosen_column: Text = setting(
        "chosen", "선호 학습에서 좋은 답의 열 이름", "column of good answers in training on preferences", cache="none"
    )
    rejected_column: Text = setting(
        "rejected", "선호 학습에서 나쁜 답의 열 이름", "column of bad answers in training on preferences", cache="none"
    )
    judged_column: Text = setting(
        "kto_tag",
        "kto에서 답이 좋은지 나쁜지 표시한 열 이름",
        "column under kto that says whether an answer is good",
        cache="none",
    )
    question_column: Text = setting(
        "question", "질의응답에서 질문 열 이름", "question column of question answering", cache="none"
    )
    context_column: Text = setting(
        "context",
        "질의응답에서 답을 찾을 지문의 열 이름",
        "context column of question answering, in which the answer is found",
        cache="none",
    )
    negative_column: Text = setting(
        "negative",
        "임베딩과 리랭커에서 오답 문서(hard negative)의 열 이름",
        "column of hard negatives in training embeddings and rerankers",
        more=(
            "목록도 됩니다. `negatives`, `negative_1`처럼 흔한 이름의 열은 모두 읽습니다",
            "A cell may be a list. All columns of common names such as `negatives` and `negative_1` are read",
        ),
        cache="none",
    )
    head_column: Text = setting(
        "head",
        "의존 구문 분석에서 지배소 번호의 열 이름. 번호는 1부터 세고 0은 문장의 뿌리입니다",
        "column of head numbers in dependency parsing; they count from 1, and 0 is the root of the sentence",
        cache="none",
    )
    answers_column: Text = setting(
        "answers",
        "질의응답에서 정답(`text`와 `answer_start`)의 열 이름",
        "answer column of question answering (`text` and `answer_start`)",
        cache="none",
    )
    max_length: Annotated[Integer, Field(ge=8)] = setting(
        1024,
        "최대 토큰 수. 모델의 최대 길이가 더 짧으면 그 길이로 줄이고 로그에 표시합니다",
        "maximum number of tokens; reduced to the model's limit, with a notice, where that is shorter",
        flag="--max_length",
        cache="none",
    )
    batch_size: PositiveInteger = setting(
        16,
        "배치 크기. 스텝마다 `batch_size × gradient_accumulation_steps`개를 학습합니다",
        "batch size; each step trains on `batch_size × gradient_accumulation_steps` examples",
        flag="--batch_size",
        cache="none",
    )
    dataset_config: Text | None = setting(
        None,
        "설정(config)이 여럿인 Hub 데이터셋에서 고를 이름",
        "name of the config, for a Hub dataset that has several",
        flag="--dataset_config",
        cache="none",
    )
    text_pair_column: Text | None = setting(
        None,
        "문장 쌍 분류에서 두 번째 텍스트 열 이름",
        "second text column of sentence pairs",
        more=(
            "두 열 모두 기본값이면 `sentence1`과 `sentence2`, `premise`와 `hypothesis`처럼 흔한 쌍을 찾습니다",
            "If both columns are left at their defaults, common pairs such as `sentence1` and `sentence2`, or "
            "`premise` and `hypothesis`, are found",
        ),
        flag="--text_pair_column",
        cache="none",
    )
    multi_label: Boolean = setting(
        False,
        "한 텍스트에 라벨이 여럿인 분류. 라벨 칸은 JSON 목록이나 구분자로 나눈 문자열",
        "classification with several labels per text; a label cell is a JSON list or text divided by a separator",
    )
    label_separator: Text = setting(
        ",", "`multi_label`에서 라벨 칸을 나누는 구분자", "separator in a label cell with `multi_label`"
    )
    label_map: dict[Label, Label | None] = setting(
        {},
        "라벨의 이름을 바꾸거나 합칩니다. 예: `{긍졍: 긍정}`. `null`로 바꾼 라벨은 빈 라벨로 봅니다",
        "renames or merges labels, such as `{긍졍: 긍정}`; a label renamed to `null` counts as empty",
        more=(
            "개체명에서는 `B-`를 뗀 이름을 씁니다. 데이터에 없는 라벨을 쓰면 멈춥니다",
            "Kinds of entities are written without `B-`. The program stops at a label that is not in the data",
        ),
    )
    group_column: Text | None = setting(
        None,
        "같은 값인 행이 나뉘지 않게 할 열. 검증, 테스트 데이터를 분리할 때 씁니다. 예: 문서나 사용자의 번호",
        "column whose rows of one value stay together when data are held out, such as the number of a document or user",
        cache="none",
    )
    validation_split: Annotated[Number, Field(gt=0, lt=0.5)] = setting(
        0.1,
        "검증 데이터가 없을 때 학습 데이터에서 분리할 비율",
        "share of the training data to hold out where there is no validation data",
        cache="none",
    )
    test_split: Annotated[Number, Field(ge=0, lt=0.5)] = setting(
        0.0,
        "테스트 데이터가 없을 때 학습 데이터에서 분리할 비율. 0이면 분리하지 않습니다",
        "share of the training data to hold out where there is no test data; 0 holds out none",
        cache="none",
    )
    max_bad_rows: Annotated[Number, Field(ge=0, le=1)] = setting(
        0.01,
        "건너뛰어도 되는 행(빈 텍스트, 빈 라벨)의 비율. 넘으면 멈춥니다",
        "share of rows that may be skipped (empty text, empty label); the program stops if there are more",
        cache="none",
    )
    encoding: Text | None = setting(
        None,
        "파일의 인코딩. `null`이면 내용을 읽어 판별합니다. 예: `cp949`",
        "encoding of the files, such as `cp949`; `null` detects it",
        cache="none",
    )
    records: RecordPath | None = setting(
        None,
        "중첩된 JSON에서 행까지의 경로. 예: `data[*].paragraphs[*]`",
        "path to the rows in nested JSON, such as `data[*].paragraphs[*]`",
        cache="none",
    )
    normalize: list[Literal["zero_width", "full_width"]] = setting(
        ["zero_width"],
        "NFC에 추가로 적용할 변환. `zero_width`: 제로폭 문자를 제거, `full_width`: 전각을 반각으로 변환",
        "what to do besides NFC: `zero_width` removes zero-width characters, `full_width` narrows full-width ones",
    )
    mask_pii: Boolean = setting(
        False,
        "개인정보로 보이는 값(주민등록번호, 전화번호, 계좌번호, 주소, 이메일)을 `[전화번호]`처럼 가립니다",
        "replaces what looks like personal data (resident number, phone, account, address, e-mail) by its kind",
        more=(
            "가린 개수를 알립니다. 끄면 있을 때 경고만 합니다. 개체명, 질의응답, 구문 분석에는 쓸 수 없습니다. "
            "이름은 찾지 못하므로 이것만으로 익명화되지는 않습니다",
            "The number is told. If it is off, a warning tells what the training data have. Not for entities, question "
            "answering and parsing. Names are not found, so this alone makes nothing anonymous",
        ),
    )
    train_rows: PositiveInteger | None = setting(
        None,
        "학습 데이터의 앞에서부터 쓸 행 수. `null`이면 모두",
        "number of training rows to use, from the first; `null` for all",
        cache="none",
    )
    validation_rows: PositiveInteger | None = setting(
        None,
        "검증 데이터의 앞에서부터 쓸 행 수",
        "number of validation rows to use, from the first; `null` for all",
        cache="none",
    )
    test_rows: PositiveInteger | None = setting(
        None,
        "테스트 데이터의 앞에서부터 쓸 행 수",
        "number of test rows to use, from the first; `null` for all",
        cache="none",
    )
    packing: Boolean | None = setting(
        None,
        "패딩을 빼고 계산합니다. `null`이면 결과가 같다고 확인한 모델에서만. `false`면 끕니다",
        "computes no padding; `null` only for models checked at the start to give the same results, `false` for never",
        more=("어느 쪽인지 로그에 표시됩니다", "The log says which"),
        resume="free",
        cache="none",
    )

    def split_files(self) -> dict[str, str]:
        """Return the files that settings name for a split, by the split's name."""
        named = {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}
        return {split: name for split, name in named.items() if name is not None}

    def of_mixed(self, source: MixedDataset) -> DataSettings:
        """Return the settings for one dataset of the mixture."""
        own = {name: value for name, value in source.model_dump(exclude={"weight"}).items() if value is not None}
        return self.model_copy(update={**own, "mix": []})

    def reads_dataset_name(self) -> bool:
        """Return whether `dataset_name` is read: not where it has its default beside files of splits or a mixture."""
        is_default = self.dataset_name == type(self).model_fields["dataset_name"].default
        return not (is_default and (self.split_files() or self.mix))

    def names(self) -> tuple[str, ...]:
        """Return the names of the data, as messages and reports show them."""
        if self.mix:
            return tuple(source.dataset_name for source in self.mix)
        return (self.dataset_name if self.reads_dataset_name() else next(iter(self.split_files().values())),)

    def shown_name(self) -> str:
        """Return the names of the data in one line."""
        return ", ".join(self.names())
