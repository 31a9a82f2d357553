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
#SBATCH --array=0-39%16

# Written by launchers/executors/slurm.py. By hand: sbatch /lustre/runs/generate/generate/submit.sh
set -uo pipefail
max_requeues=20
node_memory_advice='raise cluster.mem, or take whole nodes (cluster.exclusive=true cluster.mem=0)'
gpu_memory_advice='lower server.max_batch_size, server.max_num_tokens or the share of memory that the cache takes'
export HF_HOME=/lustre/cache/huggingface
export NCCL_DEBUG=WARN
export RECIPE_CODE_VERSION=1ae4590
export RECIPE_IMAGE=trtllm
export RECIPE_IMAGE_REFERENCE=/lustre/images/trtllm.sqsh
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
step=(srun --overlap --export=ALL --input=none --open-mode=append --cpu-bind=none
  --container-image=/lustre/images/trtllm.sqsh
  '--container-mounts=/lustre/repo:/lustre/repo:ro,/lustre/runs/generate:/lustre/runs/generate,/lustre/models:/models:ro,/lustre/data:/data:ro'
  --container-workdir=/lustre/repo
  --no-container-mount-home
  '--container-env=HF_HOME,HF_TOKEN,NCCL_DEBUG,RECIPE_CODE_VERSION,RECIPE_IMAGE,RECIPE_IMAGE_REFERENCE')

start_task() {
  rm -f -- "$folder"/server-0.json
  service server-0 0 1 --nodes=1 --ntasks=1 --ntasks-per-node=1 \
    python -m nemo_ext.serving.serve "$folder"/config.yaml --address-file "$folder"/server-0.json --replica 0
  "${step[@]}" --nodes=1 --ntasks=1 --ntasks-per-node=1 --kill-on-bad-exit=1 --output="$folder/logs/"main.log \
    python -m recipes.rank_env -- python -m recipes.run_stage "$folder"/config.yaml &
  main=$!
}
