"""One of several workers that train case after case in one torch.distributed group: a gang without Ray.

    python -m tests.integration.gang_worker RANK WORKERS PORT CASES.json

Starting a gang costs half a minute on two cores, so what the workers do together is tested in one start.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(rank: int, workers: int, port: str, cases: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": port, "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
    import torch

    torch.distributed.init_process_group("gloo")
    for case in json.loads(cases.read_text()):
        run(rank, case)
        torch.distributed.barrier()


def run(rank: int, case: dict[str, Any]) -> None:
    """Train one case. What ends it is noted in its folder, by each worker."""
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from competitors.contract import Brief
    from competitors.events import reporter
    from competitors.sft.callback import BudgetCallback
    from competitors.sft.recipe import SftRecipe
    from competitors.sft.training import train

    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    unset_hf_deepspeed_config()
    brief, recipe = Brief.model_validate(case["brief"]), SftRecipe.model_validate(case["recipe"])
    original = BudgetCallback._report_step

    def lost_at(self: BudgetCallback, step: int) -> None:
        original(self, step)
        if step == case.get("lost_at"):
            raise ConnectionError

    BudgetCallback._report_step = lost_at  # type: ignore[method-assign]
    report = reporter(brief.progress_file) if rank == 0 else lambda event: None
    try:
        train(brief, recipe, report)
        ended = "delivered"
    except Exception as error:  # noqa: BLE001 - the test looks at what it was
        ended = f"{type(error).__name__}: {error}"
    finally:
        BudgetCallback._report_step = original  # type: ignore[method-assign]
    (brief.output_dir.parent / f"ended-{rank}").write_text(ended)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
