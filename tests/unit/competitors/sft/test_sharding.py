"""What one worker holds: weights and optimizer state by parameter name, in and out again."""

import copy

import torch

from competitors.sft.sharding import Whole, exchanged, gathered, holding, named_trainable


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1, bias=False))
    made[0].bias.requires_grad_(False)
    return made


def trained(net: torch.nn.Module, steps: int = 2) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def test_state_by_name_goes_into_another_optimizer_which_then_goes_on_the_same():
    one, other = model(), model()
    first, second = trained(one), trained(other, steps=0)
    other.load_state_dict(one.state_dict())
    held, into = holding(one, first), holding(other, second)
    assert type(held) is Whole
    # As from a file: what it gives are the optimizer's own tensors.
    state = copy.deepcopy({name: held.state(p) for name, p in named_trainable(one).items()})
    assert set(state) == {"0.weight", "1.weight"}
    assert set(state["0.weight"][0]) == {"exp_avg", "exp_avg_sq"}
    assert state["0.weight"][1] == {"step": 2.0}
    assert into.set_state(state) is None
    for net, optimizer in ((one, first), (other, second)):
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_weights_are_exchanged_only_while_the_block_lasts():
    net = model()
    held = Whole(net, None).held()
    before = [tensor.clone() for tensor in held]
    with exchanged(held, [torch.zeros_like(tensor) for tensor in held]):
        assert all((tensor == 0).all() for tensor in held)
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(held, before, strict=True))
    with exchanged(held, []):  # nothing to put there
        assert all(torch.equal(tensor, kept) for tensor, kept in zip(held, before, strict=True))


def test_a_weight_is_put_where_the_optimizer_takes_it_from():
    net = model()
    whole = Whole(net, trained(net))
    with gathered(net.parameters(), write=True):
        whole.set_weight(net[1].weight, torch.tensor([[7.0, 8.0]]))
    assert net[1].weight.tolist() == [[7.0, 8.0]]
    assert whole.weight(net[1].weight).tolist() == whole.frozen(net[1].weight).tolist() == [[7.0, 8.0]]


class FewBits(torch.Tensor):
    """As torchao keeps a moment: codes, of which no file is made."""

    codes = torch.zeros(2, dtype=torch.uint8)

    def dequantize(self) -> torch.Tensor:
        return torch.full((2,), 0.5)


def test_state_in_fewer_bits_is_handed_on_as_floats():
    net = model()
    optimizer = trained(net)
    parameter = named_trainable(net)["0.weight"]
    optimizer.state[parameter]["exp_avg"] = torch.zeros(2).as_subclass(FewBits)
    tensors, _ = holding(net, optimizer).state(parameter)
    assert type(tensors["exp_avg"]) is torch.Tensor
    assert tensors["exp_avg"].tolist() == [0.5, 0.5]
