"""The flags of `export`: the format, and where it is sent."""

from __future__ import annotations

import argparse


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to the parser of the command line."""
    parser.add_argument(
        "--format", metavar="형식",
        help="export: merged(어댑터를 합친 모델), gguf, gguf-q8_0(llama.cpp와 Ollama), onnx, onnx-int8(인코더) "
        "(기본값: merged)",
    )  # fmt: skip
    parser.add_argument("--push", metavar="저장소", help="export: 저장한 뒤 Hugging Face Hub의 이 저장소에 올립니다")
    parser.add_argument(
        "--license", metavar="라이선스",
        help="export: 모델 카드에 적을 라이선스. 예: apache-2.0 (기본값: 베이스 모델의 것)",
    )  # fmt: skip
