"""LoRA's linear layers, and MLPs made of them, as one autograd function each: the same function, fewer temporaries.

PEFT computes `W x + s B (A x)` as three products, a scaling and a sum, each with a tensor as large as
the output that is written and read again. Here the low-rank part is added in place, forwards and
backwards. Of a gated MLP the backward pass keeps what its two inner layers put out and makes the activation
and the product again, which are cheap: the widest tensors of a model are kept twice, not four times.
Knows PEFT's layers and nothing else; what it does not recognise keeps its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_PROBE_ROWS = 32
_PROBE_SCALES = (1.0, 30.0, 1e3, 1e5)  # of what the inner layers put out: clamps and soft caps begin at some size


def fuse(model: Any) -> int:
    """Give every plain LoRA linear layer of `model` the fused product; returns how many there were.

    Layers with dropout, DoRA, quantised or 16-bit bases are left alone, and the output layer: its logits are written over.
    A module that computes `down_proj(silu(gate_proj(x)) * up_proj(x))` of three such layers becomes one function.
    """
    from peft.tuners.lora import Linear

    head = model.get_base_model().get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, Linear) and m is not head and _is_plain(m)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    fused, gated = set(layers), dict[Hashable, bool]()
    for module in model.modules():
        if {getattr(module, name, None) for name in _GATED} <= fused and "forward" not in vars(module):
            kind = _kind(module, _GATED)
            if kind not in gated:
                gated[kind] = _is_gated_mlp(module)
            if gated[kind]:
                module.forward = MethodType(_gated_forward, module)
    return len(layers)


_GATED = ("gate_proj", "up_proj", "down_proj")


def _is_plain(layer: Any) -> bool:
    base = layer.get_base_layer()
    name = next(iter(layer.lora_A), None)
    return (
        type(base) is nn.Linear
        and list(layer.lora_A) == [name]
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and name not in layer.lora_variant  # DoRA and its kin
        and not layer.lora_bias.get(name, False)
        and not any(weight.requires_grad for weight in base.parameters())
        and not layer.fan_in_fan_out
        and not _is_changed(layer)
        and not _is_changed(base)
        and base.weight.dtype == layer.lora_A[name].weight.dtype == torch.float32
    )


def _is_changed(module: Any) -> bool:
    """Whether hooks or a forward of its own do something that its class does not: reading the weights would pass them by."""
    return "forward" in vars(module) or bool(module._forward_hooks or module._forward_pre_hooks)


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _kind(module: Any, but: Collection[str] = ()) -> Hashable:
    """What a module's function depends on, the children in `but` left out: of two that are equal one needs to be probed.

    Plain values, such as a limit or the number of a layer, are compared; tensors, hooks and other objects must be the very same.
    """
    own = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
    tensors = [*module._parameters.values(), *module._buffers.values()]
    hooks = [hook for some in (module._forward_pre_hooks, module._forward_hooks) for hook in some.values()]
    return (
        type(module),
        module.training,
        tuple((name, type(value), value if isinstance(value, bool | int | float | str | None) else id(value)) for name, value in own.items()),
        tuple(map(id, [*tensors, *hooks])),
        tuple((name, _kind(child)) for name, child in module.named_children() if name not in but),
    )  # fmt: skip


def _is_gated_mlp(module: Any) -> bool:
    """Whether the module does to what its layers put out what the fused function does: names alone do not say which function it is.

    The layers are replaced by tensors of several sizes, so that a clamp, a soft cap or another activation shows whatever the
    weights are, and no product of matrices is paid for.
    """
    gate, up, down = (getattr(module, name).get_base_layer() for name in _GATED)
    generator, device = torch.Generator().manual_seed(0), gate.weight.device
    scales = torch.tensor(_PROBE_SCALES)[:, None, None]
    x, gated, wide, out = (
        (torch.randn(len(_PROBE_SCALES), _PROBE_ROWS, width, generator=generator) * scales).to(device)
        for width in (gate.in_features, gate.out_features, up.out_features, down.out_features)
    )
    try:
        with torch.no_grad(), _giving(module, gated, wide, out) as taken:
            found = module(x)
        expected = torch.nn.functional.silu(gated) * wide
        agree = [_agree(had, wanted) for had, wanted in zip(taken(), (x, x, expected), strict=True)]
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):  # takes or gives something else
        return False
    return isinstance(found, Tensor) and _agree(found, out) and all(agree)


@contextmanager
def _giving(module: Any, *outputs: Tensor) -> Iterator[Callable[[], list[Tensor]]]:
    """Inside, the module's three layers put out these tensors; the value gives what each of them took. Raises `ValueError`."""
    taken: list[list[Tensor]] = [[] for _ in _GATED]
    layers = [getattr(module, name) for name in _GATED]
    kept = [layer.forward for layer in layers]

    def put_out(place: int) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            taken[place].append(x)
            return outputs[place].clone()

        return forward

    def found() -> list[Tensor]:
        return [once for (once,) in taken]

    for place, layer in enumerate(layers):
        layer.forward = put_out(place)
    try:
        yield found
    finally:
        for layer, forward in zip(layers, kept, strict=True):
            layer.forward = forward


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Whether they are the same at every scale (the first axis) up to rounding."""
    if found.shape != expected.shape:
        return False
    rounding = 1e-4 * expected.abs() + 1e-6 * expected.abs().amax((1, 2), keepdim=True)
    return bool(((found - expected).abs() <= rounding).all())


def _has_its_turn(layer: Any, x: Tensor) -> bool:
    """Whether the adapter is on and neither folded in nor cast."""
    cast = x.dtype != torch.float32 or torch.is_autocast_enabled(x.device.type)
    return not (layer.disable_adapters or layer.merged or cast)


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """PEFT's forward where the adapter is off, folded in or cast; the fused product elsewhere."""
    if args or kwargs or not _has_its_turn(self, x):
        return type(self).forward(self, x, *args, **kwargs)
    return _LoraLinear.apply(x, *_Layer.of(self))


def _gated_forward(self: Any, x: Tensor) -> Tensor:
    """The module's forward where an adapter does not have its turn; the fused function elsewhere."""
    layers = [getattr(self, name) for name in _GATED]
    if not all(_has_its_turn(layer, x) for layer in layers):
        return type(self).forward(self, x)
    return _GatedMlp.apply(x, *(value for layer in layers for value in _Layer.of(layer)))


class _Layer(NamedTuple):
    """W [out, in] and bias [out] are frozen, A [r, in] and B [out, r] are trained."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor
    b: Tensor
    scale: float

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        base, name = layer.get_base_layer(), layer.active_adapters[0]
        return cls(base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name]))

    def product(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`x W' + bias + s (x A') B'` [S, out], and `x A'` [S, r], for x [S, in]."""
        low = x @ self.a.t()
        return torch.nn.functional.linear(x, self.weight, self.bias).addmm_(low, self.b.t(), alpha=self.scale), low

    def gradients(self, x: Tensor, low: Tensor, gradient: Tensor, add_to: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x (added to what is there already), A and B from that of the product [S, out]."""
        low_gradient = (gradient @ self.b).mul_(self.scale)  # [S, r]
        of_x = gradient @ self.weight if add_to is None else add_to.addmm_(gradient, self.weight)
        return of_x.addmm_(low_gradient, self.a), low_gradient.t() @ x, (gradient.t() @ low).mul_(self.scale)


class _LoraLinear(torch.autograd.Function):
    """One layer, for x [..., in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *layer: Any) -> Tensor:
        """The output [..., out]."""
        own = _Layer(*layer)
        flat = x.reshape(-1, x.shape[-1])
        out, low = own.product(flat)
        ctx.save_for_backward(flat, low, *own[:-1])
        ctx.scale, ctx.shape = own.scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, A and B."""
        x, low, *tensors = ctx.saved_tensors
        of_x, of_a, of_b = _Layer._make([*tensors, ctx.scale]).gradients(x, low, gradient.reshape(-1, gradient.shape[-1]))
        return of_x.view(ctx.shape), None, None, of_a, of_b, None


class _GatedMlp(torch.autograd.Function):
    """`down(silu(gate(x)) * up(x))` for x [..., in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *layers: Any) -> Tensor:
        """The output [..., in]."""
        gate, up, down = (_Layer(*layers[i : i + 5]) for i in (0, 5, 10))
        flat = x.reshape(-1, x.shape[-1])
        gated, gate_low = gate.product(flat)
        wide, up_low = up.product(flat)
        out, down_low = down.product(torch.nn.functional.silu(gated).mul_(wide))
        ctx.save_for_backward(flat, gated, wide, gate_low, up_low, down_low, *gate[:-1], *up[:-1], *down[:-1])
        ctx.scales, ctx.shape = (gate.scale, up.scale, down.scale), x.shape
        return out.view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of each layer's A and B."""
        x, gated, wide, gate_low, up_low, down_low, *tensors = ctx.saved_tensors
        gate, up, down = (_Layer._make([*tensors[i : i + 4], scale]) for i, scale in zip((0, 4, 8), ctx.scales, strict=True))
        active = torch.nn.functional.silu(gated)
        of_product, *of_down = down.gradients(active * wide, down_low, gradient.reshape(-1, gradient.shape[-1]))
        of_wide = active.mul_(of_product)
        of_gated = torch.ops.aten.silu_backward(of_product.mul_(wide), gated)
        of_x, *of_gate = gate.gradients(x, gate_low, of_gated)
        of_x, *of_up = up.gradients(x, up_low, of_wide, add_to=of_x)
        pairs = (of_gate, of_up, of_down)
        return of_x.view(ctx.shape), *(value for of_a, of_b in pairs for value in (None, None, of_a, of_b, None))
