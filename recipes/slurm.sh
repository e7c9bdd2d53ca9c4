#!/bin/bash
# 여러 노드에서 학습하기 (Slurm). 노드 수, 카드 수, 시간을 고친 뒤 실행합니다:
#   sbatch recipes/slurm.sh --recipe chatbot
# 뒤에 붙인 플래그는 모두 프로그램에 그대로 전달됩니다. 모든 노드에서 이 폴더가 보여야 합니다.
#SBATCH --job-name=finetuning
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

# 제한 시간 120초 전, 다른 작업에 밀릴 때, scancel을 실행했을 때 SIGTERM이 옵니다. 그러면 체크포인트를 저장하고 멈춥니다. 같은 명령으로 다시
# 제출하거나 Slurm이 다시 시작하면(requeue) --resume 없이도 가장 최근 체크포인트에서 이어 갑니다. 프로세스 하나가 죽으면 torchrun이 세 번까지
# 다시 시작합니다.
nodes=$(scontrol show hostnames "${SLURM_JOB_NODELIST:?sbatch로 실행하세요}")
first_node=${nodes%%$'\n'*}
port=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}  # 한 노드를 함께 쓰는 작업끼리 겹치지 않게 합니다.
export FINETUNING_SCRIPT="sbatch recipes/slurm.sh"  # 이어서 실행할 명령으로 알려 줄 말. 파일 이름을 바꾸면 함께 고칩니다.

srun --kill-on-bad-exit=1 \
  "${PYTHON:-python}" -m finetuning.device.torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" --max-restarts 3 \
  --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$first_node:$port" \
  finetuning_app.py "$@"
