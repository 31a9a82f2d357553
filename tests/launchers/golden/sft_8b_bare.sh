#!/bin/bash
#SBATCH --job-name=sft_full/train
#SBATCH --account=llm_research
#SBATCH --partition=gpu,gpu_long
#SBATCH --qos=normal
#SBATCH --constraint='ib&h100'
#SBATCH --reservation=maths
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=900G
#SBATCH --gres=gpu:h100:8
#SBATCH --time=1-00:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --export=PATH,HOME,USER
#SBATCH --chdir=/lustre/repo
#SBATCH --output=/lustre/runs/sft_full/train/logs/slurm-%j.log
#SBATCH --exclude='node[13-14]'
#SBATCH --mail-type=FAIL

# Written by launchers/executors/slurm.py. By hand: sbatch /lustre/runs/sft_full/train/submit.sh
source /etc/profile
module load cuda/12.8
set -uo pipefail
max_requeues=20
node_memory_advice='raise cluster.mem, or take whole nodes (cluster.exclusive=true cluster.mem=0)'
gpu_memory_advice='dry_run=true shows what fits: a shorter stages.train.pack_length, stages.train.recompute_granularity=full or more model parallelism; PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in cluster.env saves fragmentation'
export HF_HOME='/shared/it'"'"'s here'
folders=(
  /lustre/runs/sft_full/train
)
step=(srun --overlap --export=ALL --input=none --open-mode=append
  --mpi=pmix)

start_task() {
  "${step[@]}" --nodes=8 --ntasks=64 --ntasks-per-node=8 --kill-on-bad-exit=1 --output="$folder/logs/"main-%t.log \
    /shared/venv/bin/python -m recipes.rank_env -- /shared/venv/bin/python -m recipes.run_stage "$folder"/config.yaml &
  main=$!
}
