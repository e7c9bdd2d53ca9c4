"""What is imported with the classes of models."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT


def test_models_are_imported_without_the_optimizers_of_scipy() -> None:
    code = (
        "import sys; from finetuning.models.library import auto_class_of; auto_class_of('AutoModel')\n"
        "import transformers.modeling_utils, transformers.utils\n"
        "print('scipy.optimize' in sys.modules, transformers.utils.is_scipy_available())"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True"]
