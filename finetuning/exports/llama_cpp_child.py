"""The process that asks llama.cpp: reads one JSON request from its standard input and writes the answers to a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Load a GGUF file in llama.cpp and write the ids of its likeliest answers."""
    import xllamacpp

    request = json.load(sys.stdin)
    options = xllamacpp.CommonParams()
    options.model.path = request["model"]
    options.n_ctx, options.warmup, options.n_gpu_layers = 2048, False, 0
    server = xllamacpp.Server(options)
    common = {"temperature": 0, "repeat_penalty": 1.0, "cache_prompt": False}
    answers = []
    for asked in request["asked"]:
        if request["is_chat"]:
            body = {"messages": asked, "max_tokens": request["tokens"], "logprobs": True, "top_logprobs": 1}
            said: Any = server.handle_chat_completions({**common, **body})
        else:
            said = server.handle_completions({**common, "prompt": asked, "n_predict": request["tokens"], "logprobs": 1})
        tokens = (said["choices"][0].get("logprobs") or {}).get("content") or []
        answers.append([int(token["id"]) for token in tokens])
    Path(request["answers"]).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
