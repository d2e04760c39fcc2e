"""The shapes of a model, read from its config.json alone: what can be known of it before any weight is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hafs.errors import UsageError
from hafs.models.loading import is_tied, quiet
from hafs.models.naming import base_of, resolve
from hafs.training.attention import takes_shared_layout


@dataclass(frozen=True)
class Linear:
    """A layer that can carry an adapter, by its name in the model."""

    name: str
    inputs: int
    outputs: int
    embedding: bool = False

    @property
    def block(self) -> str:
        """The name of the module that it is in."""
        return self.name.rpartition(".")[0]

    @property
    def closes(self) -> bool:
        """Whether it is its block's last one, from the inner width back to the hidden one."""
        return self.name.rpartition(".")[2] in ("o_proj", "out_proj", "c_proj", "down_proj", "dense", "fc2")

    @property
    def attention(self) -> bool:
        """Whether its block is attention."""
        return "attn" in self.block.rpartition(".")[2] or "attention" in self.block.rpartition(".")[2]

    def named(self, target: str) -> bool:
        """peft's rule for one name of a list of targets."""
        return self.name == target or self.name.endswith(f".{target}")


@dataclass(frozen=True)
class Layer:
    """A decoder layer: its linear layers, the widths of its norms, of what its MLP keeps, and its active weights."""

    linears: tuple[Linear, ...]
    norms: tuple[int, ...]
    middle: tuple[int, ...]
    active: float


@dataclass(frozen=True)
class Shape:
    """The shapes of a model, all that the estimates need of it."""

    parameters: int
    linears: tuple[Linear, ...]
    quantisable: int
    layers: tuple[Layer, ...]
    hidden: int
    heads: int
    attention: int
    keys: int
    vocabulary: int
    shared: bool
    eager: bool
    adapter: bool
    tied: tuple[str, ...] = ()
    """Last names of embeddings and head where they are one; an adapter on either gives the head weights of its own."""

    @staticmethod
    def read(model: str | Path) -> Shape:
        """The shapes of the model called `model`; an adapter has those of its base."""
        path = resolve(model)
        if adapter := (path / "adapter_config.json").is_file():
            path = base_of(path)
        return Shape.of(_read(path), adapter)

    @staticmethod
    def of(net: Any, adapter: bool = False) -> Shape:
        """The shapes of a causal language model (on whatever device); `adapter`: it is the base of one."""
        config = net.config.get_text_config()
        head = net.get_output_embeddings()
        linears = tuple(_linears(net))
        inner = [x for x in linears if not x.embedding and net.get_submodule(x.name) is not head]
        depth = config.num_hidden_layers
        stack = next(((n, m) for n, m in net.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth), None)
        if head is None or stack is None:
            raise UsageError(f"{config.model_type} is no causal language model that hafs knows", "choose another model")
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return Shape(
            parameters=sum(p.numel() for p in net.parameters()),
            linears=linears,
            quantisable=sum(x.inputs * x.outputs for x in inner),
            layers=tuple(_layer(f"{stack[0]}.{i}.", layer, inner, config) for i, layer in enumerate(stack[1])),
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            attention=config.num_attention_heads * width,
            keys=(getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * width,
            vocabulary=config.vocab_size,
            shared=takes_shared_layout(net.config),
            eager=net.config._attn_implementation == "eager",
            adapter=adapter,
            tied=tuple(x.name.rpartition(".")[2] for x in linears if _at_an_end(net, x.name)) if is_tied(net) else (),
        )

    def targets(self, names: str) -> list[Linear]:
        """The layers that `lora.targets` means: all linear ones but the output layer, or those of a comma list."""
        if names == "all-linear":
            inner = {x.name for layer in self.layers for x in layer.linears}
            return [x for x in self.linears if x.name in inner]
        found = [x for x in self.linears if any(x.named(t) for t in names.split(","))]
        if not found:
            raise UsageError(f"no layer of the model is called {names}", "check lora.targets")
        return found


def _at_an_end(net: Any, name: str) -> bool:
    return net.get_submodule(name) in (net.get_input_embeddings(), net.get_output_embeddings())


def _read(path: Path) -> Any:
    """The model of a directory's config.json without memory for its weights."""
    from transformers import AutoConfig

    quiet()
    try:
        return on_meta(AutoConfig.from_pretrained(str(path)))
    except (OSError, ValueError, RuntimeError) as e:
        raise UsageError(f"{path}/config.json makes no causal language model: {e}", "give another model") from e


def on_meta(config: Any) -> Any:
    """The causal language model of a configuration without memory for its weights."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        net = AutoModelForCausalLM.from_config(config)
    net.tie_weights()
    return net


def _linears(net: Any) -> Iterator[Linear]:
    from transformers.pytorch_utils import Conv1D

    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            yield Linear(name, module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            yield Linear(name, *module.weight.shape)
        elif isinstance(module, nn.Embedding):
            yield Linear(name, module.num_embeddings, module.embedding_dim, embedding=True)


def _layer(prefix: str, module: nn.Module, linears: Sequence[Linear], config: Any) -> Layer:
    mine = tuple(x for x in linears if x.name.startswith(prefix))
    heads, key_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads)
    norms = []
    for name, norm in module.named_modules():
        if "Norm" in type(norm).__name__ and isinstance(size := getattr(norm, "weight", None), nn.Parameter):
            each = size.numel() == getattr(config, "head_dim", None)  # qwen3 normalises every head
            norms.append(size.numel() * ((key_heads if "k_" in name else heads) if each else 1))
    middle: list[int] = []
    for block in {x.block for x in mine if not x.attention}:
        inside = [x for x in mine if x.block == block]
        width = max((x.inputs for x in inside if x.closes), default=0)
        gated = sum(x.outputs for x in inside if not x.closes) >= 2 * width
        function = getattr(config, "activation_function", getattr(config, "hidden_act", ""))
        middle += [width] * (3 if gated else 4 if function == "gelu_new" else 1)
    # Experts are parameters of three dimensions, of which a token passes through a few.
    experts = [p for p in module.parameters() if p.dim() == 3]
    chosen = getattr(config, "num_experts_per_tok", 1) or 1
    if experts:
        width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
        middle += [chosen * width] * 3 + [chosen * config.hidden_size] * 2
    active = sum(x.inputs * x.outputs for x in mine) + sum(p.numel() / p.shape[0] * chosen for p in experts)
    return Layer(mine, tuple(norms), tuple(middle), active)
