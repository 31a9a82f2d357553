#!/bin/bash
# A real Slurm of two nodes on one machine, for tests: each slurmd has its own network and host name. As root.
#   tests/slurm/start.sh <state folder>     then: export SLURM_CONF=<state folder>/slurm.conf
set -euo pipefail
lab=$1
[ "$(id -u)" = 0 ] || { echo "two nodes on one machine need root" >&2; exit 1; }
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null || ! command -v ip >/dev/null; then
  echo "slurmctld, munged or ip is missing: apt-get install slurm-wlm munge iproute2" >&2
  exit 1
fi
mkdir -p "$lab"/{munge,state,log,dev,spool/node1,spool/node2}
export SLURM_CONF=$lab/slurm.conf
host=$(hostname -s)

# the nodes' network: a bridge without an uplink, the controller on .254
ip link add mrslurm0 type bridge
ip addr add 10.231.9.254/24 dev mrslurm0
ip link set mrslurm0 up
printf '%s\n' "127.0.0.1 localhost" "10.231.9.254 $host" "10.231.9.1 node1" "10.231.9.2 node2" >"$lab/hosts"
for i in 1 2; do
  ip netns add "mrslurm$i"
  ip link add "mrslurmv$i" type veth peer name eth0 netns "mrslurm$i"
  ip link set "mrslurmv$i" master mrslurm0 up
  ip -n "mrslurm$i" link set lo up
  ip -n "mrslurm$i" addr add "10.231.9.$i/24" dev eth0
  ip -n "mrslurm$i" link set eth0 up
done

# munged refuses a key or socket that others could have written
head -c 128 /dev/urandom >"$lab/munge/key"
chmod 600 "$lab/munge/key"
chmod 755 "$lab" "$lab/munge"
chown -R munge:munge "$lab/munge"
setpriv --reuid munge --regid munge --clear-groups munged --num-threads=2 --key-file="$lab/munge/key" \
  --socket="$lab/munge/socket" --pid-file="$lab/munge/pid" --log-file="$lab/munge/log" --seed-file="$lab/munge/seed"

# two GPUs a node, in name: gres wants character devices, so these are copies of /dev/null. node[3-80] are there for
# sbatch --test-only alone: nodes of a cloud, which no test wakes
for i in 0 1; do mknod -m 666 "$lab/dev/nvidia$i" c 1 3; done
cat >"$lab/gres.conf" <<CONF
NodeName=node[1-2] Name=gpu File=$lab/dev/nvidia[0-1]
NodeName=node[3-80] Name=gpu Type=h100 File=/dev/nvidia[0-7]
CONF
# cred_expire: a requeued job waits that long, 120 s by default; and a step that is slower to start fails
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(10.231.9.254)
SlurmctldPort=26817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$lab/munge/socket,cred_expire=10
MessageTimeout=30
StateSaveLocation=$lab/state
SlurmdSpoolDir=$lab/spool/%n
SlurmctldPidFile=$lab/slurmctld.pid
SlurmdPidFile=$lab/slurmd.%n.pid
SlurmctldLogFile=$lab/log/slurmctld.log
SlurmdLogFile=$lab/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
GresTypes=gpu
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerNode=8000
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=86400
SuspendExcNodes=node[1-2]
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=5
MinJobAge=86400
NodeName=node[1-2] NodeAddr=10.231.9.[1-2] Port=27001 CPUs=16 RealMemory=64000 Gres=gpu:2
PartitionName=batch Nodes=node[1-2] Default=YES MaxTime=INFINITE
PartitionName=urgent Nodes=node[1-2] PriorityTier=10 PreemptMode=OFF
NodeName=node[3-80] Sockets=2 CoresPerSocket=96 RealMemory=2000000 Gres=gpu:h100:8 Feature=ib,h100 State=CLOUD
PartitionName=gpu Nodes=node[3-80] MaxTime=INFINITE
PartitionName=gpu_long Nodes=node[3-80] MaxTime=INFINITE
CONF

slurmctld -c -f "$SLURM_CONF"
for i in 1 2; do
  # nsenter and not `ip netns exec`, which remounts /sys: slurmd 22.05 then misses /sys/fs/cgroup
  nsenter --net="/run/netns/mrslurm$i" unshare --mount --uts --propagation private bash -c '
    hostname "$1"
    mount --bind "$2/hosts" /etc/hosts
    for folder in /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
    mount -t tmpfs -o mode=755 tmpfs /run
    exec slurmd -N "$1" -f "$SLURM_CONF"' _ "node$i" "$lab"
done
for _ in $(seq 400); do
  [ "$(timeout 40 sinfo --noheader --Node --partition=batch --states=idle --format=%N | wc -l)" = 2 ] && exit 0
  sleep 0.2
done
echo "the nodes did not come up; see $lab/log" >&2
exit 1
