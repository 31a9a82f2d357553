#!/bin/bash
# Ends what tests/slurm/start.sh <state folder> started: its jobs, its daemons by their pid files, its network.
lab=$1
export SLURM_CONF=$lab/slurm.conf
pids=()
for file in "$lab"/slurmctld.pid "$lab"/slurmd.*.pid "$lab"/munge/pid; do
  [ -s "$file" ] || continue
  pid=$(cat "$file")
  case $(cat "/proc/$pid/comm" 2>/dev/null) in slurmctld | slurmd | munged) pids+=("$pid") ;; esac
done
if [ ${#pids[@]} -gt 0 ] && [ -n "$(timeout 40 squeue --noheader)" ]; then
  timeout 40 scancel --user=root
  for _ in $(seq 100); do [ -z "$(timeout 40 squeue --noheader)" ] && break || sleep 0.1; done
fi
for pid in "${pids[@]}"; do kill "$pid"; done
for pid in "${pids[@]}"; do
  for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null && sleep 0.1 || break; done
done
for i in 1 2; do
  ip netns del "mrslurm$i"
  ip link del "mrslurmv$i"
done 2>/dev/null
ip link del mrslurm0 2>/dev/null
true
