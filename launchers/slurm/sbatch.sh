
# From here on the same for every stage: launchers/slurm/sbatch.sh.
index=$((${1:-0} + ${SLURM_ARRAY_TASK_ID:-0}))
folder=${folders[$index]}
mkdir -p "$folder/logs"
rm -f -- "$folder/error.json"
export SLURM_RESTART_COUNT=${SLURM_RESTART_COUNT:-0}
unset SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK # each step may use all CPUs of the job
job_log=$(readlink -f /proc/$$/fd/1)
declare -A sizes=() # of the logs before this attempt
while read -r size log; do sizes[$log]=$size; done < <(stat --format='%s %n' "$folder"/logs/*.log "$job_log" 2>/dev/null)
main='' signalled='' dead='' services=() names=()

fail() { # <exit code> <type> <what happened> <how to go on>: in the log, and for status beside what the stage wrote
  echo "$3; $4"
  if [ "$(tail -n 1 "$folder/error.json" 2>/dev/null)" = '}' ]; then
    { sed '$d' "$folder/error.json" | sed '$s/$/,/'; printf '  "advice": "%s"\n}\n' "$4"; } >"$folder/.error.json.new"
  else
    printf '{\n  "error": "%s",\n  "type": "%s",\n  "advice": "%s"\n}\n' "$3" "$2" "$4" >"$folder/.error.json.new"
  fi
  mv "$folder/.error.json.new" "$folder/error.json"
  exit "$1"
}

# Slurm starts a job again after a node failed or a job of higher priority took its place, and each time is counted
if [ "$SLURM_RESTART_COUNT" -gt "$max_requeues" ]; then
  fail 1 TooManyRequeues "this job was put back in the queue more than cluster.max_requeues=$max_requeues times" \
    "the logs and sacct say why; launch the same command again to go on"
fi
mapfile -t hosts < <(timeout 60 scontrol show hostnames "$SLURM_JOB_NODELIST")
[ ${#hosts[@]} != 0 ] || fail 1 NoNodes "scontrol names no nodes of $SLURM_JOB_NODELIST" \
  "is scontrol on PATH there? cluster.setup is where to put it"
export MASTER_ADDR=${hosts[0]} MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))

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

# shellcheck disable=SC2317 # not every stage has services
service() { # <name> <index of its first node> <how many> <srun's options and the command ...>
  local nodes
  nodes=$(IFS=,; echo "${hosts[*]:$2:$3}")
  "${step[@]}" --nodelist="$nodes" --output="$folder/logs/$1.log" "${@:4}" &
  services+=("$!") names+=("$1")
}

said() { # <pattern>: whether this attempt's logs have it
  local log
  grep -qaE "$1" < <(
    [ ! -f "$folder/error.json" ] || cat "$folder/error.json"
    for log in "$folder"/logs/*.log "$job_log"; do
      [ ! -f "$log" ] || tail -c "+$((${sizes[$log]:-0} + 1))" "$log"
    done
  )
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
[ "$code" != 0 ] || exit 0

if [ -n "$dead" ]; then
  echo "service $dead ended before main did; the last lines of $folder/logs/$dead.log:"
  tail -n 30 "$folder/logs/$dead.log"
fi
# out of memory: again would end the same way
if [ "$code" != 85 ] || [ -n "$dead" ]; then
  if said 'CUDA out of memory|CUDA error: out of memory|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY'; then
    fail 1 OutOfMemory "out of GPU memory" "$gpu_memory_advice"
  fi
  if said 'oom[-_]kill|Out Of Memory|xceeded .*memory limit|MemoryError|Cannot allocate memory' || [ "$signalled$code" = 137 ]; then
    fail 1 OutOfMemory "the node's memory ran out (exit code $code)" "$node_memory_advice"
  fi
fi
# with 85 both were ended from outside, as preemption does
if [ -n "$dead" ] && [ "$code" != 85 ]; then
  fail 1 ServiceEnded "service $dead ended before main did" "logs/$dead.log says why"
fi
# 85: saved, to be continued. Above 128: a rank ended by a signal, either our USR1, which its stage does not handle, or
# srun's, because another rank had left with 85 before it. Every stage goes on from what it finds on disk.
if [ "$code" = 85 ] || { [ -n "$signalled" ] && [ "$code" -gt 128 ]; }; then
  if [ "$SLURM_RESTART_COUNT" -ge "$max_requeues" ]; then
    fail "$code" TooManyRequeues "its time was up, and it has been requeued cluster.max_requeues=$max_requeues times" \
      "launch the same command again to go on"
  fi
  stop_services
  timeout 60 scontrol requeue "$SLURM_JOB_ID" && exit "$code"
  fail "$code" NotRequeued "its time was up, and scontrol could not requeue it" "launch the same command again to go on"
fi
exit "$code" # an error of the program: again would end the same way
