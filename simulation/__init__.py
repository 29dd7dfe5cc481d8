"""A subscription app played day by day with known truth: input of the demo, oracle of many tests.

Nothing here is used in production and no other middle room imports it. docs/simulator.md describes the model.
"""

from simulation.scenario import Scenario, World
from simulation.simulate import SimulationSummary, play, simulate

__all__ = ["Scenario", "SimulationSummary", "World", "play", "simulate"]
