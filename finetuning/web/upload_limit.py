"""What a browser says of a file that is too large, before it sends it; Gradio's own words for that are English."""

from __future__ import annotations

import json

from finetuning.web.language import Say

_SCRIPT = """<script>(() => {{
  const largest = {largest}, words = {words};
  const size = bytes => `${{(bytes / 2 ** 30).toFixed(1)}} GiB`;
  const refuse = event => {{
    const box = event.target.closest?.(".block:has(input[type=file])");
    const files = [...(event.dataTransfer ?? event.target).files ?? []];
    if (!box || !files.length) return;
    box.querySelector(".too-large")?.remove();
    const large = files.find(file => file.size > largest);
    if (!large) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.type === "change") event.target.value = "";
    const told = document.createElement("div"), what = document.createElement("strong");
    told.className = "problem too-large";
    told.setAttribute("role", "alert");
    what.textContent = words.what.replace("NAME", large.name).replace("SIZE", size(large.size));
    const remedy = document.createElement("p");
    remedy.textContent = words.remedy;
    told.append(what, remedy);
    box.append(told);
  }};
  for (const name of ["change", "drop"]) document.addEventListener(name, refuse, true);
}})()</script>"""


def upload_limit(largest: int, say: Say) -> str:
    """Return the script that refuses larger files where they are chosen or dropped.

    Args:
        largest: Bytes of the largest file that can be uploaded.
        say: The language.

    Returns:
        HTML for the head of the page.
    """
    limit = f"{largest / 2**30:g} GiB"
    what = say(
        f"NAME: 너무 큰 파일입니다(SIZE). 파일 하나는 {limit}까지 올릴 수 있습니다.",
        f"NAME is too large (SIZE). A file of up to {limit} can be uploaded.",
    )
    remedy = say(
        "여러 파일로 나누어 올리세요. 이 컴퓨터에 있는 학습할 파일이면 올리지 않고 '1. 데이터'의 '다른 방법'에 "
        "그 경로를 써도 됩니다.",
        "Upload it in parts. A file of this machine to learn from need not be uploaded: type its path under "
        "'Other ways' of '1. Data'.",
    )
    words = json.dumps({"what": what, "remedy": remedy}, ensure_ascii=False)
    return _SCRIPT.format(largest=largest, words=words)
