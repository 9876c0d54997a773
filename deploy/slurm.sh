#!/bin/bash
# sbatch deploy/slurm.sh --config big.yaml     (from the environment that sase-ray is installed in)
# Data and `results:` lie on a file system that all nodes share.
#SBATCH --job-name=sase-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
set -euo pipefail

# A token for this job alone. It travels in the environment, which only its user can read.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
address=$ip:$((20000 + SLURM_JOB_ID % 10000))
share=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block)
# No `ray stop`: it would stop the clusters of other jobs on a node that is not ours alone.
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT

srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --overlap \
    ray start --head --port="${address#*:}" --dashboard-host=127.0.0.1 "${share[@]}" &
timeout 120 bash -c "until (exec 3<>/dev/tcp/${address/:/\/}) 2>/dev/null; do sleep 1; done"
workers=$((${#nodes[@]} - 1))
if ((workers)); then
    srun --nodes="$workers" --ntasks="$workers" --exclude="${nodes[0]}" \
        ray start --address="$address" "${share[@]}" &
fi

# A comparison shares out the nodes that are there when it begins.
timeout 300 python - "$address" "${#nodes[@]}" <<'PYTHON'
import sys, time, ray

ray.init(address=sys.argv[1], logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(1)
PYTHON
python -m sase_ray compare --address "$address" "$@"
