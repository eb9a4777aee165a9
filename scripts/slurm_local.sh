#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, for tests: bash scripts/slurm_local.sh [stop]
# For root in a container or a CI machine (Debian, Ubuntu): installs slurm-wlm and munge where they are absent,
# writes /etc/slurm/slurm.conf, starts the daemons on loopback and waits until a job has run.
# Once it is up it says so and changes nothing. A SLURM that is not this script's is left alone.
set -euo pipefail
mark="# written by idl's scripts/slurm_local.sh"
conf=/etc/slurm/slurm.conf

fail() {
    echo "slurm_local: $*" >&2
    exit 1
}

stop() {
    for name in slurmd slurmctld munged; do
        local file=/run/idl-slurm/$name.pid
        [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
    done
}

install_packages() {
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && return
    command -v apt-get >/dev/null || fail "no apt-get here; install SLURM and munge by other means"
    export DEBIAN_FRONTEND=noninteractive
    timeout 120 apt-get update -qq || fail "apt-get update failed: is there a network?"
    timeout 300 apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null \
        || fail "slurm-wlm and munge cannot be installed"
}

write_configuration() {
    local cpus memory host
    cpus=$(nproc)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    host=$(hostname -s)
    mkdir -p /etc/slurm /run/idl-slurm /var/lib/idl-slurm/state /var/lib/idl-slurm/spool /var/log/idl-slurm
    chmod 755 /run/idl-slurm /var/log/idl-slurm
    cat >"$conf" <<CONF
$mark
ClusterName=idl
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=/run/idl-slurm/munge.socket
CredType=cred/munge
StateSaveLocation=/var/lib/idl-slurm/state
SlurmdSpoolDir=/var/lib/idl-slurm/spool
SlurmctldPidFile=/run/idl-slurm/slurmctld.pid
SlurmdPidFile=/run/idl-slurm/slurmd.pid
SlurmctldLogFile=/var/log/idl-slurm/slurmctld.log
SlurmdLogFile=/var/log/idl-slurm/slurmd.log
# No cgroups in a container, and no accounting: what is needed for jobs, and no more.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
# Look for work every few seconds: jobs of tests are short.
SchedulerParameters=batch_sched_delay=1,sched_interval=5
KillWait=30
MinJobAge=600
SlurmdTimeout=60
SlurmdParameters=config_overrides
# Two jobs a core: the machine is shared with what submits them.
NodeName=$host NodeAddr=127.0.0.1 CPUs=$((cpus * 2)) RealMemory=$memory State=UNKNOWN
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

start_munge() {
    # Its own key, socket and user: a munge that is running already is not touched.
    local key=/var/lib/idl-slurm/munge.key
    if ! id munge >/dev/null 2>&1; then useradd --system --no-create-home munge; fi
    if [ ! -s "$key" ]; then
        (umask 077 && head -c 1024 /dev/urandom >"$key")
    fi
    mkdir -p /var/lib/idl-slurm/munge /var/log/idl-slurm/munge
    chown munge: "$key" /run/idl-slurm /var/lib/idl-slurm/munge /var/log/idl-slurm/munge
    chown root:root /var/lib/idl-slurm
    setpriv --reuid=munge --regid=munge --clear-groups munged --force \
        --key-file="$key" --socket=/run/idl-slurm/munge.socket --pid-file=/run/idl-slurm/munged.pid \
        --seed-file=/var/lib/idl-slurm/munge/seed --log-file=/var/log/idl-slurm/munge/munged.log
}

is_up() {
    [ -f "$conf" ] && timeout 10 scontrol ping 2>/dev/null | grep -q "is UP" \
        && timeout 10 sinfo -h -o %T 2>/dev/null | grep -Eq "idle|mixed|allocated"
}

if [ "${1:-}" = stop ]; then
    stop
    exit 0
fi
if is_up; then
    echo "slurm_local: up"
    exit 0
fi
[ "$(id -u)" = 0 ] || fail "it needs root, in a container or a CI machine"
if [ -f "$conf" ] && ! grep -qF "$mark" "$conf"; then
    fail "$conf is another cluster's; it is left as it is"
fi
install_packages
stop
sleep 1
write_configuration
start_munge
slurmctld -c  # a fresh start: a node that was down before is not kept down
slurmd
for _ in $(seq 60); do
    if is_up; then break; fi
    sleep 0.5
done
is_up || fail "the node did not come up; see /var/log/idl-slurm"
timeout 60 srun --ntasks=1 true || fail "a job of nothing did not run; see /var/log/idl-slurm"
echo "slurm_local: up, $(sinfo -h -o '%D node, %c CPUs, partition %P')"
