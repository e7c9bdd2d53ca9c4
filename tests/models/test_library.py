"""What is imported with the classes of models."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT


def test_models_are_imported_without_the_optimizers_of_scipy() -> None:
    code = (
        "from finetuning.models.library import auto_class_of; auto_class_of('AutoModel')\n"
        "import transformers.loss.loss_for_object_detection as losses, transformers.utils\n"
        "print('linear_sum_assignment' in vars(losses), transformers.utils.is_scipy_available())"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True"]
