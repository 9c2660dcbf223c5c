"""What devices cost an hour, and what that comes to. Pure functions; the currency is whoever's gave the prices."""

from collections.abc import Mapping

from cluster.resources import ACCELERATOR_LABEL, CPU, GPU, Held, Shape

ACCELERATORS = (
    "V100", "P100", "T4", "P4", "K80", "A10G", "L4", "L40S", "A100", "A100-40G", "A100-80G", "H100", "H200", "H20",
    "B200", "B300", "GB200", "GB300", "RTX-PRO-6000", "Intel-GPU-Max-1550", "Intel-GPU-Max-1100", "Intel-GAUDI",
    "AMD-Instinct-MI100", "AMD-Instinct-MI250X-MI250", "AMD-Instinct-MI210", "AMD-Instinct-MI300A",
    "AMD-Radeon-R9-200-HD-7900", "AMD-Radeon-HD-7900",
)  # fmt: skip
"""Kinds of GPUs by Ray's names for them."""

Prices = Mapping[str, float]
"""Of an hour of a device by its kind: a GPU's name, GPU for every other, CPU for those of whatever holds no GPU."""


def price_of(kind: str, prices: Prices) -> float:
    """Of an hour. A GPU that has no price costs what the dearest does: nobody is to be told less than is billed."""
    if kind in prices or kind == CPU:
        return prices.get(kind, 0.0)
    return prices.get(GPU, dearest(prices))


def dearest(prices: Prices) -> float:
    """The price of the dearest GPU."""
    return max((price for kind, price in prices.items() if kind != CPU), default=0.0)


def cost(seconds: Held, prices: Prices) -> float:
    """Of so many seconds of devices."""
    return sum(amount / 3600 * price_of(kind, prices) for kind, amount in seconds.items())


def hourly(shape: Shape, prices: Prices) -> float:
    """What a call of `shape` costs an hour, at most: the kind of its GPUs is known only where it asks for one."""
    kind = dict(shape.labels).get(ACCELERATOR_LABEL, "")
    price = prices[kind] if kind in prices else dearest(prices)
    return sum(amount * (price_of(CPU, prices) if one == CPU else price) for one, amount in shape.held().items())
