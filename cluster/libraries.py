"""What libraries would load for nothing in a process that trains, scores or merges models."""

import sys


def spare_deepspeed() -> None:
    """Have accelerate unwrap models without loading DeepSpeed where that is not in use. Call it before a save.

    To see whether a model is one of DeepSpeed's engines it imports DeepSpeed, whose autotuner imports MLflow: three
    seconds of each process. Where DeepSpeed is not loaded, no model can be one.
    """
    from accelerate.utils import other

    other.is_deepspeed_available = lambda: "deepspeed" in sys.modules
