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


def test_the_package_of_models_knows_the_classes_that_its_files_have() -> None:
    code = (
        "from finetuning.models.library import import_models; import_models()\n"
        "import sys, transformers.models\n"
        "from transformers.utils import import_utils\n"
        "package = sys.modules['transformers.models']\n"
        "def known(): return import_utils.define_import_structure(package.__file__)\n"
        "taken = known()\n"
        "import_utils.define_import_structure.cache_clear()\n"
        "import_utils.create_import_structure_from_path.cache_clear()\n"
        "print(len(taken) > 1, taken == known(), package.AutoConfig.__name__)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["True", "True", "AutoConfig"]
