#!/bin/bash
#SBATCH --job-name=generate/generate
#SBATCH --account=llm_research
#SBATCH --partition=batch
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --export=PATH,HOME,USER,HF_TOKEN
#SBATCH --chdir=/lustre/repo
#SBATCH --output=/lustre/runs/generate/generate/logs/slurm-%A_%a.log
#SBATCH --array=0-15%8

# Written by launchers/executors/slurm.py. By hand: sbatch /lustre/runs/generate/generate/submit.sh
#   sbatch --array=0-15 /lustre/runs/generate/generate/submit.sh 16
#   sbatch --array=0-7 /lustre/runs/generate/generate/submit.sh 32
set -uo pipefail
max_requeues=20
node_memory_advice='raise cluster.mem, or take whole nodes (cluster.exclusive=true cluster.mem=0)'
gpu_memory_advice='lower server.max_batch_size, server.max_num_tokens or the share of memory that the cache takes'
export NCCL_DEBUG=WARN
export RECIPE_CODE_VERSION=1ae4590
export RECIPE_IMAGE=trtllm
export RECIPE_IMAGE_REFERENCE=/lustre/images/trtllm.sqsh
export ENROOT_MOUNT_HOME=n
export ENROOT_RUNTIME_PATH=/local/scratch/enroot-"$SLURM_JOB_ID"/runtime
export ENROOT_CACHE_PATH=/local/scratch/enroot-"$SLURM_JOB_ID"/cache
export ENROOT_DATA_PATH=/local/scratch/enroot-"$SLURM_JOB_ID"/data
folders=(
  /lustre/runs/generate/generate/shard_00
  /lustre/runs/generate/generate/shard_01
  /lustre/runs/generate/generate/shard_02
  /lustre/runs/generate/generate/shard_03
  /lustre/runs/generate/generate/shard_04
  /lustre/runs/generate/generate/shard_05
  /lustre/runs/generate/generate/shard_06
  /lustre/runs/generate/generate/shard_07
  /lustre/runs/generate/generate/shard_08
  /lustre/runs/generate/generate/shard_09
  /lustre/runs/generate/generate/shard_10
  /lustre/runs/generate/generate/shard_11
  /lustre/runs/generate/generate/shard_12
  /lustre/runs/generate/generate/shard_13
  /lustre/runs/generate/generate/shard_14
  /lustre/runs/generate/generate/shard_15
  /lustre/runs/generate/generate/shard_16
  /lustre/runs/generate/generate/shard_17
  /lustre/runs/generate/generate/shard_18
  /lustre/runs/generate/generate/shard_19
  /lustre/runs/generate/generate/shard_20
  /lustre/runs/generate/generate/shard_21
  /lustre/runs/generate/generate/shard_22
  /lustre/runs/generate/generate/shard_23
  /lustre/runs/generate/generate/shard_24
  /lustre/runs/generate/generate/shard_25
  /lustre/runs/generate/generate/shard_26
  /lustre/runs/generate/generate/shard_27
  /lustre/runs/generate/generate/shard_28
  /lustre/runs/generate/generate/shard_29
  /lustre/runs/generate/generate/shard_30
  /lustre/runs/generate/generate/shard_31
  /lustre/runs/generate/generate/shard_32
  /lustre/runs/generate/generate/shard_33
  /lustre/runs/generate/generate/shard_34
  /lustre/runs/generate/generate/shard_35
  /lustre/runs/generate/generate/shard_36
  /lustre/runs/generate/generate/shard_37
  /lustre/runs/generate/generate/shard_38
  /lustre/runs/generate/generate/shard_39
)
step=(srun --overlap --export=ALL --input=none --open-mode=append --cpu-bind=none)
container=(enroot start --rw
  --rc /lustre/repo/launchers/enroot_rc.sh
  --conf /lustre/repo/launchers/enroot.conf.sh
  --mount '/lustre/repo:/lustre/repo:none:x-create=auto,rbind,ro'
  --mount '/lustre/runs/generate:/lustre/runs/generate:none:x-create=auto,rbind'
  --mount '/lustre/models:/models:none:x-create=auto,rbind,ro'
  --mount '/lustre/data:/lustre/data:none:x-create=auto,rbind'
  --env HF_TOKEN
  --env NCCL_DEBUG
  --env RECIPE_CODE_VERSION
  --env RECIPE_IMAGE
  --env RECIPE_IMAGE_REFERENCE
  /lustre/images/trtllm.sqsh)

start_task() {
  rm -f -- "$folder"/server-0.json
  service server-0 0 1 --nodes=1 --ntasks=1 --ntasks-per-node=1 \
    "${container[@]}" python -m nemo_ext.serving.serve "$folder"/config.yaml --address-file "$folder"/server-0.json --replica 0
  "${step[@]}" --nodes=1 --ntasks=1 --ntasks-per-node=1 --kill-on-bad-exit=1 --output="$folder/logs/"main.log \
    "${container[@]}" python -m recipes.rank_env -- python -m recipes.run_stage "$folder"/config.yaml &
  main=$!
}
