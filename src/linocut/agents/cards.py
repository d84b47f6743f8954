"""Blackjack with its exact probabilities: an infinite deck, one player, a dealer who stops at 17.

Source: Sutton & Barto, *Reinforcement Learning*, 2nd ed., 2018, examples 5.1 and 5.3.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import NamedTuple

from linocut.agents.mdp import Outcome, TabularMDP

CARDS = {card: 4 / 13 if card == 10 else 1 / 13 for card in range(1, 11)}
"""How probable each card is; 1 is the ace, 10 also knave, queen and king."""

BUST = 22


class Hand(NamedTuple):
    """What a player sees: the own sum, the dealer's card, whether an ace counts 11."""

    total: int
    dealer: int
    usable_ace: bool


def blackjack(*, natural_wins: bool = False) -> TabularMDP:
    """Blackjack: draw cards (``"hit"``) or stop (``"stick"``); the reward is 1 for the higher sum, -1, or 0 for a draw.

    States are the 200 :class:`Hand` of sums 12 … 21 (below, one always draws). More than 21 loses at once. The process
    starts where the first two cards, and those drawn up to 12, lead. Nothing is discounted.

    Args:
        natural_wins: let 21 of the first two cards win against any hand of the dealer's but the same, which draws; ten
            more states, of totals ``"natural"``, hold these hands. Otherwise they are 21 like any other.

    Example:
        >>> from linocut.agents import value_iteration
        >>> game = blackjack()
        >>> game.n_states, round(float(value_iteration(game, gamma=1).values @ game.start), 5)
        (200, -0.04656)
    """
    hands = [Hand(total, dealer, ace) for total in range(12, 22) for dealer in CARDS for ace in (False, True)]
    rows: dict[Hand | tuple[str, int], dict[str, list[Outcome]]] = {
        hand: {"stick": _stick(hand), "hit": _hit(hand)} for hand in hands
    }
    start: dict[Hand | tuple[str, int], float] = defaultdict(float)
    for dealer, chance in CARDS.items():
        natural = "natural", dealer
        if natural_wins:
            draws = CARDS[10] if dealer == 1 else CARDS[1] if dealer == 10 else 0.0
            results = [(p, natural, r, True) for p, r in ((draws, 0.0), (1 - draws, 1.0)) if p > 0]
            rows[natural] = {"stick": results, "hit": results}
        for (total, ace, cards), p in _dealt(0, usable_ace=False, cards=0).items():
            hand = natural if natural_wins and cards == 2 and total == 21 else Hand(total, dealer, ace)
            start[hand] += chance * p
    return TabularMDP.from_dict(rows, start=start)


def add_card(total: int, usable_ace: bool, card: int) -> tuple[int, bool]:
    """The sum with one more card, and whether an ace counts 11 in it; an ace does as long as that is not too much."""
    total += card
    if card == 1 and total + 10 <= 21:
        return total + 10, True
    if total > 21 and usable_ace:
        return total - 10, False
    return total, usable_ace


def _hit(hand: Hand) -> list[Outcome]:
    """Each card in turn; what is too much ends the game."""
    listed: list[Outcome] = []
    for card, p in CARDS.items():
        total, ace = add_card(hand.total, hand.usable_ace, card)
        over = total > 21
        listed.append((p, hand if over else Hand(total, hand.dealer, ace), -1.0 if over else 0.0, over))
    return listed


def _stick(hand: Hand) -> list[Outcome]:
    """The three results by how the dealer may end."""
    chances = dict.fromkeys((1.0, 0.0, -1.0), 0.0)
    for total, p in _dealer_ends(*add_card(0, usable_ace=False, card=hand.dealer)).items():
        chances[1.0 if total == BUST or total < hand.total else 0.0 if total == hand.total else -1.0] += p
    return [(p, hand, reward, True) for reward, p in chances.items() if p > 0]


@cache
def _dealer_ends(total: int, usable_ace: bool) -> dict[int, float]:
    """How probable it is that a dealer with this sum ends with each of 17 … 21, or too much (:data:`BUST`)."""
    if total >= 17:
        return {min(total, BUST): 1.0}
    ends: dict[int, float] = defaultdict(float)
    for card, chance in CARDS.items():
        for end, p in _dealer_ends(*add_card(total, usable_ace, card)).items():
            ends[end] += chance * p
    return dict(ends)


@cache
def _dealt(total: int, usable_ace: bool, cards: int) -> dict[tuple[int, bool, int], float]:
    """How probable each first hand is (sum, usable ace, number of cards): two cards, and more up to 12."""
    if total >= 12:
        return {(total, usable_ace, cards): 1.0}
    hands: dict[tuple[int, bool, int], float] = defaultdict(float)
    for card, chance in CARDS.items():
        for hand, p in _dealt(*add_card(total, usable_ace, card), cards + 1).items():
            hands[hand] += chance * p
    return dict(hands)
