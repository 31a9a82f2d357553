#!/bin/bash
#SBATCH --job-name=sft_full/train
#SBATCH --account=llm_research
#SBATCH --partition=batch
#SBATCH --nodes=8
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
#SBATCH --output=/lustre/runs/sft_full/train/logs/slurm-%j.log

# Written by launchers/executors/slurm.py. By hand: sbatch /lustre/runs/sft_full/train/submit.sh
set -uo pipefail
max_requeues=20
node_memory_advice='raise cluster.mem, or take whole nodes (cluster.exclusive=true cluster.mem=0)'
gpu_memory_advice='dry_run=true shows what fits: a shorter stages.train.pack_length, stages.train.recompute_granularity=full or more model parallelism; PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in cluster.env saves fragmentation'
export NCCL_DEBUG=WARN
export RECIPE_CODE_VERSION=1ae4590
export RECIPE_IMAGE=nemo
export RECIPE_IMAGE_REFERENCE=/lustre/images/nemo.sqsh
export ENROOT_MOUNT_HOME=n
export ENROOT_RUNTIME_PATH=/local/scratch/enroot-"$SLURM_JOB_ID"/runtime
export ENROOT_CACHE_PATH=/local/scratch/enroot-"$SLURM_JOB_ID"/cache
export ENROOT_DATA_PATH=/local/scratch/enroot-"$SLURM_JOB_ID"/data
folders=(
  /lustre/runs/sft_full/train
)
step=(srun --overlap --export=ALL --input=none --open-mode=append --cpu-bind=none)
container=(enroot start --rw
  --rc /lustre/repo/launchers/enroot_rc.sh
  --conf /lustre/repo/launchers/enroot.conf.sh
  --mount '/lustre/repo:/lustre/repo:none:x-create=auto,rbind,ro'
  --mount '/lustre/runs/sft_full:/lustre/runs/sft_full:none:x-create=auto,rbind'
  --mount '/lustre/models:/models:none:x-create=auto,rbind,ro'
  --mount '/lustre/data:/lustre/data:none:x-create=auto,rbind'
  --env HF_TOKEN
  --env NCCL_DEBUG
  --env RECIPE_CODE_VERSION
  --env RECIPE_IMAGE
  --env RECIPE_IMAGE_REFERENCE
  /lustre/images/nemo.sqsh)

start_task() {
  "${step[@]}" --nodes=8 --ntasks=64 --ntasks-per-node=8 --kill-on-bad-exit=1 --output="$folder/logs/"main-%t.log \
    "${container[@]}" python -m recipes.rank_env -- python -m recipes.run_stage "$folder"/config.yaml &
  main=$!
}
