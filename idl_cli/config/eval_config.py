"""The configuration of `idl eval` as a typed object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from idl_cli.config.bounds import Count
from idl_cli.config.data_options import EvalDataConfig
from idl_cli.config.training_options import check_device, check_run_name


@dataclass(frozen=True)
class EvalConfig:
    """The configuration of `idl eval`."""

    run: str
    name: str
    data: EvalDataConfig = field(default_factory=EvalDataConfig)
    checkpoint: Literal["best", "last"] = "best"
    split: Literal["train", "val", "test"] = "test"
    batch_size: Count | None = None
    device: str = "auto"
    debug: bool = False

    def __post_init__(self) -> None:
        check_run_name(self.name)
        check_device(self.device)
