#!/bin/bash
# Gives the cluster of tests/slurm/start.sh accounting: a mariadbd and a slurmdbd of its own. As root.
#   tests/slurm/accounts.sh start|stop <state folder>
set -euo pipefail
lab=$2
export SLURM_CONF=$lab/slurm.conf
db=$lab/accounts

stop() { # <pid file> <name>
  [ -s "$1" ] || return 0
  local pid
  pid=$(cat "$1")
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || return 0
  kill "$pid"
  for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.1; done
}

restart_controller() {
  stop "$lab/slurmctld.pid" slurmctld
  slurmctld -f "$SLURM_CONF"
  for _ in $(seq 50); do timeout 5 scontrol ping >/dev/null 2>&1 && return 0 || sleep 0.2; done
}

if [ "$1" = stop ]; then
  sed -i '/^Accounting/d' "$SLURM_CONF"
  restart_controller
  stop "$db/slurmdbd.pid" slurmdbd
  stop "$db/mariadbd.pid" mariadbd
  exit 0
fi

for program in mariadbd mariadb-install-db slurmdbd sacctmgr; do
  PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || { echo "no $program: apt-get install mariadb-server slurmdbd" >&2; exit 1; }
done
mkdir -p "$db/data"
chown -R mysql "$db"
mariadb-install-db --no-defaults --user=mysql --datadir="$db/data" --auth-root-authentication-method=normal >"$db/install.log" 2>&1
setsid mariadbd --no-defaults --user=mysql --datadir="$db/data" --socket="$db/socket" --pid-file="$db/mariadbd.pid" \
  --skip-networking --innodb-buffer-pool-size=64M >"$db/mariadbd.log" 2>&1 </dev/null &
for _ in $(seq 100); do mariadb --no-defaults --socket="$db/socket" --execute="select 1" >/dev/null 2>&1 && break || sleep 0.2; done
mariadb --no-defaults --socket="$db/socket" --execute="create user slurm@localhost; grant all on slurm.* to slurm@localhost"
cat >"$db/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$lab/munge/socket
DbdHost=$(hostname -s)
DbdAddr=10.231.9.254
DbdPort=26819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm
LogFile=$db/slurmdbd.log
PidFile=$db/slurmdbd.pid
CONF
chmod 600 "$db/slurmdbd.conf"
MYSQL_UNIX_PORT=$db/socket SLURM_CONF=$db/slurmdbd.conf slurmdbd
cat >>"$SLURM_CONF" <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=10.231.9.254
AccountingStoragePort=26819
AccountingStoragePass=$lab/munge/socket
CONF
for _ in $(seq 100); do timeout 5 sacctmgr --noheader show cluster >/dev/null 2>&1 && break || sleep 0.2; done
timeout 20 sacctmgr -i add cluster test >/dev/null 2>&1 || true
restart_controller
