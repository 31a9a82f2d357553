#!/bin/bash
#SBATCH --job-name=sft_70b/train
#SBATCH --account=llm_research
#SBATCH --partition=batch
#SBATCH --nodes=32
#SBATCH --ntasks-per-node=8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=72:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --export=PATH,HOME,USER,HF_TOKEN
#SBATCH --chdir=/lustre/repo
#SBATCH --output=/lustre/runs/sft_70b/train/logs/slurm-%j.log

# Written by launchers/executors/slurm.py. By hand: sbatch /lustre/runs/sft_70b/train/submit.sh
set -uo pipefail
max_requeues=20
node_memory_advice='raise cluster.mem, or take whole nodes (cluster.exclusive=true cluster.mem=0)'
gpu_memory_advice='dry_run=true shows what fits: a shorter stages.train.pack_length, stages.train.recompute_granularity=full or more model parallelism; PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in cluster.env saves fragmentation'
export HF_HOME=/lustre/cache/huggingface
export NCCL_DEBUG=WARN
export RECIPE_CODE_VERSION=1ae4590
export RECIPE_IMAGE=nemo
export RECIPE_IMAGE_REFERENCE=/lustre/images/nemo.sqsh
folders=(
  /lustre/runs/sft_70b/train
)
step=(srun --overlap --export=ALL --input=none --open-mode=append --cpu-bind=none
  --container-image=/lustre/images/nemo.sqsh
  '--container-mounts=/lustre/repo:/lustre/repo:ro,/lustre/runs/sft_70b:/lustre/runs/sft_70b,/lustre/models:/models:ro,/lustre/data:/data:ro'
  --container-workdir=/lustre/repo
  --no-container-mount-home
  '--container-env=HF_HOME,HF_TOKEN,NCCL_DEBUG,RECIPE_CODE_VERSION,RECIPE_IMAGE,RECIPE_IMAGE_REFERENCE')

start_task() {
  "${step[@]}" --nodes=32 --ntasks=256 --ntasks-per-node=8 --kill-on-bad-exit=1 --output="$folder/logs/"main-%t.log \
    python -m recipes.rank_env -- python -m recipes.run_stage "$folder"/config.yaml &
  main=$!
}
