#!/usr/bin/env bash
# Wheels that a GPU machine without network lacks to run this program beside its own torch and transformers.
#
# usage: benchmarks/gpu_wheels.sh FOLDER PYTHON GROUP ...   (PYTHON: that machine's, such as 3.12)
# groups: base     datasets, pydantic, tokenizers and what they need
#         pyarrow  where the machine lacks it (datasets needs it; it is larger than all the others together)
#         qlora    bitsandbytes
#         peers    trl and Liger's kernels
# Versions are those of requirements-lock.txt. FOLDER may be wheels/, which git ignores.
# There: python3 -m pip install -q --no-index --no-deps --target /tmp/site FOLDER/*.whl
#        PYTHONPATH=/tmp/site python3 -m benchmarks gpu --budget 270
set -euo pipefail
folder=$1 python=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
packages=()
for group in "$@"; do
  case $group in
    base) packages+=(datasets dill multiprocess pydantic pydantic_core annotated-types typing-inspection typing_extensions
                     tokenizers charset-normalizer openpyxl et_xmlfile sacrebleu portalocker tabulate colorama) ;;
    pyarrow) packages+=(pyarrow) ;;
    qlora) packages+=(bitsandbytes) ;;
    peers) packages+=("$(grep '^trl==' "$root/benchmarks/requirements.txt")" liger-kernel) ;;
    *) echo "no such group: $group" >&2; exit 2 ;;
  esac
done
mkdir -p "$folder"
platforms=()
for glibc in 17 24 27 28 31 34; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
python3 -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version "$python" \
  "${platforms[@]}" --platform manylinux2014_x86_64 -c "$root/requirements-lock.txt" -d "$folder" "${packages[@]}"
du -sh "$folder"
