"""Competitor of kind `sft`: supervised fine-tuning with TRL's SFTTrainer, full or through a PEFT adapter."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cluster.errors import UserError
from cluster.records import nearest
from competitors.contract import RecipeBase
from competitors.sft import deepspeed_config
from competitors.sft.adapters import Adapter

# The names that transformers knows and that need nothing but the training loss. Written down here because
# importing transformers to check a config takes seconds.
SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
)  # fmt: skip
SCHEDULE_FREE = ("schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd")
OPTIMIZERS = (
    "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "ademamix", "lion_32bit",
    "adamw_torch_4bit", "adamw_torch_8bit", "adamw_bnb_8bit", "adamw_8bit", "lion_8bit", "ademamix_8bit",
    "paged_adamw_32bit", "paged_adamw_8bit", "paged_lion_32bit", "paged_lion_8bit", "paged_ademamix_32bit",
    "paged_ademamix_8bit", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "galore_adamw",
    "galore_adamw_8bit", "galore_adafactor", "lomo", "adalomo", "grokadamw", "apollo_adamw", "stable_adamw",
    *SCHEDULE_FREE,
)  # fmt: skip


BITSANDBYTES_OPTIMIZERS = (
    "ademamix", "lion_32bit", "adamw_bnb_8bit", "adamw_8bit", "lion_8bit", "ademamix_8bit", "paged_adamw_32bit",
    "paged_adamw_8bit", "paged_lion_32bit", "paged_lion_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit",
    "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "galore_adamw_8bit",
)  # fmt: skip
TORCHAO_OPTIMIZERS = ("adamw_torch_4bit", "adamw_torch_8bit")
OWN_GROUPS = ("galore", "apollo", "lomo", "adalomo")
"""Optimizers that make up their own parameter groups."""


NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class SftRecipe(RecipeBase):
    """A fine-tuning recipe. An optimizer step takes `batch_size` × `gradient_accumulation` × workers sequences; a
    forward pass takes no more memory than `batch_size` of the longest, and holds more of short ones. `warmup` is
    a share of the schedule's span; `tail` the share of the round that `tail_average` averages or `cool_down`
    cools. `freeze` and `train_only` are globs over names of modules.
    """

    kind: Literal["sft"]
    learning_rate: float = Field(gt=0)
    adapter: Adapter | None = None
    freeze: list[str] = []
    train_only: list[str] = []
    batch_size: int = Field(16, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    optimizer: str = "adamw_torch"
    optimizer_args: dict[str, float | int | str | bool] = {}
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    schedule: str = "linear"
    schedule_args: dict[str, float | int | str | bool] = {}
    schedule_spans: Literal["round", "lineage"] = "round"
    warmup: float = Field(0.03, ge=0, lt=1)
    continue_: bool | Literal["weights"] = Field(False, alias="continue", description="weights: not the optimizer")
    score_weights: Literal["last", "tail_average", "cool_down"] = "last"
    tail: float = Field(0.25, gt=0, lt=1)
    packing: bool = False
    group_by_length: bool = Field(False, description="rows of about the same length in a step")
    gradient_checkpointing: bool = False
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: str | None = None
    liger: bool = False
    checkpoints: int = Field(4, ge=0, description="saved in a round: for the deadline, or another try")
    deepspeed: str | dict[str, Any] | None = None

    @field_validator("adapter", mode="before", json_schema_input_type=Adapter | Literal["none"] | None)
    @classmethod
    def _none_is_full(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("optimizer_args", "schedule_args", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        """What YAML 1.1 takes for text: 1e-6."""
        if not isinstance(value, dict):
            return value
        return {
            key: float(one) if isinstance(one, str) and NUMBER.fullmatch(one) else one for key, one in value.items()
        }

    @field_validator("schedule", "optimizer")
    @classmethod
    def _known_name(cls, value: str, info: ValidationInfo) -> str:
        known = SCHEDULES if info.field_name == "schedule" else OPTIMIZERS
        if value not in known:
            raise ValueError(f'unknown {info.field_name} "{value}"{nearest(value, known)}')
        return value

    @field_validator("deepspeed")
    @classmethod
    def _known_deepspeed(cls, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if isinstance(value, str) and (why := deepspeed_config.unknown(value)):
            raise ValueError(why)
        return value

    @model_validator(mode="after")
    def _whole(self) -> "SftRecipe":
        gpus = self.resources.gpus
        if self.is_gang and isinstance(gpus, float) and 0 < gpus != 1:
            raise ValueError(f"resources.gpus: each worker of a gang trains on one whole GPU, not {gpus:g}")
        if self.deepspeed is not None and self.optimizer not in deepspeed_config.OPTIMIZERS:
            known = ", ".join(deepspeed_config.OPTIMIZERS)
            raise ValueError(f"optimizer: DeepSpeed's flat shards do for {known}, not for {self.optimizer}")
        if why := self._wrong_with_shards:
            raise ValueError(why)
        if (self.freeze or self.train_only) and self.adapter:
            key = "freeze" if self.freeze else "train_only"
            raise ValueError(f"{key}: an adapter leaves the whole seed frozen; name its modules in target_modules")
        if self.freeze and self.train_only:
            raise ValueError("train_only: give it or freeze, not both")
        if self.adapter and self.adapter.lora_plus_ratio and self.optimizer.startswith(OWN_GROUPS):
            raise ValueError(f"adapter.lora_plus_ratio: optimizer {self.optimizer} makes its own parameter groups")
        if self.packing and self.group_by_length:
            raise ValueError("group_by_length: packed sequences are all full; give it or packing, not both")
        if self.schedule == "warmup_stable_decay" and "num_decay_steps" in self.schedule_args:
            raise ValueError("schedule_args.num_decay_steps: give decay, a share of the span, instead")
        return self

    @property
    def is_gang(self) -> bool:
        """DeepSpeed wants torch.distributed, which is set up for a gang, if of one."""
        return self.resources.workers > 1 or self.deepspeed is not None

    @property
    def hands_on_files(self) -> bool:
        """See competitors.sft.ray_train."""
        return True

    @property
    def _wrong_with_shards(self) -> str | None:
        """Why ZeRO-3 cannot train this adapter; None when it can."""
        adapter = self.adapter
        if adapter is None or not deepspeed_config.shares_out_weights(self.deepspeed):
            return None
        needs_whole = adapter.splits_the_seed or adapter.method in ("mica", "qlora")
        return f"adapter.method: {adapter.method} needs whole weights, ZeRO-3 has shards" if needs_whole else None

    def located(self, config_folder: Path) -> Self:
        """With the DeepSpeed file's content in the place of its name: workers may not see the config's folder."""
        if not isinstance(self.deepspeed, str) or self.deepspeed in deepspeed_config.PRESETS:
            return self
        path = config_folder / self.deepspeed
        return self.model_copy(update={"deepspeed": deepspeed_config.read(path) if path.is_file() else str(path)})

    def check(self) -> None:
        """Whether the DeepSpeed configuration is there and agrees with the recipe. What earlier versions took, though
        it came to nothing, is refused here and not when it is read: it may be on record."""
        if self.optimizer in SCHEDULE_FREE:
            raise UserError(f"optimizer: {self.optimizer} trains on other weights than it means, and hands those in")
        if isinstance(self.resources.gpus, float) and self.resources.gpus > 1:
            gpus = f"{self.resources.gpus:g}"
            raise UserError(f"resources.gpus: a process trains on one GPU, not on {gpus}: give that many workers")
        if isinstance(self.deepspeed, dict):
            deepspeed_config.check(self.deepspeed, self._said_to_deepspeed, self.dtype, self.optimizer)
            if why := self._wrong_with_shards:
                raise UserError(why)
        elif self.deepspeed is not None and self.deepspeed not in deepspeed_config.PRESETS:
            raise UserError(f"deepspeed: {self.deepspeed} is not there")

    @property
    def _said_to_deepspeed(self) -> dict[str, tuple[Any, str]]:
        """What the recipe says about keys of DeepSpeed's: the value, and by which of its own keys."""
        return {
            "train_micro_batch_size_per_gpu": (self.batch_size, "batch_size"),
            "gradient_accumulation_steps": (self.gradient_accumulation, "gradient_accumulation"),
            "train_batch_size": (self.batch, "batch_size × gradient_accumulation × workers"),
            "gradient_clipping": (self.max_grad_norm, "max_grad_norm"),
            "optimizer.params.lr": (self.learning_rate, "learning_rate"),
            "optimizer.params.betas": (list(self.betas), "betas"),
            "optimizer.params.weight_decay": (self.weight_decay, "weight_decay"),
            "zero_force_ds_cpu_optimizer": (False, "optimizer"),
        }

    @property
    def batch(self) -> int:
        """Sequences of an optimizer step, over all workers."""
        return self.batch_size * self.gradient_accumulation * self.resources.workers

    @property
    def summary(self) -> str:
        """Method, optimizer, rate, schedule and batch."""
        what = self.adapter.summary if self.adapter else "full"
        if self.freeze or self.train_only:
            what += f" without {', '.join(self.freeze)}" if self.freeze else f" of {', '.join(self.train_only)}"
        spans = " over the lineage" if self.schedule_spans == "lineage" else ""
        gang = f"{self.resources.workers} workers, " if self.is_gang else ""
        if self.deepspeed is not None:
            gang += f"{self.deepspeed}, " if isinstance(self.deepspeed, str) else "DeepSpeed, "
        return f"{gang}{what}, {self.optimizer}, {self.learning_rate:g} {self.schedule}{spans}, batch {self.batch}"

    @property
    def needs_gpu(self) -> str | None:
        """Kernels that exist for GPUs only."""
        if self.adapter and self.adapter.method == "qlora":
            return "qlora: bitsandbytes needs a GPU for a 4-bit base"
        if self.liger:
            return "liger: its kernels need a GPU"
        if self.optimizer in BITSANDBYTES_OPTIMIZERS:
            return f"optimizer {self.optimizer}: bitsandbytes needs a GPU"
        if self.optimizer in TORCHAO_OPTIMIZERS:
            return f"optimizer {self.optimizer}: torchao's kernels need a GPU"
        if self.attention and "flash" in self.attention:
            return f"attention {self.attention}: flash attention needs a GPU"
        return None

    @property
    def gpu_packages(self) -> dict[str, str]:
        """What it needs of the extra `gpu`: the module's name, and the key that asks for it."""
        needed = {}
        if self.liger:
            needed["liger_kernel"] = "liger"
        if self.optimizer in BITSANDBYTES_OPTIMIZERS:
            needed["bitsandbytes"] = f"optimizer {self.optimizer}"
        if self.adapter and self.adapter.method == "qlora":
            needed["bitsandbytes"] = "qlora"
        return needed
