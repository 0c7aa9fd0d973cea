"""Photos on many machines: a class for engines of batches, and Ray Data with it (`dhm align --ray`)."""

from dhm_cli.distributed.align_batch import AlignBatch

__all__ = ["AlignBatch"]
