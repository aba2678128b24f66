#!/usr/bin/env bash
# A whole Slurm on this host and its loopback, for tests: munged, slurmctld and one slurmd, all files in DIR.
#   one_host.sh up DIR CPUS CTLD_PORT SLURMD_PORT     then export SLURM_CONF=DIR/slurm.conf
#   one_host.sh down DIR
# Needs root and the Debian packages slurmctld slurmd slurm-client munge; no systemd, no database.
set -euo pipefail

dir=$(readlink -f "$2")

up() { # CPUS CTLD_PORT SLURMD_PORT
  mkdir -p "$dir/state" "$dir/spool" "$dir/munge"
  chmod 755 "$dir" "$dir/munge"
  dd if=/dev/urandom of="$dir/munge/key" bs=128 count=1 status=none
  chmod 600 "$dir/munge/key"
  cat >"$dir/slurm.conf" <<END
ClusterName=onehost
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$2
SlurmdPort=$3
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has expired, after 120 s by default.
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CommunicationParameters=NoAddrCache,NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=30
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,bf_interval=1
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$1 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
END
  # Without a cgroup file system slurmd exits, unless version 1 is configured, which it then does not use.
  echo 'CgroupPlugin=cgroup/v1' >"$dir/cgroup.conf"
  export SLURM_CONF=$dir/slurm.conf
  munged --force --socket="$dir/munge/socket" --key-file="$dir/munge/key" --pid-file="$dir/munge/pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
  slurmctld
  slurmd -N localhost
  for _ in $(seq 100); do
    [[ $(sinfo -h -o %T 2>/dev/null) == idle ]] && return
    sleep 0.2
  done
  tail -n 5 "$dir"/slurm*.log >&2
  return 1
}

down() { # ends the daemons by their process ids
  local pid
  export SLURM_CONF=$dir/slurm.conf
  timeout 20 scancel --user="$(id -un)" --signal=KILL --full 2>/dev/null || true
  for name in slurmd slurmctld munge/pid; do
    pid=$(cat "$dir/${name%.pid}.pid" 2>/dev/null || cat "$dir/$name" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 50); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
  done
}

"$1" "${@:3}"
