#!/bin/bash
#SBATCH --job-name=generate/generate
#SBATCH --account=llm_research
#SBATCH --partition=batch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --export=PATH,HOME,USER,HF_TOKEN
#SBATCH --chdir=/lustre/repo
#SBATCH --output=/lustre/runs/generate/generate/logs/slurm-%j.log

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
  /lustre/runs/generate/generate
)
step=(srun --overlap --export=ALL --input=none --open-mode=append --cpu-bind=none
  --container-image=/lustre/images/trtllm.sqsh
  '--container-mounts=/lustre/repo:/lustre/repo:ro,/lustre/runs/generate:/lustre/runs/generate,/lustre/models:/models:ro,/lustre/data:/data:ro'
  --container-workdir=/lustre/repo
  --no-container-mount-home
  '--container-env=HF_HOME,HF_TOKEN,NCCL_DEBUG,RECIPE_CODE_VERSION,RECIPE_IMAGE,RECIPE_IMAGE_REFERENCE')

start_task() {
  rm -f -- "$folder"/server-0.json
  service server-0 0 2 --nodes=2 --ntasks=16 --ntasks-per-node=8 --kill-on-bad-exit=1 --wait=30 --label --mpi=pmix \
    python -m nemo_ext.serving.serve "$folder"/config.yaml --address-file "$folder"/server-0.json --replica 0 --host 0.0.0.0
  "${step[@]}" --nodes=1 --ntasks=1 --ntasks-per-node=1 --kill-on-bad-exit=1 --nodelist="${hosts[0]}" --output="$folder/logs/"main.log \
    python -m recipes.rank_env -- python -m recipes.run_stage "$folder"/config.yaml &
  main=$!
}
