"""What this process may really use of the machine: CPUs and memory, not what the machine has."""

import os
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """CPUs this process may use: Slurm's grant, else its affinity, both capped by the cgroup's quota."""
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if granted.isdigit() and int(granted) > 0:
        return int(granted)
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _cgroup_cpus()
    return max(1, min(count, quota)) if quota else count


def usable_memory_bytes() -> int:
    """Memory this process may use: the machine's total, capped by the cgroup's limit."""
    total = int(psutil.virtual_memory().total)
    limit = _cgroup_memory()
    return min(total, limit) if limit else total


def _cgroup_cpus() -> int | None:
    fields = _words(_CGROUP / "cpu.max")
    if len(fields) == 2 and fields[0].isdigit():
        return max(1, int(fields[0]) // int(fields[1]))
    return None


def _cgroup_memory() -> int | None:
    fields = _words(_CGROUP / "memory.max")
    return int(fields[0]) if fields and fields[0].isdigit() else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # no cgroup v2 here: nothing to cap
        return []


def set_threads(count: int | None = None) -> int:
    """Use this many threads in numba kernels, all usable CPUs when absent; returns the number in use."""
    import numba

    wanted = min(count or usable_cpus(), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(wanted)
    return int(wanted)
