#!/usr/bin/env bash
# A series on a Slurm cluster, one dask worker on each node: sbatch workflows/hex_cluster.sh recipe.toml
# Activate the environment that xctpipe is installed in first; add the partition and account of your cluster.
# It may be cancelled, or run out of time, at any moment: submit it again, what is finished is kept.
#SBATCH --job-name=xctpipe
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem=128G
#SBATCH --time=12:00:00
set -euo pipefail
recipe=${1:?give the recipe}
place=$(mktemp -d "$PWD/.dask-XXXXXX")
address=$place/scheduler.json
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$place"' EXIT

dask scheduler --port 0 --no-dashboard --scheduler-file "$address" &
scheduler=$!
srun dask worker --nworkers 1 --nthreads "${SLURM_CPUS_PER_TASK:-2}" --memory-limit 0 --no-dashboard \
    --local-directory "$place" --scheduler-file "$address" &
until [ -s "$address" ]; do
    kill -0 "$scheduler" 2>/dev/null || { echo "the dask scheduler did not start; why is said above" >&2; exit 1; }
    sleep 0.2
done
xctpipe run "$recipe" --scheduler \
    "$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$address")"
