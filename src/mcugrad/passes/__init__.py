"""The pipelines: what runs, in this order, and why."""

from mcugrad.passes.keep import keep_live_channels
from mcugrad.passes.run import Pass, run
from mcugrad.passes.train import fuse_chains, fuse_updates, one_bit_masks, prune, update_early

TRAIN: tuple[Pass, ...] = (
    prune,  # gradients that lead to no update
    keep_live_channels,  # before masks, which an activation that is no longer kept whole then needs
    one_bit_masks,  # before fusion, while masks are nodes of their own
    fuse_chains,  # an input gradient is never stored as int32
    fuse_updates,  # a parameter gradient is never stored
    update_early,  # activations and gradients die as soon as possible
)

__all__ = ["TRAIN", "Pass", "run"]
