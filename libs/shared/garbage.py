"""Python's garbage collector, told what our processes are like."""

import gc

# Objects made and not yet dropped before a collection; Python's own is 700. Two batches of 2,000
# events at hand are 80,000.
THRESHOLD = 200_000


def spare_the_collector() -> None:
    """Let the collector pass over what was loaded at the start, and look less often.

    A batch makes thousands of objects and drops them at once. At the default threshold the
    collector walked the whole heap again and again and took a third of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
