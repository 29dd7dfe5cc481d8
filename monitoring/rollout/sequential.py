"""Tests that may be looked at after every request: fair bets on which revision answered a user.

Users are drawn into the canary by a hash, each with the same probability p (the *price*). If the canary is as good as
stable, nothing a user met tells anything about that draw: whoever bets on "this user is on the canary" at the price p
plays a fair game, whatever made the bet, and however users, hours and loads differ. The wealth E of such a player,
starting at 1, is a test martingale, so by Ville's inequality

    P(E ever reaches 1/alpha) <= alpha,                                                       (1)

at any number of looks, with no distribution assumed and no sample size asked for. A user is bet on once a table, so
that a user with a thousand requests, all alike, is still one draw.

A bet is a density ratio w: how much likelier the canary makes what was seen. Given it, the canary's odds are w times
the price's, so the stake on one user multiplies the wealth by

    w / (p w + 1 - p)   if the user is on the canary,      1 / (p w + 1 - p)   if on stable,      (2)

whose mean under the price is 1 for every w. With outcomes in K bins only counts matter: log wealth is linear in them,
so any tick size gives the same wealth. Nobody knows the right w beforehand; a mean of several wealths is a wealth again
(Vovk & Wang 2021), so each test is the mean over a family of bets, at the cost of the logarithm of their number.

References: Ville 1939; Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting (JRSS B);
Shekhar & Ramdas 2023, Nonparametric two-sample testing by betting (arXiv 2112.09162); Lindon & Malek 2022, Anytime-valid
inference for multinomial count data (arXiv 2011.03567), and Lindon et al. 2022, Rapid regression detection in software
deployments (arXiv 2205.14762), who condition on counts as (2) does; Turner, Ly & Grünwald 2021, Generic e-variables for
exact sequential k-sample tests (arXiv 2106.02693); Waudby-Smith et al. 2024, Time-uniform central limit theory and
asymptotic confidence sequences (Annals of Statistics, arXiv 2103.06476).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import betaln

Floats = npt.NDArray[np.float64]

HARMS: Final = np.array([1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0])
"""Ratios that a bet on a rare event tries. 1000 is a crash: at p = 0.05 it wins a factor of 19.6 a failing user."""
SHIFTS: Final = np.array([-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0])
"""Slopes of the bets on a shift of ranks. Of a normal variable, slope 1 is a shift of about half its deviation."""
SPREADS: Final = np.array([-2.0, 2.0])
"""Slopes of the bets on more or less mass at both ends."""


def log_wealth(counts: npt.NDArray[np.int64], ratios: Floats, price: float) -> Floats:
    """Log of the wealth (2) of fixed bets: counts (..., 2, K) of either arm's users, ratios (..., M, K) to (..., M)."""
    log_shared = np.log(price * ratios + 1 - price)
    stable, canary = counts[..., 0, :], counts[..., 1, :]
    won = np.einsum("...k,...mk->...m", canary, np.log(ratios) - log_shared)
    lost = np.einsum("...k,...mk->...m", stable, -log_shared)
    return np.asarray(won + lost)


def log_wealth_any_shape(counts: npt.NDArray[np.int64], price: float) -> Floats:
    """Log of the wealth of a bet on any difference between bins: counts (..., 2, K) to (...).

    In each bin the canary's share q is mixed over Beta(1, 1/p - 1), whose mean is the price: the beta-binomial Bayes factor
    against q = p, times that of the other bins (Lindon & Malek 2022, a bin at a time).
    """
    stable, canary = counts[..., 0, :], counts[..., 1, :]
    prior_canary, prior_stable = 1.0, 1 / price - 1
    mixed = betaln(canary + prior_canary, stable + prior_stable) - betaln(prior_canary, prior_stable)
    return np.asarray(np.sum(mixed - canary * math.log(price) - stable * math.log1p(-price), axis=-1))


def mix(log_wealths: Floats, axis: int = -1) -> Floats:
    """Log of the mean of wealths, given as logs: the wealth of a player who split the first stake evenly."""
    return np.asarray(np.logaddexp.reduce(log_wealths, axis=axis) - math.log(log_wealths.shape[axis]))


def rank_ratios(shares: Floats, slopes: Floats, spreads: Floats) -> Floats:
    """Bets on a shift and on a spread of ranks: shares (..., K) of the reference's bins to ratios (..., M, K).

    With s the middle rank of a bin, scaled to (-1, 1), w is proportional to exp(slope s), or exp(slope (2 s^2 - 1)), and has
    mean 1 under the reference: an exponential tilt of it.
    """
    ranks = 2 * (np.cumsum(shares, axis=-1) - shares / 2) - 1
    scores = np.concatenate(
        [slopes[:, None] * ranks[..., None, :], spreads[:, None] * (2 * ranks[..., None, :] ** 2 - 1)], axis=-2
    )
    tilts = np.exp(scores)
    return np.asarray(tilts / np.sum(tilts * shares[..., None, :], axis=-1, keepdims=True))


def log_threshold(level: float) -> float:
    """The log wealth that (1) allows to be reached with probability ``level``."""
    return -math.log(level)


def bound(variance: float, count: float, level: float, tuned_for: float) -> float:
    """How far above its estimate a mean may still lie: one-sided asymptotic confidence sequence, valid at every count at once.

    The one-sided form of the boundary of Waudby-Smith et al. 2024 (half-normal mixture of exp(lambda S - lambda^2 V / 2), with
    the tail of the normal distribution below exp(-x^2 / 2) / 2), with t the count and sigma^2 the variance:

        sigma sqrt( 2 (t rho^2 + 1) / (t^2 rho^2) log( 1 + sqrt(t rho^2 + 1) / (2 level) ) ),

    rho chosen so that the bound is about tightest at ``tuned_for``: rho^2 = (-2 log(2 level) + log(-2 log(2 level) + 1)) / t.
    """
    log_level = -2 * math.log(2 * level)
    rho2 = (log_level + math.log(log_level + 1)) / tuned_for
    scaled = count * rho2 + 1
    return math.sqrt(variance * 2 * scaled / (count * count * rho2) * math.log1p(math.sqrt(scaled) / (2 * level)))
