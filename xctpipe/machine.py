"""What this process may really use of the machine: CPUs and memory, not what the machine has."""

import os
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """CPUs this process may use: the least of its affinity, Slurm's grant and the cgroup's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    limits = [count, _cgroup_cpus(), int(granted) if granted.isdigit() else None]
    return max(1, min(limit for limit in limits if limit))


def usable_memory_bytes() -> int:
    """Memory this process may use: the least of the machine's, Slurm's grant and the cgroup's limit."""
    granted = os.environ.get("SLURM_MEM_PER_NODE", "")  # MiB
    limits = [psutil.virtual_memory().total, _cgroup_memory()]
    limits.append(int(granted) * 2**20 if granted.isdigit() else None)
    return min(int(limit) for limit in limits if limit)


def _cgroup_cpus() -> int | None:
    quotas = [fields for fields in _cgroup_settings("cpu.max") if len(fields) == 2 and fields[0].isdigit()]
    return min((max(1, int(quota) // int(period)) for quota, period in quotas), default=None)


def _cgroup_memory() -> int | None:
    limits = [fields[0] for fields in _cgroup_settings("memory.max") if fields and fields[0].isdigit()]
    return min(map(int, limits), default=None)


def _cgroup_settings(name: str) -> list[list[str]]:
    """A setting of this process's cgroup (v2) and of all above it: the tightest one binds."""
    path = next((line[3:] for line in _words(Path("/proc/self/cgroup")) if line.startswith("0::")), "/")
    own = _CGROUP / path.strip("/")
    return [_words(folder / name) for folder in (own, *own.parents) if folder.is_relative_to(_CGROUP)]


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
