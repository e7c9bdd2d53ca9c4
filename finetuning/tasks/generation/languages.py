"""Languages of multilingual text-to-text models (mBART, M2M100, NLLB), whose codes stand in sources and targets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, SettingsError
from finetuning.config.schema import Settings

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_STARTS_WITH_LAST = {"mbart", "plbart"}  # their shift_tokens_right puts a target's last token first
_SETTINGS = {"src_lang": "source_language", "tgt_lang": "target_language"}


def fit_languages(tokenizer: PreTrainedTokenizerBase, settings: Settings) -> None:
    """Give a multilingual tokenizer the languages that the settings name, in place; they are saved with it.

    Args:
        tokenizer: Any tokenizer.
        settings: The settings in force.

    Raises:
        SettingsError: The tokenizer has no languages, or not this one.
    """
    languages: Any = tokenizer
    wanted = {name: getattr(settings.text2text, field) for name, field in _SETTINGS.items()}
    if not _has_languages(tokenizer):
        if any(wanted.values()):
            raise SettingsError(
                "이 모델의 tokenizer에는 언어 코드가 없습니다. mBART, M2M100, NLLB 같은 다국어 모델에만 있습니다.",
                where="text2text.source_language, text2text.target_language",
                remedy="두 설정을 null로 두세요.",
            )
        return
    named = {name: code or tokenizer.init_kwargs.get(name) for name, code in wanted.items()}
    for name, code in wanted.items():
        if code is not None:
            _check_known(code, name, tokenizer)
            setattr(languages, name, code)
    if languages.tgt_lang is None:
        languages.tgt_lang = languages.src_lang  # as mBART's and NLLB's do when they first write a target
    tokenizer.init_kwargs.update(src_lang=languages.src_lang, tgt_lang=languages.tgt_lang)
    if not all(named.values()):
        _log.warning(
            "모델의 언어가 정해져 있지 않아 입력 언어는 %s, 출력 언어는 %s 코드로 봅니다. 다르면 "
            "text2text.source_language와 text2text.target_language에 언어 코드를 쓰세요. 이 모델의 한국어 코드: %s",
            languages.src_lang, languages.tgt_lang, _korean_code(tokenizer),
        )  # fmt: skip


def target_code(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token of the target's language, or None if the tokenizer has no languages."""
    return _id_of(tokenizer.tgt_lang, tokenizer) if _has_languages(tokenizer) else None


def fit_first_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make targets begin and end in training and in generation as the tokenizer writes them, in place.

    mBART has no start token of its own: a target ends with the code of its language, and begins with the same token.
    Targets of mBART-50, M2M100 and NLLB have the code after the start token.

    Args:
        model: A model with an encoder and a decoder.
        tokenizer: Its tokenizer, after `fit_languages`.

    Raises:
        ModelError: The start token of an mBART is not known.
    """
    config, options, code = model.config, model.generation_config, target_code(tokenizer)
    ids = list(tokenizer(text_target="가")["input_ids"])
    starts = (getattr(part, "decoder_start_token_id", None) for part in (config, options))
    start = next((token for token in starts if token is not None), None)
    if config.model_type in _STARTS_WITH_LAST:
        if ids[-1] == code or (start is None and ids[-1] in tokenizer.all_special_ids):
            start = ids[-1]
        if start is None:
            raise ModelError(
                "mBART의 출력은 언어 코드로 시작하는데, 모델에도 tokenizer에도 그것이 정해져 있지 않습니다.",
                where="model.name (config.json의 decoder_start_token_id)",
                remedy="모델 폴더를 복사하고 config.json의 decoder_start_token_id에 출력 언어의 토큰 id를 쓰세요.",
            )
    if start is not None:
        config.decoder_start_token_id = start
    if options is not None:
        options.decoder_start_token_id = start
        if ids[0] == code:
            options.forced_bos_token_id = code
        _end_with(tokenizer, options)


def _end_with(tokenizer: PreTrainedTokenizerBase, options: GenerationConfig) -> None:
    """Make generation end at the tokenizer's end token, with which targets are trained, as well as at the model's."""
    known = options.eos_token_id
    ends = set(known if isinstance(known, list) else [known]) - {None}
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
        options.eos_token_id = sorted({*ends, tokenizer.eos_token_id})
    if options.pad_token_id is None:
        options.pad_token_id = tokenizer.pad_token_id


def _has_languages(tokenizer: PreTrainedTokenizerBase) -> bool:
    return hasattr(tokenizer, "set_tgt_lang_special_tokens")


def _id_of(code: str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    known = getattr(tokenizer, "lang_code_to_id", None)
    found: Any = known.get(code) if known else tokenizer.convert_tokens_to_ids(code)
    return None if found == tokenizer.unk_token_id else found


def _check_known(code: str, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if _id_of(code, tokenizer) is None:
        raise SettingsError(
            f"이 모델의 tokenizer에 없는 언어 코드입니다: {code}",
            where=f"text2text.{_SETTINGS[name]}: {code}",
            remedy=f"모델 페이지의 언어 코드를 쓰세요. 이 모델의 한국어 코드: {_korean_code(tokenizer)}",
        )


def _korean_code(tokenizer: PreTrainedTokenizerBase) -> str:
    return next((code for code in ("ko_KR", "kor_Hang", "ko") if _id_of(code, tokenizer) is not None), "없음")
