#!/bin/bash
#SBATCH --job-name=sft/train
#SBATCH --account=llm
#SBATCH --partition=gpu
#SBATCH --qos=normal
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --export=PATH,HOME,USER,HF_TOKEN
#SBATCH --chdir=/repo
#SBATCH --output=/runs/sft/train/logs/slurm-%j.log
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --gres=gpu:8

# Written by launchers/executors/slurm.py. By hand: sbatch /runs/sft/train/submit.sh
source /etc/profile
module load cuda
set -uo pipefail
max_requeues=20
export HF_HOME='/shared/it'"'"'s here'
export NCCL_DEBUG=WARN
folders=(
  /runs/sft/train
)
step=(srun --overlap --export=ALL --input=none --open-mode=append --cpu-bind=none)

start_task() {
  "${step[@]}" --nodes=2 --ntasks=16 --ntasks-per-node=8 --kill-on-bad-exit=1 --output="$folder/logs/"main-%t.log \
    /opt/venv/bin/python -m recipes.rank_env -- /opt/venv/bin/python -m recipes.run_stage "$folder"/config.yaml &
  main=$!
}

# From here on the same for every stage: launchers/sbatch.sh.
folder=${folders[${SLURM_ARRAY_TASK_ID:-0}]}
mkdir -p "$folder/logs"
mapfile -t hosts < <(timeout 60 scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts[0]} MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
main='' signalled='' dead='' services=() names=()

stop_services() { # what does not end by itself, Slurm ends with the job
  [ ${#services[@]} = 0 ] || kill "${services[@]}" 2>/dev/null
  for _ in $(seq 300); do
    [ -n "$(jobs -r)" ] || break
    sleep 0.2
  done
}
trap stop_services EXIT
# the time limit is near: main saves what it has and ends with code 85
trap 'signalled=1; [ -z "$main" ] || kill -USR1 "$main"' USR1

service() { # <name> <index of its first node> <how many> <srun's options and the command ...>
  local nodes
  nodes=$(IFS=,; echo "${hosts[*]:$2:$3}")
  "${step[@]}" --nodelist="$nodes" --output="$folder/logs/$1.log" "${@:4}" &
  services+=("$!") names+=("$1")
}

start_task
while kill -0 "$main" 2>/dev/null; do
  for i in "${!services[@]}"; do
    if [ -z "$dead" ] && ! kill -0 "${services[$i]}" 2>/dev/null; then
      dead=${names[$i]}
      kill "$main" 2>/dev/null
    fi
  done
  sleep 1
done
wait "$main"
code=$?

if [ -n "$dead" ] && [ "$code" != 0 ] && [ "$code" != 85 ]; then
  echo "service $dead ended before main did; the last lines of $folder/logs/$dead.log:"
  tail -n 30 "$folder/logs/$dead.log"
  exit 1
fi
# 85: saved, to be continued. Above 128: a rank ended by a signal, either our USR1, which its stage does not handle, or
# srun's, because another rank had left with 85 before it. Every stage goes on from what it finds on disk.
if [ "$code" = 85 ] || { [ -n "$signalled" ] && [ "$code" -gt 128 ]; }; then
  if [ "${SLURM_RESTART_COUNT:-0}" -lt "$max_requeues" ]; then
    stop_services
    timeout 60 scontrol requeue "$SLURM_JOB_ID" && exit "$code"
  fi
  echo "stopped after ${SLURM_RESTART_COUNT:-0} requeues; launch the same command again to go on"
fi
exit "$code"
