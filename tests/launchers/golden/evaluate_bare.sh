#!/bin/bash
#SBATCH --job-name=sft_full/evaluate
#SBATCH --account=llm_research
#SBATCH --partition=gpu,gpu_long
#SBATCH --qos=normal
#SBATCH --constraint='ib&h100'
#SBATCH --reservation=maths
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=12
#SBATCH --mem=900G
#SBATCH --gres=gpu:h100:1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --export=PATH,HOME,USER
#SBATCH --chdir=/lustre/repo
#SBATCH --output=/lustre/runs/sft_full/evaluate/logs/slurm-%A_%a.log
#SBATCH --array=0-1%8
#SBATCH --exclude='node[13-14]'
#SBATCH --mail-type=FAIL

# Written by launchers/executors/slurm.py. By hand: sbatch /lustre/runs/sft_full/evaluate/submit.sh
source /etc/profile
module load cuda/12.8
set -uo pipefail
max_requeues=20
node_memory_advice='raise cluster.mem, or take whole nodes (cluster.exclusive=true cluster.mem=0)'
gpu_memory_advice='lower server.max_batch_size, server.max_num_tokens or the share of memory that the cache takes'
export HF_HOME='/shared/it'"'"'s here'
folders=(
  /lustre/runs/sft_full/evaluate/base
  /lustre/runs/sft_full/evaluate/average
)
step=(srun --overlap --export=ALL --input=none --open-mode=append
  --mpi=pmix)

start_task() {
  rm -f -- "$folder"/server-0.json
  service server-0 0 1 --nodes=1 --ntasks=1 --ntasks-per-node=1 \
    /shared/venv/bin/python -m nemo_ext.serving.serve "$folder"/config.yaml --address-file "$folder"/server-0.json --replica 0
  "${step[@]}" --nodes=1 --ntasks=1 --ntasks-per-node=1 --kill-on-bad-exit=1 --output="$folder/logs/"main.log \
    /shared/venv/bin/python -m recipes.rank_env -- /shared/venv/bin/python -m recipes.run_stage "$folder"/config.yaml &
  main=$!
}
