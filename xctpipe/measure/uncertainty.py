"""Noise of sums over many voxels, from the measured noise of means: reconstructions are not white."""

import numpy as np

from xctpipe.measure.regions import Context
from xctpipe.scan import DoubleArray
from xctpipe.segment.scene import LIQUID, SOLID, Level


def noise_of_means(level: Level, edge_px: DoubleArray) -> DoubleArray:
    """Standard deviation of means over cubes (cm^-1) that a local background does not take off.

    What the largest measured cubes still show is drift and texture wider than an object and its ring; its
    variance is taken off that of the smaller ones. The rest is interpolated in double logarithm, and falls as
    that of white noise, edge^-1.5, beyond the cubes of less than half the largest edge.

    Parameters
    ----------
    edge_px : edges of the cubes, any shape.
    """
    good = np.isfinite(level.noise_of_means_cm1) & (level.noise_of_means_cm1 > 0)
    edges, noise = level.noise_edges_px[good], np.minimum.accumulate(level.noise_of_means_cm1[good])
    at = np.maximum(edge_px, 1.0)
    if len(edges) < 2:
        # nothing measured: as if white
        return np.asarray(level.noise_cm1 / at**1.5)
    near = edges <= max(edges.max() / 2, edges.min())
    local = np.sqrt(np.maximum(noise[near] ** 2 - noise[-1] ** 2, (0.1 * noise[near]) ** 2))
    falling = np.interp(np.log(at), np.log(edges[near]), np.log(local))
    beyond = np.maximum(at / edges[near].max(), 1.0) ** -1.5
    return np.asarray(np.exp(falling) * beyond)


def noise_of_sum(voxels: DoubleArray, context: Context, *, thickness_px: DoubleArray) -> DoubleArray:
    """Standard deviation of a sum of missing attenuation over a mask, in voxels of void.

    A compact mask is a cube of as many voxels. A sheet is n = voxels / t^3 cubes of its thickness t, taken as
    independent: sigma = t^3 sigma_mean(t) sqrt(n); with t^3 = voxels both are the same.

    Parameters
    ----------
    voxels : of each object of the context.
    thickness_px : edge of the cubes that each mask is made of.
    """
    t = np.maximum(thickness_px, 1.0)
    mean = _per_object(context, t)
    return np.asarray(mean * t**1.5 * np.sqrt(voxels))


def offset_noise(voxels: DoubleArray, context: Context) -> DoubleArray:
    """Standard error of a local background over so many voxels, in parts of a void."""
    return _per_object(context, np.cbrt(np.maximum(voxels, 1.0)))


def _per_object(context: Context, edge_px: DoubleArray) -> DoubleArray:
    out = np.full(len(context.objects.ids), np.nan)
    for host in (SOLID, LIQUID):
        level, own = context.level(host), context.hosts == host
        if level is not None:
            out[own] = noise_of_means(level, edge_px[own]) / level.mu_cm1
    return out
