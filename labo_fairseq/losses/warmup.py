"""How long a smoothing warm-up may be, for trainers that know how many updates they will make."""

from typing import Optional

#: the share of the updates that may belong to the warm-up without a word
_MOST = 0.5
#: in the paper's trainings: 10,000 of 300,000
_OF_THE_PAPER = 0.03


def describe_long_warmup(name: str, option: str, warmup_steps: int, updates: float) -> Optional[str]:
    """What to tell a user whose training belongs to the smoothing warm-up for the most part; None where it does not.

    Args:
        name: of the loss that follows.
        option: what sets the warm-up, as a user writes it before a number.
        updates: of the whole training, ∞ where nobody knows.
    """
    if warmup_steps <= _MOST * updates:
        return None
    left = f"{updates - warmup_steps:.0f} are left"
    if warmup_steps >= updates:
        left = f"it is label smoothing and {name} never begins"
    return (
        f"{name}: the smoothing warm-up takes {warmup_steps:,} of the {updates:,.0f} updates of this training: {left}. "
        f"{option}{max(1, round(_OF_THE_PAPER * updates))} would be the paper's share"
    )
