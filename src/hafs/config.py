"""Every setting of hafs, in one place: `hafs.toml` is checked against these classes, flags override single values.

Unknown keys are errors. Defaults are the guide's where it has one (beta 0.1, DPO learning rate 5e-6, one epoch,
2 x 8 groups a step, rank 32 for DPO) and say so; a recipe that departs from them does it in its own `hafs.toml`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hafs.errors import UsageError

Precision = Literal["auto", "fp32", "bf16"]
Thinking = Literal["keep", "strip", "off"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class StoreConfig(_Section):
    """Where the workspace database lives: empty for `hafs.db` beside `hafs.toml`, or a PostgreSQL URL."""

    url: str = ""


class ModelConfig(_Section):
    """The model everything starts from: "default" is the embedded 135M model; any HF directory or hub id works."""

    name: str = "default"
    thinking: Thinking = Field(default="keep", description="of every section that does not say otherwise")


class LoraConfig(_Section):
    """The adapter: rank, alpha (scale = alpha / rank), dropout, and which linear layers carry it.

    Dropout is off by default: a margin is a difference of log-probabilities, and noise in it is noise in every edge
    (TRL, too, switches it off for DPO). It also costs time and memory.
    """

    rank: int = Field(32, ge=1, description="rank of the adapter; alpha is twice this unless it is given")
    alpha: int = Field(64, ge=1, description="the adapter is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapter's input")
    targets: str = Field("all-linear", description="the layers that carry the adapter")


class TrainConfig(_Section):
    """What every training objective shares. A step is `batch_size` x `gradient_accumulation_steps` prompts."""

    num_epochs: float = Field(1.0, gt=0, description="passes over the data")
    learning_rate: float = Field(2e-4, gt=0, description="the largest one, after the warm-up")
    batch_size: int = Field(2, ge=1, description="prompts a pass")
    gradient_accumulation_steps: int = Field(8, ge=1, description="passes a step")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")
    schedule: Literal["linear", "cosine", "constant"] = Field("cosine", description="how the rate falls")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are clipped to this")
    max_length: int = Field(2048, ge=8, description="tokens of prompt and one candidate together")
    row_tokens: int = Field(
        0, ge=0, description="tokens of one packed row, the unit of a forward pass; 0: what there is memory for"
    )
    precision: Precision = Field("auto", description="auto: bf16 where the processor computes in it")
    seed: int = Field(0, ge=-(2**63), lt=2**63, description="of shuffling, initialisation and dropout")
    attention: Literal["auto", "sdpa", "flex"] = Field("auto", description="flex: FlexAttention, on CUDA only")
    activation_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    checkpointed_layers: int = Field(0, ge=0, description="of these layers alone, the first ones; 0: of all")
    paged_optimizer: bool = Field(
        False, description="on CUDA: AdamW's states move to main memory where the card is full (extra `quant`)"
    )
    two_pass: bool = Field(False, description="split a group longer than a row: any number of candidates, fixed memory")
    validation_share: float = Field(0.1, ge=0, lt=1, description="share of the prompts held out to choose by")
    eval_steps: int = Field(0, ge=0, description="steps between validations; 0: at the end of each epoch")
    save_steps: int = Field(100, ge=1, description="steps between checkpoints")
    save_minutes: float = Field(1.0, gt=0, description="minutes after which a checkpoint is due between save_steps")
    thinking: Thinking = Field(
        default="keep",
        description="a model's thoughts: trained on (keep), left out (strip), or closed in the prompt (off)",
    )
    router_weight: float = Field(
        -1.0, description="of the router's balancing loss of a mixture of experts; below 0: the model's own; 0: none"
    )
    resize_vocab: bool = Field(False, description="give tokens that the model has no embedding for one, and train it")
    method: Literal["lora", "dora", "full"] = Field("lora", description="full: every weight is trained, no adapter")
    quantize: Literal["none", "nf4"] = Field("none", description="nf4: the frozen base in 4 bits (extra `quant`)")
    lora: LoraConfig = LoraConfig()  # type: ignore[call-arg]
    save: Literal["merged", "adapter"] = Field("merged", description="an adapter on a 4-bit base is saved as adapter")
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field([], description="may be repeated")

    @field_validator("row_tokens")
    @classmethod
    def _a_row_holds_some(cls, tokens: int) -> int:
        if 0 < tokens < 8:
            raise ValueError("a row has at least 8 tokens; 0 leaves the choice to the memory there is")
        return tokens


class SFTConfig(TrainConfig):
    """Supervised fine-tuning on prompt and answer."""

    answers: int = Field(0, ge=0, description="right answers of a prompt that are learnt, the first ones; 0: all")
    turns: Literal["every", "last"] = Field("every", description="answers of a conversation that are learnt")


class DPOConfig(TrainConfig):
    """Preference training on groups; the defaults are the guide's."""

    learning_rate: float = Field(5e-6, gt=0)
    beta: float = Field(0.1, gt=0, description="0.1 gentle, 0.3 moderate, 0.5 aggressive")
    loss: str = Field("sigmoid", description="the loss", json_schema_extra={"registry": "losses"})
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="the share of labels taken to be flipped")
    nll_weight: float = Field(
        0.0, ge=0, description="weight of the mean token NLL of winners that are not known to be wrong, beside the loss"
    )
    simpo_gamma: float = Field(0.5, ge=0, description="target margin per token of the simpo loss")
    ld_alpha: float = Field(1.0, ge=0, le=1, description="weight of an answer's tokens beyond the shorter one's length")
    desirable_weight: float = Field(1.0, gt=0, description="what a good answer weighs in the kto loss")
    undesirable_weight: float = Field(1.0, gt=0, description="what a bad answer weighs in the kto loss")
    reference: str = Field("", description="the reference model; empty: the model that training starts from")
    reference_free: bool = Field(False, description="train without a reference")
    engine: Literal["hafs", "trl"] = Field("hafs", description="trl: TRL's own DPOTrainer (extra `trl`)")


class RewardConfig(TrainConfig):
    """A reward model: a scalar head and an adapter on the SFT model, trained on preference groups."""

    learning_rate: float = Field(1e-4, gt=0)
    loss: Literal["bradley_terry", "plackett_luce"] = Field("bradley_terry", description="edges, or whole rankings")
    margin: float = Field(
        0.0, ge=0, description="reward gap asked of a sure edge, times by how much its winner is better where known"
    )
    centering: float = Field(0.01, ge=0, description="weight of the squared sum of an edge's two rewards")


class OnlineDPOConfig(DPOConfig):
    """DPO on answers that the model in training gives: a step samples `rollouts` answers to each of `batch_size` x
    `gradient_accumulation_steps` prompts and compares them. KL is in nats a token, against the reference."""

    learning_rate: float = Field(1e-4, gt=0)
    batch_size: int = Field(8, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    save_steps: int = Field(5, ge=1)
    rollouts: int = Field(8, ge=1, description="answers sampled for each prompt of a step")
    temperature: float = Field(0.7, gt=0)
    max_new_tokens: int = Field(128, ge=1)
    rollout_batch: int = Field(96, ge=1, description="sequences decoded together")
    row_tokens: int = Field(512, ge=8, description="tokens of one packed row, the unit of a forward pass")
    reference_every: int = Field(0, ge=0, description="steps after which the policy is its own reference; 0: never")
    redraws: int = Field(
        3, ge=0, description="prompts drawn in place of one whose answers are all right or all wrong, at most"
    )
    max_kl: float = Field(1.0, gt=0, description="nats a token at which training stops")
    max_minutes: float = Field(0.0, ge=0, description="minutes after which training stops; 0: no limit")


class PPOConfig(TrainConfig):
    """PPO from the SFT model: a step samples answers to `batch_size` x `gradient_accumulation_steps` prompts, rates
    them and makes `epochs` passes over them. KL is in nats an answer, against the frozen SFT model. Dropout is off."""

    learning_rate: float = Field(3e-5, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    batch_size: int = Field(16, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    save_steps: int = Field(5, ge=1, description="steps between checkpoints")
    rollouts: int = Field(4, ge=1, description="answers sampled for each prompt of a step")
    max_new_tokens: int = Field(128, ge=1, description="tokens after which an answer is cut")
    rollout_batch: int = Field(96, ge=1, description="sequences decoded together")
    row_tokens: int = Field(512, ge=8, description="tokens of one packed row, the unit of a forward pass")
    advantage: Literal["gae", "rloo", "grpo"] = Field(
        "gae", description="gae, with a value function; rloo or grpo without"
    )
    value_function: Literal["adapter", "head"] = Field(
        "adapter", description="of gae: an adapter and a head, or a head that reads what the policy computes anyway"
    )
    epochs: int = Field(4, ge=1, description="passes over a step's answers")
    minibatches: int = Field(2, ge=1, description="optimiser steps of a pass")
    clip: float = Field(0.2, gt=0, description="how far a token's probability ratio may pull")
    importance_cap: float = Field(
        2.0, ge=1, description="most that a token counts for when a server sampled it, who computes a little otherwise"
    )
    value_clip: float = Field(0.2, gt=0, description="how far a value may move in a step")
    value_weight: float = Field(0.1, ge=0, description="of the value function's loss")
    gamma: float = Field(1.0, gt=0, le=1, description="what a token later counts")
    lam: float = Field(0.95, ge=0, le=1, description="of GAE; at 1 an early token hears of the score undiminished")
    whiten: bool = Field(True, description="advantages of a step to mean 0 and deviation 1")
    kl: Literal["fixed", "adaptive"] = Field("fixed", description="adaptive aims at kl_target")
    kl_weight: float = Field(0.05, ge=0, description="reward lost by a nat of KL to the reference")
    kl_target: float = Field(6.0, gt=0, description="nats an answer that an adaptive weight aims at")
    kl_horizon: float = Field(10_000, gt=0, description="answers over which an adaptive weight moves")
    entropy_weight: float = Field(0.0, ge=0, description="reward for a nat of surprise in the policy's own tokens")
    missing_eos_penalty: float = Field(1.0, ge=0, description="taken from the score of an answer that never ended")
    max_kl: float = Field(60.0, gt=0, description="nats an answer at which training stops")
    min_entropy: float = Field(0.1, ge=0, description="share of the first step's entropy below which training stops")
    max_minutes: float = Field(0.0, ge=0, description="minutes after which training stops; 0: no limit")
    hacking_patience: int = Field(2, ge=1, description="validations with more reward and fewer right answers to stop")


class GenerateConfig(_Section):
    """Sampling: `candidates` answers a prompt at `temperature` (0 is greedy); with `greedy` the likeliest one too."""

    candidates: int = Field(4, ge=1, description="answers a prompt")
    temperature: float = Field(0.7, ge=0, description="0 is greedy")
    greedy: bool = Field(default=False, description="one more candidate a prompt: the likeliest answer")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the likeliest tokens of this share")
    max_new_tokens: int = Field(256, ge=1, description="tokens after which an answer is cut")
    batch_size: int = Field(64, ge=1, description="sequences decoded together")
    cache: Literal["growing", "fixed"] = Field(
        default="growing", description="fixed: room for all tokens at once; on CUDA each token is one recorded graph"
    )
    seed: int = Field(default=0, description="of sampling")
    thinking: Thinking = Field(
        default="keep", description="a model's thoughts: off asks for none; what stands after one is the answer"
    )
    concurrency: int = Field(default=8, ge=1, description="requests to a server under way at a time")
    retries: int = Field(default=5, ge=0, description="how often a failed request to a server is sent again")


class PreferencesConfig(_Section):
    """How rankings become edges; the schemes are `hafs.preferences.SCHEMES`."""

    scheme: str = "all"
    references: Literal["never", "when-needed", "always"] = "never"
    max_candidates: int = Field(8, ge=2)
    efficiency: bool = Field(True, description="pair right answers with each other too, by what ranks them")
    wrong_over_wrong: bool = Field(False, description="let a wrong answer win over one that is more wrong")
    labels: bool = Field(False, description="label every answer by pass or fail (by its rating), for the loss kto")


class EvalConfig(_Section):
    """Evaluation is greedy by default; intervals are at `level`. From the similarity `near_copy` on a prompt counts as
    a copy of another, prompts of one template aside (docs/log.md has the measurement); 1 leaves only the same words."""

    benchmarks: list[str] = ["asm"]
    thinking: Thinking = Field(
        default="keep", description="a model's thoughts: off asks for none; what stands after one is the answer"
    )
    thinking_of: dict[str, Thinking] = Field({}, description="benchmark = what it asks of the model's thoughts")
    max_new_tokens: int = Field(256, ge=1)
    batch_size: int = Field(64, ge=1)
    level: float = Field(0.95, gt=0.5, lt=1)
    near_copy: float = Field(
        0.58, gt=0, le=1, description="similarity from which a prompt is a copy; 1: of the same words alone"
    )


class ScoreConfig(_Section):
    """What checks rows that name no checker of their own, as `--scorer automatic` means everywhere; "automatic" is
    nothing. `workers` 0 means one for every processor."""

    scorer: str = "automatic"
    workers: int = Field(0, ge=0)
    sandbox: Literal["auto", "sandlock", "bubblewrap", "none"] = "auto"


class AnnotateSettings(_Section):
    """What people are asked, how, and how much of it twice; see `docs/how-to/annotate.md`."""

    mode: Literal["rank", "ab", "rate", "review"] = "rank"
    candidates: int = Field(4, ge=2, le=8, description="answers shown together when ranking")
    target: int = Field(0, ge=0, description="number of prompts; 0: all there are")
    models: list[str] = Field([], description="only answers of these models (names or hashes); A/B needs two")
    overlap: float = Field(0.1, ge=0, le=1, description="share of the prompts that several people answer")
    raters: int = Field(2, ge=2, description="how many people answer such a prompt")
    repeats: float = Field(0.1, ge=0, le=1, description="share of the prompts that a person sees again, unannounced")
    gold: str = Field("", description="file of rankings known to be right (JSON lines); everybody gets their prompts")
    reveal: bool = Field(False, description="after the answer, show which model wrote what, its scores and verdicts")
    checks: bool = Field(False, description="offer the checker's result before the answer; it unblinds")
    lease_seconds: float = Field(1800, gt=0, description="a prompt nobody touched for so long goes to somebody else")
    seed: int = 0


RoundSection = Literal["generate", "preferences", "dpo", "loop"]


class LoopConfig(_Section):
    """The rounds of `hafs loop run`: what they ask, what decides, when they stop.

    Three sets of prompts have no prompt in common: `checkpoint_prompts` pick each round's checkpoint,
    `decision_prompts` decide whether it is promoted, and the benchmarks of [eval] are only reported.
    """

    pack: str = Field("asm", description="the task pack that prompts come from")
    tags: list[str] = Field([], description="tags that the pack's families must have")
    prompts: str = Field("", description="a task file in place of the pack; its validation split decides")
    columns: str = Field("", description="what the columns of that file are for, as prompt=question")
    baseline: bool = Field(True, description="evaluate the model that SFT starts from, too")
    attribution: bool = Field(
        True, description="beside DPO, SFT on the same right winners; kept where DPO is not proven better"
    )
    sft_prompts: int = Field(600, ge=1)
    round_prompts: int = Field(160, ge=1, description="new prompts that each round asks")
    checkpoint_prompts: int = Field(48, ge=0, description="0: the last checkpoint is taken")
    decision_prompts: int = Field(160, ge=1)
    more_candidates: int = Field(0, ge=0, description="answers a prompt of a family passed 20-80 %; 0: twice as many")
    max_rounds: int = Field(3, ge=0, description="0: only what comes before the first round")
    target: dict[str, float] = Field({}, description="benchmark = share passed at which the loop stops")
    patience: int = Field(2, ge=1, description="rounds without a gain, or overfitting, before the loop stops")
    min_gain: float = Field(0.0, description="a round gains when the lower bound of its gain is above this")
    max_length_growth: float = Field(0.5, gt=0, description="share by which answers may grow or shrink in a round")
    max_kl: float = Field(0.5, gt=0, description="nats a token that a round may move away from its reference")
    max_minutes: float = Field(0.0, ge=0, description="0: no limit")
    budget: float = Field(0.0, ge=0, description="US dollars; 0: no limit")
    price_per_hour: float = Field(0.0, ge=0, description="US dollars that this machine costs an hour")
    rounds: dict[int, dict[RoundSection, dict[str, Any]]] = Field(
        {}, description="what single rounds do otherwise: `[loop.rounds.2] dpo.learning_rate = 1e-5`"
    )


class ClusterConfig(_Section):
    """Where sampling, scoring and judging are done: on the workers of a Ray cluster, or in this process."""

    address: str = Field("", description="ray://HOST:10001, a head's HOST:6379, or local; empty: this process")
    workers: int = Field(0, ge=0, description="workers of a stage; 0: one an accelerator, or as many as have cores")
    cores: int = Field(1, ge=1, description="processor cores that a worker takes")


class Config(_Section):
    """The whole of `hafs.toml`."""

    store: StoreConfig = StoreConfig()
    model: ModelConfig = ModelConfig()
    generate: GenerateConfig = GenerateConfig()  # type: ignore[call-arg]
    score: ScoreConfig = ScoreConfig()  # type: ignore[call-arg]
    preferences: PreferencesConfig = PreferencesConfig()  # type: ignore[call-arg]
    sft: SFTConfig = SFTConfig()  # type: ignore[call-arg]
    dpo: DPOConfig = DPOConfig()  # type: ignore[call-arg]
    reward: RewardConfig = RewardConfig()  # type: ignore[call-arg]
    online: OnlineDPOConfig = OnlineDPOConfig()  # type: ignore[call-arg]
    ppo: PPOConfig = PPOConfig()  # type: ignore[call-arg]
    eval: EvalConfig = EvalConfig()  # type: ignore[call-arg]
    annotate: AnnotateSettings = AnnotateSettings()  # type: ignore[call-arg]
    loop: LoopConfig = LoopConfig()  # type: ignore[call-arg]
    cluster: ClusterConfig = ClusterConfig()  # type: ignore[call-arg]

    @model_validator(mode="before")
    @classmethod
    def _think_alike(cls, data: Any) -> Any:
        """What `[model] thinking` says holds in every section that says nothing."""
        model = data.get("model") if isinstance(data, dict) else None
        if not isinstance(model, dict) or "thinking" not in model:
            return data
        sections = ("generate", "sft", "dpo", "reward", "ppo", "eval")
        said = {name: data.get(name, {}) for name in sections}
        return data | {n: {"thinking": model["thinking"], **v} if isinstance(v, dict) else v for n, v in said.items()}

    def of_round(self, number: int) -> Config:
        """These settings with those of `[loop.rounds.NUMBER]` put over them; raises UsageError for a wrong one."""
        changes = self.loop.rounds.get(number)
        if changes is None:
            return self
        return parse_config(_merged(self.model_dump(exclude={"loop": {"rounds"}}), changes), f"[loop.rounds.{number}]")


def _merged(below: Mapping[str, Any], above: Mapping[Any, Any]) -> dict[str, Any]:
    """`below` with the values of `above` put in, table by table."""
    out = dict(below)
    for key, value in above.items():
        out[key] = _merged(out[key], value) if isinstance(value, Mapping) and isinstance(out.get(key), dict) else value
    return out


DEFAULT_TOML = """\
# Settings of this hafs workspace. Every key is optional; `hafs config` prints all of them with their values.
# A flag of a command overrides the value here.

[model]
name = "default"        # the embedded 135M model, a Hugging Face directory, or a hub id

[generate]
candidates = 4          # answers per prompt
temperature = 0.7       # lower: fewer different answers; higher: fewer right ones

[score]
scorer = "automatic"    # each row's own checker; or what checks rows without one, such as "text:min_words=20"

[preferences]
scheme = "all"          # every edge of the ranking; or "best-worst", "guide"

[sft]
learning_rate = 2e-4

[dpo]
beta = 0.1              # 0.1 gentle, 0.3 moderate, 0.5 aggressive
learning_rate = 5e-6
num_epochs = 1

[eval]
benchmarks = ["asm"]
"""


def _explain(error: ValidationError, where: str, text: str = "") -> UsageError:
    first = error.errors()[0]
    names = [str(p) for p in first["loc"]]
    key = ".".join(names)
    if line := _line_of(text, names):
        where = f"{where}:{line}"
    if first["type"] == "extra_forbidden":
        return UsageError(f"{where}: unknown setting {key!r}", "`hafs config` lists every setting")
    return UsageError(f"{where}: {key}: {first['msg']} (it is {first['input']!r})", "correct the value")


def _line_of(text: str, key: Sequence[str]) -> int:
    """The line of a TOML text that sets a key, or the table that it is in; 0 where neither is written plainly."""
    table: list[str] = []
    found = 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?([^\]]+)\]", line):
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            here = table
        elif assigned := re.match(r"\s*([^=#]+?)\s*=", line):
            here = table + [part.strip().strip("\"'") for part in assigned[1].split(".")]
        else:
            continue
        if here and here == list(key[: len(here)]):
            found = number
    return found


_GIVEN: dict[str, Any] = {}
"""What `--set` gave, table by table; it lies over every `hafs.toml` that is read."""


def set_values(pairs: Iterable[str]) -> None:
    """Put `section.key=value` over the settings that are read from now on; a value is TOML, or text as it stands.

    Raises UsageError for a pair without "=" and for a setting that does not exist.
    """
    _GIVEN.clear()
    for pair in pairs:
        place, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: there is no value", "write it as section.key=value")
        target = _GIVEN
        *path, last = place.strip().split(".")
        for part in path:
            target = target.setdefault(part, {})
        try:
            target[last] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            target[last] = value
    if _GIVEN:
        parse_config({}, "--set")


def parse_config(data: Mapping[str, Any], where: str = "settings", text: str = "") -> Config:
    """Check a mapping against the settings, those of single rounds too; raises UsageError naming the wrong key.

    `text` is the file that it was read from, so that the error can name the line.
    """
    try:
        found = Config.model_validate(_merged(data, _GIVEN))
    except ValidationError as e:
        raise _explain(e, where, text) from e
    for number in found.loop.rounds:
        found.of_round(number)
    return found


def load_config(path: str | Path) -> Config:
    """Read `hafs.toml`; raises UsageError for a missing file, broken TOML, an unknown key or a bad value."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except FileNotFoundError as e:
        raise UsageError(f"there is no {path}", "`hafs init DIR` makes a workspace") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UsageError(f"{path} is not valid TOML: {e}", "correct that line") from e
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror}", "its permissions, or another file in its place") from e
    return _seen_from(parse_config(data, str(path), text), path.absolute().parent)


def _seen_from(config: Config, folder: Path) -> Config:
    """The settings with the relative paths of task files that lie in `folder` made whole: a workspace's own files are
    found from wherever a verb is called.
    """

    def whole(name: str) -> str:
        there = name and not Path(name).expanduser().is_absolute() and (folder / name).is_file()
        return str(folder / name) if there else name

    prompts, benchmarks = whole(config.loop.prompts), [whole(b) for b in config.eval.benchmarks]
    if prompts == config.loop.prompts and benchmarks == config.eval.benchmarks:
        return config
    loop = config.loop.model_copy(update={"prompts": prompts})
    return config.model_copy(update={"loop": loop, "eval": config.eval.model_copy(update={"benchmarks": benchmarks})})


def _choice(section: _Section, path: list[str], name: str, value: Any) -> Any:
    """`value` spelt as the setting spells it: flags may write "apo-zero" for "apo_zero"."""
    fields: Any = type(section).model_fields
    for part in path:
        fields = fields[part].annotation.model_fields
    choices = get_args(fields[name].annotation) if name in fields else ()
    if isinstance(value, str) and value not in choices:
        return next((c for c in choices if isinstance(c, str) and c.replace("_", "-") == value), value)
    return value


def override(section: _Section, **values: Any) -> Any:
    """A copy of `section` with the values that are not None put in; dots reach inside (`lora.rank`)."""
    data = section.model_dump()
    for key, value in values.items():
        if value is None:
            continue
        target = data
        *path, last = key.split(".")
        for part in path:
            target = target[part]
        target[last] = _choice(section, path, last, value)
    try:
        return type(section).model_validate(data)
    except ValidationError as e:
        raise _explain(e, "flags") from e
