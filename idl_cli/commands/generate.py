"""`idl generate run=<dir> prompt=...`: print text that a trained language model continues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from idl_cli.config.bounds import Count, NonNegative, Range
from idl_cli.config.data_options import TextConfig
from idl_cli.config.train_config import TrainConfig
from idl_cli.config.training_options import check_device
from idl_cli.config.typed_settings import annotations_of, read_settings
from idl_cli.errors import InputError
from idl_cli.plain_arguments import parse_settings, wants_help
from idl_cli.record.config_file import recorded_config_of
from idl_cli.record.finder import existing_run

if TYPE_CHECKING:
    from torch import Tensor

    from idl_datasets import Tokenizer

USAGE = """\
usage: idl generate run=<dir> [prompt=TEXT] [key=value ...]

Continues a text with a run of model=attention or model=gpt, and prints it as it comes.

  prompt=TEXT             what to continue (default: a new line)
  max_new_tokens=500      how much to add; the model sees the last block_size tokens
  temperature=0.8         below 1 bolder in what it prefers, 0: always the best token
  top_k=null              draw from the k best tokens only
  seed=0                  the same seed, the same text
  checkpoint=best|last    which weights
  device=auto|cpu|cuda

  idl generate run=runs/train/<run> prompt="ROMEO:" max_new_tokens=500 temperature=0.8 top_k=40
"""


@dataclass(frozen=True)
class GenerateConfig:
    """The settings of `idl generate`."""

    run: str
    prompt: str = "\n"
    max_new_tokens: Count = 500
    temperature: NonNegative = 0.8
    top_k: Count | None = None
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    checkpoint: Literal["best", "last"] = "best"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_device(self.device)


def main(arguments: Sequence[str]) -> int:
    """Run `idl generate`. Raises: InputError for a wrong setting, run or prompt."""
    if wants_help(arguments):
        print(USAGE, end="")
        return 0
    plain, typed = parse_settings(arguments, keys=tuple(annotations_of(GenerateConfig)))
    if plain:
        hint = f"prompt='{plain[0]}'" if "run" in typed else f"run={plain[0]}"
        raise InputError(f"cannot read '{plain[0]}': settings are written key=value, as {hint}")
    if "run" not in typed:
        raise InputError("run=<...> is needed: the directory of a run of model=attention or gpt")
    values = {key: None if value == "null" and key == "top_k" else value
              for key, value in typed.items()}  # fmt: skip
    for piece in generated(read_settings(GenerateConfig, values)):
        print(piece, end="", flush=True)
    print()
    return 0


def generated(config: GenerateConfig) -> Iterator[str]:
    """The prompt, then the text that continues it, piece by piece.

    Raises: InputError where the run has no language model or the prompt is not in its vocabulary.
    """
    run = existing_run(config.run)
    trained = recorded_config_of(run, TrainConfig)
    if not isinstance(trained.data, TextConfig):
        raise InputError(
            f"run={config.run} was trained on data={trained.data.name}, which is no text; "
            "idl generate takes a run of model=attention or gpt"
        )
    import torch

    from idl_cli.processes.devices import choose_device
    from idl_cli.record.data_files import read_tokenizer
    from idl_cli.record.saved_model import saved_model
    from idl_core.models import GPT, ImplicitGPT
    from idl_datasets import DatasetError

    device = choose_device(config.device, "device")
    tokenizer = read_tokenizer(run)
    try:
        prompt = tokenizer.encode(config.prompt)
    except DatasetError as error:
        raise InputError(f"prompt={config.prompt!r}: {error}") from error
    model = saved_model(run, config.checkpoint).to(device).eval()
    assert isinstance(model, GPT | ImplicitGPT)  # what the configuration's check lets read text
    if model.vocab_size != tokenizer.size:
        raise InputError(
            f"'{run}' is damaged: tokenizer.json has {tokenizer.size} tokens, the model "
            f"{model.vocab_size}"
        )
    yield config.prompt
    tokens = model.stream(
        torch.tensor([prompt], device=device),
        config.max_new_tokens,
        config.temperature,
        config.top_k,
        torch.Generator(device).manual_seed(config.seed),
    )
    yield from decoded(tokens, tokenizer)


def decoded(tokens: Iterator[Tensor], tokenizer: Tokenizer) -> Iterator[str]:
    """The text of a stream of tokens (1, 1): held back while it ends within a character.

    A token of byte pairs can be a part of a character, which alone decodes to U+FFFD.
    """
    held: list[int] = []
    for token in tokens:
        held.append(int(token))
        text = tokenizer.decode(held)
        if not text.endswith("\N{REPLACEMENT CHARACTER}") or len(held) > 4:
            yield text
            held = []
    if held:
        yield tokenizer.decode(held)
